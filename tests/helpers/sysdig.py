"""What sysdig says about a scap file, a row an event."""

from __future__ import annotations

import posixpath
import re
import secrets
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl
from helpers.sysdig_args import differences

from stratokit.engine.capture import Capture
from stratokit.formats.scap.blocks import STATE_ONLY
from stratokit.formats.scap.reader import Listed, ScapReader
from stratokit.schema import scap

EXECVEAT = 330
_TMPFILE = 0o20000000
_EXECVE, _PROCEXIT, _CLONED = 292, 186, (223, 335)

SYSDIG = shutil.which("sysdig")
NUMBERS = (
    "evt.num", "evt.rawtime", "evt.latency", "thread.tid", "proc.pid", "fd.num", "fd.sport", "fd.cport",
)  # fmt: skip


def events(path: Path, *fields: str, program: tuple[str, ...] = ("sysdig",)) -> pl.DataFrame:
    """A row an event that sysdig shows; `<NA>` is null. Fails where sysdig reports an error."""
    names = ("evt.num", *fields)
    mark = f"\x1f{secrets.token_hex(4)}"  # which stands in no command line that was recorded
    form = "*" + mark.join(f"%{name}" for name in names) + mark
    done = subprocess.run(
        [*program, "-r", str(path), "-p", form], capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr.strip(), done.stderr.decode()
    cells = done.stdout.decode("utf-8", "replace").split(mark)
    width = len(names)
    columns = {
        name: [cell.lstrip("\n") if n == 0 else cell for cell in cells[n : len(cells) - 1 : width]]
        for n, name in enumerate(names)
    }
    frame = pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))
    frame = frame.with_columns(pl.all().replace("<NA>", None))
    return frame.with_columns(pl.col(name).cast(pl.Int64) for name in names if name in NUMBERS)


def compared(rows: pl.DataFrame, theirs: pl.DataFrame) -> pl.DataFrame:
    """Rows of kind syscall beside the exits that sysdig shows, by thread and time; none is left over."""
    ours = rows.filter(pl.col("ret").is_not_null()).with_columns(
        pl.col("tid").cast(pl.Int64),
        end=pl.col("ts").cast(pl.Int64) + pl.col("duration_ns").fill_null(0).cast(pl.Int64),
    )
    exits = theirs.filter(pl.col("evt.dir") == "<")
    both = ours.join(
        exits, left_on=["tid", "end"], right_on=["thread.tid", "evt.rawtime"], how="full", coalesce=True
    )
    assert both.height == ours.height == exits.height
    assert both["syscall"].null_count() == both["evt.type"].null_count() == 0
    return both


def amounts(printed: str) -> dict[tuple[str, ...], str]:
    """A chisel's table: its first column, which is an amount, by all others."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()[2:] if line.strip()]
    return {tuple(rest): first for first, *rest in cells}


def amount(size: int) -> str:
    """Bytes as chisels write them."""
    for unit, scale in (("M", 1 << 20), ("KB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.2f}{unit}"
    return f"{size}B"


def lapse(time_ns: int) -> str:
    """A time as chisels write it."""
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("us", 1000)):
        if time_ns >= 10 * scale and unit != "s":
            return f"{time_ns // scale}{unit}"
        if time_ns >= scale:
            return f"{time_ns // scale}.{time_ns % scale * 100 // scale:02d}{unit}"
    return f"{time_ns}ns"


def served(capture: Capture) -> set[int]:
    """Ports that somebody listened on: there the other end is the client, whom sysdig writes first."""
    listens = capture.rows("socket").filter(pl.col("new_state") == "LISTEN")
    return set(listens.select("src_port").collect()["src_port"])


def entered(rows: pl.DataFrame, theirs: pl.DataFrame) -> pl.DataFrame:
    """Rows of kind syscall beside the entries that sysdig shows."""
    ours = rows.filter(pl.col("duration_ns").is_not_null())
    ours = ours.with_columns(pl.col("tid").cast(pl.Int64), start=pl.col("ts").cast(pl.Int64))
    enters = theirs.filter(pl.col("evt.dir") == ">")
    both = ours.join(enters, left_on=["tid", "start"], right_on=["thread.tid", "evt.rawtime"])
    assert both.height == ours.height
    return both


FIELDS = (
    "evt.dir", "evt.type", "evt.rawtime", "evt.latency", "evt.rawres", "evt.args", "thread.tid", "proc.pid",
    "proc.name", "proc.cmdline", "fd.num", "fd.name", "fd.type", "fd.typechar", "fd.cip", "fd.cport",
    "fd.sip", "fd.sport", "fd.l4proto",
)  # fmt: skip
# How sysdig 0.29.3 names what it knows under an older type; it does not know the last ones.
OLDER = {
    "pread64": "pread", "pwrite64": "pwrite", "prlimit64": "prlimit", "dup2": "dup", "dup3": "dup",
    "pipe2": "pipe", "accept4": "accept", "eventfd2": "eventfd", "signalfd4": "signalfd",
    "inotify_init1": "inotify_init", "umount2": "umount",
}  # fmt: skip
UNKNOWN = "<unknown>"
_AT_EMPTY_PATH = 0x1000


def name() -> pl.Expr:
    """What sysdig 0.29.3 calls a call that it knows."""
    of_fd = (pl.col("syscall") == "newfstatat") & (pl.col("arg3") & _AT_EMPTY_PATH > 0)
    return pl.when(of_fd).then(pl.lit("fstat")).otherwise(pl.col("syscall").replace(OLDER))


def equal(
    both: pl.DataFrame, processes: pl.DataFrame, served: Collection[int] = (), latency: bool = True
) -> None:
    """What our tables say and what sysdig shows are the same, event by event."""
    told = both.filter((name() != pl.col("evt.type")) & (pl.col("syscall") != pl.col("evt.type")))
    assert set(told["evt.type"]) <= {UNKNOWN}, told.select("syscall", "evt.type").unique()
    _same(both, pl.col("pid").cast(pl.Int64), pl.col("proc.pid"))
    _same(both, pl.col("comm"), pl.col("proc.name"))
    _same(both, pl.col("ret").cast(pl.String), pl.col("evt.rawres").fill_null(pl.col("ret").cast(pl.String)))
    if latency:
        _same(both, pl.col("duration_ns").fill_null(0).cast(pl.Int64), pl.col("evt.latency"))
    _command_lines(both, processes)
    _names(both, served)
    assert differences(with_types(both, 1)) == []


def _same(both: pl.DataFrame, ours: pl.Expr, theirs: pl.Expr) -> None:
    shown = both.select("syscall", "tid", "end", ours=ours, theirs=theirs)
    different = shown.filter(pl.col("ours").ne_missing(pl.col("theirs")))
    assert different.is_empty(), different.head(5).rows()


def _command_lines(both: pl.DataFrame, processes: pl.DataFrame) -> None:
    """The last program of each process; sysdig puts the thread's name for argv[0] and knows no quotes."""
    # Programs that rewrite their arguments leave one text with spaces.
    plain = pl.col("cmdline").is_not_null() & ~pl.col("cmdline").str.starts_with("'")
    last = processes.filter(plain).sort("ts").unique("pid", keep="last")
    shown = both.sort("end").unique("pid", keep="last").join(last.select("pid", ours="cmdline"), on="pid")
    rest = [
        pl.col(name).str.replace_all("'", "").str.strip_chars().str.splitn(" ", 2).struct[1]
        for name in ("ours", "proc.cmdline")
    ]
    different = shown.select(ours=rest[0], theirs=rest[1], pid="pid").filter(
        pl.col("ours").ne_missing(pl.col("theirs"))
    )
    assert different.is_empty(), different.head(5).rows()
    assert shown.height > 3


def with_types(frame: pl.DataFrame, exit_: int) -> pl.DataFrame:
    """Rows with the `type` that sysdig 0.29.3 knows of their event; without programs that were run."""
    types = {name: call.known + exit_ for name, call in scap.calls().items()}
    typed = frame.with_columns(type=pl.col("syscall").replace_strict(types, default=0, return_dtype=pl.Int64))
    return typed.filter(~pl.col("type").is_in([1, EXECVEAT + 1]))


def _names(both: pl.DataFrame, served: Collection[int]) -> None:
    """Descriptors of all calls on which sysdig shows one, unless it is another one than ours.

    Of a call on two descriptors it shows the one that is written to or made, we the one it is from; of two
    that are made the last one, we both.
    """
    chosen = both.filter(pl.col("fd.num").is_not_null()).sort("end")
    apart = pl.coalesce("fd2", "fd").cast(pl.Int64) != pl.col("fd.num")
    other = chosen.filter(apart.fill_null(value=False))
    copies = {"copy_file_range", "splice", "sendfile", "fcntl", "setsockopt"}
    assert set(other["syscall"]) <= copies, other["syscall"].unique()
    connected: set[tuple[int, int]] = set()
    temporary: set[tuple[int, int]] = set()
    wrong = []
    # newfstatat of an open file is fstat to sysdig, which names the file: as we do where it is used.
    unnamed = pl.col("fd").is_null() & (pl.col("evt.type") == "fstat")
    names = {plain(name) for column in ("fd_name", "path") for name in both[column].drop_nulls()}
    shown = {name for name in chosen.filter(unnamed)["fd.name"].drop_nulls() if name.startswith("/")}
    endings = tuple(
        f"/{name}" for name in names if not name.startswith("/")
    )  # of a directory that is unknown
    wrong += [name for name in shown - names if not name.endswith(endings)]
    for row in chosen.filter(
        pl.col("fd").is_null() | (pl.col("fd").cast(pl.Int64) == pl.col("fd.num")), ~unnamed
    ).iter_rows(named=True):
        place = row["pid"], row["fd"]
        if row["syscall"] == "socket":
            connected.discard(place)
        elif row["syscall"] in ("bind", "connect", "accept", "accept4") and row["errno"] in (
            None,
            "EINPROGRESS",
        ):
            connected.add(place)
        elif row["syscall"] == "openat":
            # Without a name, in a directory: the flag has the bit of directories.
            (temporary.add if row["arg2"] & _TMPFILE else temporary.discard)(place)
        if not _is_name(row, row["fd.name"] or "", served, place in connected):
            wrong.append((row["syscall"], *place, row["fd_name"], row["fd.name"]))
        elif not (_is_kind(row) or (place in temporary and row["fd.type"] == "directory")):
            kinds = row["fd_kind"], row["fd_name"], row["fd.type"], row["fd.typechar"]
            wrong.append((row["syscall"], *place, *kinds))
    assert not wrong, wrong[:5]


def _is_name(row: dict[str, Any], theirs: str, served: Collection[int], connected: bool) -> bool:
    """Whether sysdig means the descriptor that we do."""
    ours = row["fd_name"]
    if ours is None:  # of what could not be opened it shows what was to be
        return theirs in ("", "NULL") or (row["ret"] < 0 and theirs == plain(row["path"] or ""))
    if not ours.startswith("/") and row["fd_kind"] != "socket":
        # It has names of pipes and the like only where a list has them, and knows no memfd_create.
        return theirs in ("", ours) or theirs.endswith("/" + plain(ours))
    if row["fd_kind"] != "socket":
        return theirs == plain(ours)
    if theirs == "" and not connected:
        return True  # its ends came later
    pair = ours.replace("[", "").replace("]", "")
    if "->" in pair:
        ends = pair.split("->")
        right = "->".join(reversed(ends)) if row["src_port"] in served else pair
        if row["fd.l4proto"] == "udp":  # whoever spoke last
            return set(theirs.split("->")) == set(ends)
        client, server = (f"{row[f'fd.{end}ip']}:{row[f'fd.{end}port']}" for end in "cs")
        return theirs == right and (not connected or theirs == f"{client}->{server}")
    if row["src_port"] is not None:
        # Datagrams to many: it shows one of them, and after recvfrom on a bound one two strangers.
        return pair in theirs.split("->") or row["syscall"] == "recvfrom"
    return theirs in ("", "NULL", ours, f"0->0 {ours}") or ours.startswith("socket:[")


# fd.type of our kinds, and of what calls make that has no name; an epoll is an `event` to it.
_TYPES = {"file": "file", "char": "file", "block": "file", "pipe": "pipe"}
_NAMELESS = {"event", "signalfd", "inotify", "timerfd"}
_MADE = {
    "eventfd": "event", "eventfd2": "event", "signalfd": "signalfd", "signalfd4": "signalfd",
    "inotify_init": "inotify", "inotify_init1": "inotify", "timerfd_create": "timerfd",
}  # fmt: skip
_CHARS = {
    "file": "f", "directory": "d", "pipe": "p", "event": "e", "signalfd": "s", "inotify": "i",
    "timerfd": "t", "ipv4": "4", "ipv6": "6", "unix": "u", "netlink": "n",
}  # fmt: skip


def _is_kind(row: dict[str, Any]) -> bool:
    """Whether sysdig takes the descriptor for what it is; it shows no type where it knows none."""
    ours, kind = row["fd_kind"], row["fd.type"]
    if kind is None or ours is None:
        return True
    if row["fd.typechar"] != _CHARS[kind]:
        return False
    by_path = (row["fd_name"] or "").startswith("/")
    if ours == "pipe" and by_path:  # opened
        return kind in ("file", "pipe")
    if ours in ("file", "directory") and not by_path:  # memory, or what nobody knows the place of
        return kind in (ours, "file", "event")
    if ours == "directory":  # it looks for O_DIRECTORY
        return kind in ("file", "directory")
    if ours == "anon":
        return kind == _MADE.get(row["syscall"], kind) and kind in _NAMELESS
    if ours != "socket":
        return kind == _TYPES[ours]
    end = row["src_ip"] or row["dst_ip"]
    if end is None:  # not connected yet, or of another family
        return kind in ("ipv4", "ipv6", "unix", "netlink")
    return kind == ("ipv6" if ":" in end else "ipv4")


def plain(path: str) -> str:
    """sysdig resolves names and writes single slashes."""
    return posixpath.normpath(path.removeprefix("./")).replace("//", "/")


def current_readers_take(path: Path) -> int:
    """Without what libs since 0.22, or Stratoshark, give up a file at: an execve whose entry is not the last
    one of its thread, and the end of a thread that nothing was heard of. Returns how many ends are not shown.
    """
    known: set[int] = set()
    entered: dict[int, int] = {}
    runs = hidden = 0
    with ScapReader(path) as reader:
        for item in reader.items():
            if isinstance(item, Listed):
                known |= {entry.tid for entry in item.value} if item.name == "processes" else set()
                continue
            for row in item.rows:
                tid, type_ = int(row["tid"]), int(row["type"])
                if type_ == _EXECVE + 1:
                    assert entered[tid] == _EXECVE
                    runs += 1
                elif type_ == _PROCEXIT:
                    assert tid in known
                    hidden += int(row["flags"]) & STATE_ONLY
                elif type_ in _CLONED:
                    known.add(int(item.data[row["params"] : row["params"] + 8].view("<i8")[0]))
                known.add(tid)
                if type_ & 1 == 0 and not scap.events()[type_].single:
                    entered[tid] = type_
    assert runs
    return hidden
