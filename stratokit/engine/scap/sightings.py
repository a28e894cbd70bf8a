"""What readers of a scap file must be told because no event tells it: threads, names, descriptors."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.engine.frames import collect
from stratokit.engine.scap import events_out as eo
from stratokit.formats.scap import metadata as md
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture
    from stratokit.engine.scap.people import People

_AT_FDCWD, _O_DIRECTORY, _TCP, _UDP = (1 << 32) - 100, 0o200000, 6, 17
_L4 = {6: 2, 17: 3, 1: 4, 58: 4}
_ANON = {
    "anon_inode:[eventfd]": md.EVENTFD,
    "anon_inode:[signalfd]": md.SIGNALFD,
    "anon_inode:[eventpoll]": md.EVENTPOLL,
    "anon_inode:inotify": md.INOTIFY,
    "anon_inode:[timerfd]": md.TIMERFD,
}
_KINDS = {
    "file": md.FILE_V2,
    "char": md.FILE_V2,
    "block": md.FILE_V2,
    "directory": md.DIRECTORY,
    "pipe": md.FIFO,
}


@dataclasses.dataclass(frozen=True)
class Sightings:
    """`threads`: the process of each thread. `names`: (ts, tid, pid, comm) where a thread has another name
    than before, with whether it is `unknown` to us, and `heard` of by readers. `untold`: uses of descriptors
    that no call accounts for. `execs`: spans (pid, ts, end) of the calls that ran a program. `listening`:
    sockets (pid, fd, src_ip, src_port) that waited for connections when the recording began. `served`: ports
    that anybody listened on.
    """

    threads: dict[int, int]
    names: pl.DataFrame
    untold: pl.DataFrame
    execs: pl.DataFrame
    listening: pl.DataFrame
    served: frozenset[int]


def first_sightings(capture: Capture, profile: str) -> Sightings:
    """One look at all system calls before they are written to a profile of `events_out`.

    Memory: one narrow row a call.
    """
    calls = capture.rows("syscall").with_columns(pl.col("ts").cast(pl.Int64))
    threads = collect(calls.select("tid", "pid").drop_nulls().unique(["tid"], keep="last"))
    executed = pl.col("syscall").is_in(["execve", "execveat"]) & (pl.col("ret") == 0)
    since = pl.col("ts") + pl.when(executed).then(pl.col("duration_ns").cast(pl.Int64)).otherwise(
        0
    ).fill_null(0)
    comms = collect(calls.select(since.alias("ts"), "tid", "pid", "comm").drop_nulls())
    # Processes of the list are known from the start, also where a call began before the list was made.
    since = pl.when(pl.col("event") == "snapshot").then(0).otherwise(pl.col("ts").cast(pl.Int64))
    told = collect(
        capture.rows("process")
        .filter(pl.col("event") != "exit", pl.col("tid") == pl.col("pid"))
        .select(since.alias("ts"), "tid", "pid", "comm")
        .drop_nulls()
    )
    both = pl.concat([told.with_columns(told=True), comms.with_columns(told=False)]).sort(
        "ts", maintain_order=True
    )
    before = pl.col("comm").shift(1).over("tid")
    names = both.with_columns(unknown=before.is_null(), changed=before.ne_missing(pl.col("comm")))
    names = names.filter("changed", ~pl.col("told")).select("ts", "tid", "pid", "comm", "unknown")
    end = pl.col("ts") + pl.col("duration_ns").cast(pl.Int64)
    made = calls.filter(pl.col("syscall").is_in(["clone", "clone3"]), pl.col("ret") > 0)
    cloned = collect(made.group_by(tid=pl.col("ret").cast(pl.UInt32)).agg(cloned=end.min()))
    names = names.join(cloned, on="tid", how="left", maintain_order="left").with_columns(
        heard=~pl.col("unknown") | (pl.col("cloned") <= pl.col("ts")).fill_null(value=False)
    )
    execs = collect(calls.filter(executed).select("pid", "ts", end=end)).sort("ts")
    listens = capture.rows("socket").filter(pl.col("new_state") == "LISTEN", pl.col("src_port") > 0)
    served = frozenset(collect(listens.select("src_port").unique())["src_port"])
    there = listens.filter(pl.col("event") == "snapshot", pl.col("fd") >= 0)
    listening = collect(there.select("pid", "fd", "src_ip", "src_port").drop_nulls())
    untold = _untold(capture, calls, eo.makers(profile))
    return Sightings(dict(threads.iter_rows()), names, untold, execs, listening, served)


_DUPS = ("dup", "dup2", "dup3", "fcntl")
_USED = (
    "ts", "pid", "tid", "fd", "fd_kind", "fd_name", "inode", "device", "socket_cookie", "src_ip", "src_port",
    "dst_ip", "dst_port",
)  # fmt: skip


def _untold(capture: Capture, calls: pl.LazyFrame, makers: Collection[str]) -> pl.DataFrame:
    """Uses of a descriptor that is not what earlier calls of its process made it; `first` ones among them.
    Readers know what `makers` make.
    """
    returned = pl.col("syscall").is_in(eo.makers()) & (pl.col("ret") == pl.col("fd"))
    nameless = pl.when((pl.col("fd_kind") == "anon") | returned).then(pl.lit(""))
    named = calls.with_columns(pl.coalesce("fd_name", nameless).alias("fd_name"))
    known = named.filter(pl.col("fd") >= 0, pl.col("fd_kind").is_not_null(), pl.col("fd_name").is_not_null())
    made = pl.col("syscall").is_in(makers) & (pl.col("ret") == pl.col("fd")) | pl.col("fd2").is_not_null()
    closed = (pl.col("syscall") == "close") & (pl.col("ret") == 0)
    uses = known.select(*_USED, made=made, closed=closed)
    # A copy is what the descriptor that was copied is.
    copies = known.filter(pl.col("syscall").is_in(_DUPS[:3]), pl.col("ret") >= 0).with_columns(
        fd=pl.col("arg0").cast(pl.Int32, strict=False)
    )
    # Both ends of a pipe have one name; that of a pair's second socket is not known yet.
    other = pl.when(pl.col("fd_kind") == "pipe").then("fd_name")
    seconds = known.filter(pl.col("fd2").is_not_null()).with_columns(fd="fd2", fd_name=other)
    never = pl.lit(value=False)
    uses = pl.concat(
        [
            copies.select(*_USED, made=never, closed=never),
            seconds.select(*_USED, made=~never, closed=never),
            uses,
        ]
    )
    same = ["pid", "fd"]
    name, closed = (pl.col(column).shift(1).over(same) for column in ("fd_name", "closed"))
    unnamed = name.is_null() & pl.col("made").shift(1).over(same)
    ordered = collect(uses.sort("ts", maintain_order=True)).with_columns(
        first=pl.int_range(pl.len()).over(same) == 0,
        changed=(name.ne_missing(pl.col("fd_name")) & ~unnamed.fill_null(value=False))
        | closed.fill_null(value=True),
    )
    found = ordered.filter("changed", ~pl.col("made"))
    protocols = collect(
        capture.rows("socket").select("socket_cookie", "ip_proto").drop_nulls().unique("socket_cookie")
    )
    return eo.with_ends(found).join(protocols, on="socket_cookie", how="left", maintain_order="left")


def _listener(row: dict[str, Any]) -> md.Descriptor:
    local, family = eo.packed(row["src_ip"])
    kind = md.IPV4_SERVER if family == 2 else md.IPV6_SERVER
    port = row["src_port"]
    return md.Descriptor(row["pid"], row["fd"], 0, kind, local=local, local_port=port, l4=_L4[_TCP])


def _descriptor(row: dict[str, Any], served: frozenset[int]) -> md.Descriptor:
    inode, name = row["inode"] or 0, row["fd_name"].encode()
    if row["fd_kind"] == "socket" and row["src_ip"] is not None:
        local, family = eo.packed(row["src_ip"])
        l4 = _L4.get(row["ip_proto"] or _UDP, 1)
        if row["dst_ip"] is None:
            kind = md.IPV4_SERVER if family == 2 else md.IPV6_SERVER
            return md.Descriptor(
                row["pid"], row["fd"], inode, kind, local=local, local_port=row["src_port"] or 0, l4=l4
            )
        remote, _ = eo.packed(row["dst_ip"])
        kind = md.IPV4 if family == 2 else md.IPV6
        ports = row["src_port"] or 0, row["dst_port"] or 0
        if family != 2 and ports[0] in served:
            # Readers put the client of IPv4 first, knowing who listens; of IPv6 they show what stands here.
            local, remote, ports = remote, local, ports[::-1]
        return md.Descriptor(row["pid"], row["fd"], inode, kind, b"", local, remote, *ports, l4)
    kind = _KINDS.get(row["fd_kind"], _ANON.get(row["fd_name"], md.UNSUPPORTED))
    return md.Descriptor(row["pid"], row["fd"], inode, kind, name)


def at_start(sightings: Sightings, pids: Collection[int]) -> dict[int, list[md.Descriptor]]:
    """Descriptors that these processes had when they were first seen, and what they listened on."""
    found: dict[int, list[md.Descriptor]] = {}
    mine = pl.col("pid").is_in(list(pids))
    used = sightings.untold.filter(pl.col("first") & mine)
    for row in used.iter_rows(named=True):
        found.setdefault(row["pid"], []).append(_descriptor(row, sightings.served))
    unused = sightings.listening.filter(mine).join(used, on=["pid", "fd"], how="anti")
    for row in unused.iter_rows(named=True):
        found.setdefault(row["pid"], []).append(_listener(row))
    return found


def introductions(processes: pl.DataFrame, sightings: Sightings, people: People) -> pl.DataFrame:
    """Rows of `events_out` that are no system calls, in order of time."""
    event, zero = pl.col("event"), pl.lit(0, pl.Int64)
    who = ("ts", "tid", "pid", "comm")

    def told(frame: pl.DataFrame, name: str, **columns: pl.Expr) -> pl.DataFrame:
        return frame.select(*who, **({"ret": zero} | columns), syscall=pl.lit(name))

    # What happened before a process was listed is in the list.
    listed = processes.filter(event == "snapshot").select("pid", pl.col("ts").alias("listed"))
    processes = processes.join(listed.unique("pid"), on="pid", how="left", maintain_order="left").filter(
        pl.col("listed").is_null() | (pl.col("ts") > pl.col("listed")) | (event == "exit")
    )
    code = pl.col("exit_code").cast(pl.Int64).fill_null(0)
    leader = pl.col("tid") == pl.col("pid")
    threads = sightings.names.filter(pl.col("unknown") | ~leader)
    heard = pl.concat([processes.filter(event != "exit").select("tid", "ts"), threads.select("tid", "ts")])
    heard = heard.group_by("tid").agg(pl.col("ts").min().alias("heard"))
    ends = processes.filter(event == "exit").join(heard, on="tid", how="left", maintain_order="left")
    parts = [
        told(processes.filter(event == "fork"), eo.BORN),
        # Stratoshark gives up where one ends that it does not know: of what ended while the list was made
        # nothing but its end was recorded.
        told(
            ends.filter(pl.col("listed").is_not_null() | (pl.col("heard") <= pl.col("ts"))),
            eo.ENDED,
            arg0=code * 256,
            arg1=code,
        ),
        # A thread that has another name now: readers take it only of one that begins.
        told(threads.filter(~leader, "heard"), eo.GONE),
        told(threads, eo.BORN),
        # Of a process they take it as if it had run its program anew.
        told(sightings.names.filter(~pl.col("unknown") & leader), eo.RUNS),
        *_opened(sightings, people),
    ]
    ran = (
        processes.filter(event == "exec")
        .sort("ts")
        .join_asof(
            sightings.execs.rename({"ts": "called", "end": "returned"}),
            left_on="ts",
            right_on="called",
            by="pid",
            check_sortedness=False,
        )
    )
    parts.append(
        told(ran.filter((pl.col("returned") >= pl.col("ts")).not_() | pl.col("returned").is_null()), eo.RUNS)
    )
    return as_calls(pl.concat(parts, how="diagonal_relaxed")).sort("ts", maintain_order=True)


def state_changes(capture: Capture) -> pl.DataFrame:
    """Rows of `events_out` for what the kernel said of TCP sockets; memory: one narrow row each."""
    rows = capture.rows("socket").filter(pl.col("event") != "snapshot")
    ends = pl.format(
        "{}:{}->{}:{}", *(_bracketed(name) for name in ("src_ip", "src_port", "dst_ip", "dst_port"))
    )
    states = pl.format(" {}->{}", "old_state", "new_state")
    times = pl.format(" rtt_us={}", pl.col("rtt_ns") // 1000)
    told = pl.concat_str(ends, states.fill_null(""), times.fill_null(""))
    found = rows.select(
        pl.col("ts").cast(pl.Int64), "tid", "pid", "comm", syscall=pl.lit(eo.STATE), ret=pl.lit(0, pl.Int64),
        path=pl.format("tcp.{}", "event"), path2=told,
    )  # fmt: skip
    return as_calls(collect(found))


def _bracketed(name: str) -> pl.Expr:
    text = pl.col(name).cast(pl.String)
    return pl.when(text.str.contains(":", literal=True)).then(pl.format("[{}]", text)).otherwise(text)


def as_calls(found: pl.DataFrame) -> pl.DataFrame:
    """With all columns of `events_out`."""
    return found.select(
        *(
            (pl.col(name) if name in found.columns else pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in _schema().items()
        ),
        end=pl.col("ts"),
        entered=pl.lit(value=True),
    )


def _opened(sightings: Sightings, people: People) -> Iterator[pl.DataFrame]:
    """Descriptors that came to a process unseen: inherited, made in pairs, or passed over a socket."""
    listed = pl.col("first") & pl.col("pid").is_in([person.pid for person in people.at_start])
    untold = sightings.untold.filter(~listed)
    kind, who = pl.col("fd_kind"), ("ts", "tid", "pid", "inode", "device")
    fd, path = pl.col("fd").cast(pl.Int64), pl.col("fd_name").str.starts_with("/")
    # A pipe with a path is shown by it.
    is_file = path & kind.is_in(["file", "directory", "char", "block", "pipe"])
    files = untold.filter(is_file)
    flags = pl.when(kind == "directory").then(_O_DIRECTORY).otherwise(0).cast(pl.UInt64)
    here = pl.lit(_AT_FDCWD, pl.UInt64)
    yield files.select(*who, syscall=pl.lit(eo.FILE), ret=fd, path="fd_name", arg0=here, arg2=flags)
    pipes = untold.filter(~path, kind == "pipe")
    yield pipes.select(*who, "fd", syscall=pl.lit(eo.PIPE), ret=pl.lit(0, pl.Int64))
    sockets = untold.filter(kind == "socket")
    unnamed = sockets.filter(pl.col("src_ip").is_null())
    yield unnamed.select(*who, "fd", syscall=pl.lit(eo.PAIR), ret=pl.lit(0, pl.Int64))
    yield from _ends_of(sockets.filter(pl.col("src_ip").is_not_null()), sightings.served)
    # A number may mean something else to readers: they follow neither close_range nor close-on-exec.
    others = untold.filter(~is_file, ~kind.is_in(["pipe", "socket"]))
    yield others.select(*who, syscall=pl.lit(eo.ANON), ret=fd)


def _ends_of(sockets: pl.DataFrame, served: frozenset[int]) -> Iterator[pl.DataFrame]:
    """Sockets that have addresses. sysdig 0.29.3 takes the exit of accept alone, and shows its source as the
    client; it makes nothing of an exit of socket alone, which tells other readers of datagrams.
    """
    who, fd = ("ts", "tid", "pid", "inode"), pl.col("fd").cast(pl.Int64)
    stream = ((pl.col("ip_proto") == _TCP) & pl.col("dst_ip").is_not_null()).fill_null(value=False)
    listens = pl.col("src_port").is_in(list(served))
    near, far = ("src_ip", "src_port"), ("dst_ip", "dst_port")
    ends = [
        pl.when(listens).then(a).otherwise(b).alias(a) for a, b in zip(near + far, far + near, strict=True)
    ]
    yield sockets.filter(stream).select(*who, *ends, syscall=pl.lit(eo.ACCEPTED), ret=fd)
    rest = sockets.filter(~stream)
    family = pl.when(pl.col("src_ip").str.contains(":", literal=True)).then(10).otherwise(2).cast(pl.UInt64)
    # Every TCP socket has a row of its own.
    kind = pl.when(pl.col("ip_proto") == _TCP).then(1).otherwise(2).cast(pl.UInt64)
    yield rest.select(*who, syscall=pl.lit(eo.SOCKET), ret=fd, arg0=family, arg1=kind)
    connected = rest.filter(pl.col("dst_ip").is_not_null())
    zero, arg0 = pl.lit(0, pl.Int64), pl.col("fd").cast(pl.UInt64)
    yield connected.select(*who, *near, *far, syscall=pl.lit(eo.CONNECTED), ret=zero, arg0=arg0)


def _schema() -> dict[str, Any]:
    from stratokit.engine.frames import polars_schema

    known = polars_schema(load.capture().of_kind("syscall"))
    return {name: pl.Int64() if name == "ts" else known[name] for name in eo.COLUMNS}
