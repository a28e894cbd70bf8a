"""What readers of a scap file must be told because no event tells it: threads, names, descriptors."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.engine.frames import collect
from stratokit.engine.scap import events_out as eo
from stratokit.formats.scap import metadata as md
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture
    from stratokit.engine.scap.people import People

_L4 = {6: 2, 17: 3, 1: 4, 58: 4}
_ANON = {
    "anon_inode:[eventfd]": md.EVENTFD,
    "anon_inode:[signalfd]": md.SIGNALFD,
    "anon_inode:[eventpoll]": md.EVENTPOLL,
    "anon_inode:inotify": md.INOTIFY,
    "anon_inode:[timerfd]": md.TIMERFD,
}
_KINDS = {"file": md.FILE_V2, "char": md.FILE_V2, "block": md.FILE_V2, "directory": md.DIRECTORY, "pipe": md.FIFO}


@dataclasses.dataclass(frozen=True)
class Sightings:
    """`threads`: the process of each thread. `names`: (ts, tid, pid, comm) where a thread has another name
    than before. `descriptors`: what processes had open before they were first seen.
    """

    threads: dict[int, int]
    names: pl.DataFrame
    descriptors: dict[int, list[md.Descriptor]]
    has_execs: bool


def first_sightings(capture: Capture) -> Sightings:
    """One look at all system calls before they are written.

    Memory: a row a call for names, and a row for each descriptor of each process.
    """
    calls = capture.rows("syscall").with_columns(pl.col("ts").cast(pl.Int64))
    threads = collect(calls.select("tid", "pid").drop_nulls().unique(["tid"], keep="last"))
    executed = pl.col("syscall").is_in(["execve", "execveat"]) & (pl.col("ret") == 0)
    since = pl.col("ts") + pl.when(executed).then(pl.col("duration_ns").cast(pl.Int64)).otherwise(0).fill_null(0)
    comms = collect(calls.select(since.alias("ts"), "tid", "pid", "comm").drop_nulls())
    told = collect(
        capture.rows("process")
        .filter(pl.col("event") != "exit", pl.col("tid") == pl.col("pid"))
        .select(pl.col("ts").cast(pl.Int64), "tid", "pid", "comm")
        .drop_nulls()
    )
    both = pl.concat([told.with_columns(told=True), comms.with_columns(told=False)]).sort("ts", maintain_order=True)
    before = pl.col("comm").shift(1).over("tid")
    names = both.with_columns(unknown=before.is_null(), changed=before.ne_missing(pl.col("comm")))
    names = names.filter("changed", ~pl.col("told")).select("ts", "tid", "pid", "comm", "unknown")
    execs = collect(calls.filter(executed).select(pl.len())).item() > 0
    return Sightings(dict(threads.iter_rows()), names, _descriptors(capture, calls), bool(execs))


def _descriptors(capture: Capture, calls: pl.LazyFrame) -> dict[int, list[md.Descriptor]]:
    """Descriptors that were there when their process first used them."""
    makers = [call.name for call in load.syscalls("x86_64").values() if call.returns == "fd"]
    used = calls.filter(pl.col("fd") >= 0, pl.col("fd_kind").is_not_null(), pl.col("fd_name").is_not_null())
    names = ("ts", "pid", "fd", "fd_kind", "fd_name", "inode", "device", "socket_cookie", "syscall", "ret",
             "src_ip", "src_port", "dst_ip", "dst_port")  # fmt: skip
    first = collect(used.select(names).sort("ts").unique(["pid", "fd"], keep="first", maintain_order=True))
    older = first.filter(~(pl.col("syscall").is_in(makers) & (pl.col("ret") == pl.col("fd"))))
    protocols = collect(
        capture.rows("socket").select("socket_cookie", "ip_proto").drop_nulls().unique("socket_cookie")
    )
    older = eo.with_ends(older).join(protocols, on="socket_cookie", how="left")
    found: dict[int, list[md.Descriptor]] = {}
    for row in older.iter_rows(named=True):
        found.setdefault(row["pid"], []).append(_descriptor(row))
    return found


def _descriptor(row: dict[str, Any]) -> md.Descriptor:
    inode, name = row["inode"] or 0, row["fd_name"].encode()
    if row["fd_kind"] == "socket" and row["src_ip"] is not None:
        local, family = eo.packed(row["src_ip"])
        l4 = _L4.get(row["ip_proto"] or 0, 1)
        if row["dst_ip"] is None:
            kind = md.IPV4_SERVER if family == 2 else md.IPV6_SERVER
            return md.Descriptor(
                row["pid"], row["fd"], inode, kind, local=local, local_port=row["src_port"] or 0, l4=l4
            )
        remote, _ = eo.packed(row["dst_ip"])
        kind = md.IPV4 if family == 2 else md.IPV6
        ports = row["src_port"] or 0, row["dst_port"] or 0
        return md.Descriptor(row["pid"], row["fd"], inode, kind, b"", local, remote, *ports, l4)
    kind = _KINDS.get(row["fd_kind"], _ANON.get(row["fd_name"], md.UNSUPPORTED))
    return md.Descriptor(row["pid"], row["fd"], inode, kind, name)


def introductions(processes: pl.DataFrame, sightings: Sightings, people: People) -> pl.DataFrame:
    """Rows of `events_out` that are no system calls, in order of time."""
    event = pl.col("event")
    zero = pl.lit(0, pl.Int64)
    born = processes.filter(event == "fork").select("ts", "tid", "pid", "comm", syscall=pl.lit(eo.BORN), ret=zero)
    ended = processes.filter(event == "exit").select(
        "ts", "tid", "pid", "comm", syscall=pl.lit(eo.ENDED), ret=zero,
        arg0=pl.col("exit_code").cast(pl.Int64).fill_null(0) * 256,
        arg1=pl.col("exit_code").cast(pl.Int64).fill_null(0),
    )  # fmt: skip
    threads = sightings.names.filter(pl.col("unknown") | (pl.col("tid") != pl.col("pid")))
    named = threads.select("ts", "tid", "pid", "comm", syscall=pl.lit(eo.BORN), ret=zero)
    parts = [born, ended, named]
    if not sightings.has_execs:
        runs = processes.filter(event == "exec")
        parts.append(runs.select("ts", "tid", "pid", "comm", syscall=pl.lit(eo.RUNS), ret=zero))
    found = pl.concat(parts, how="diagonal_relaxed")
    return found.with_columns(
        *(
            (pl.col(name) if name in found.columns else pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in _schema().items()
        ),
        end=pl.col("ts"),
        entered=pl.lit(value=True),
    ).sort("ts", maintain_order=True)


def _schema() -> dict[str, Any]:
    from stratokit.engine.frames import polars_schema

    known = polars_schema(load.capture().of_kind("syscall"))
    return {name: pl.Int64() if name == "ts" else known[name] for name in eo.COLUMNS}
