"""What sysdig says about a scap file, a row an event."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
from pathlib import Path

import polars as pl

from stratokit.schema import scap

SYSDIG = shutil.which("sysdig")
_MARK = "\x1f"
NUMBERS = ("evt.num", "evt.rawtime", "evt.latency", "thread.tid", "proc.pid", "fd.num", "fd.sport")


def events(path: Path, *fields: str, program: tuple[str, ...] = ("sysdig",)) -> pl.DataFrame:
    """A row an event that sysdig shows; `<NA>` is null. Fails where sysdig reports an error."""
    names = ("evt.num", *fields)
    form = "*" + _MARK.join(f"%{name}" for name in names) + _MARK
    done = subprocess.run(
        [*program, "-r", str(path), "-p", form], capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr.strip(), done.stderr.decode()
    cells = done.stdout.decode("utf-8", "replace").split(_MARK)
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


def chisel(path: Path, name: str) -> dict[tuple[str, ...], str]:
    """A chisel's table: its first column, which is an amount of bytes, by all others."""
    command = ["sysdig", "-r", str(path), "-c", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cells = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()[2:] if line.strip()]
    return {tuple(rest): first for first, *rest in cells}


def amount(size: int) -> str:
    """Bytes as chisels write them."""
    for unit, scale in (("M", 1 << 20), ("KB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.2f}{unit}"
    return f"{size}B"


FIELDS = (
    "evt.dir", "evt.type", "evt.rawtime", "evt.latency", "evt.rawres", "evt.args", "thread.tid", "proc.pid",
    "proc.name", "proc.cmdline", "fd.num", "fd.name", "fd.sip", "fd.sport",
)  # fmt: skip
# How sysdig 0.29.3 names what it knows under an older type; it does not know the last ones.
OLDER = {
    "pread64": "pread", "pwrite64": "pwrite", "prlimit64": "prlimit", "dup2": "dup", "dup3": "dup",
    "pipe2": "pipe", "accept4": "accept", "eventfd2": "eventfd", "signalfd4": "signalfd",
    "inotify_init1": "inotify_init",
}  # fmt: skip
UNKNOWN = "<unknown>"


def equal(both: pl.DataFrame, processes: pl.DataFrame, latency: bool = True) -> None:
    """What our tables say and what sysdig shows are the same, event by event."""
    name = pl.col("syscall").replace(OLDER)
    told = both.filter((name != pl.col("evt.type")) & (pl.col("syscall") != pl.col("evt.type")))
    assert set(told["evt.type"]) <= {UNKNOWN}, told.select("syscall", "evt.type").unique()
    _same(both, pl.col("pid").cast(pl.Int64), pl.col("proc.pid"))
    _same(both, pl.col("comm"), pl.col("proc.name"))
    _same(both, pl.col("ret").cast(pl.String), pl.col("evt.rawres").fill_null(pl.col("ret").cast(pl.String)))
    if latency:
        _same(both, pl.col("duration_ns").fill_null(0).cast(pl.Int64), pl.col("evt.latency"))
    _command_lines(both, processes)
    _files(both)
    _sockets(both)


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


def _files(both: pl.DataFrame) -> None:
    """Names of files; sysdig resolves them from the working directory and writes single slashes."""
    files = both.filter(
        pl.col("fd_kind").is_in(["file", "directory"]), pl.col("fd_name").str.contains("^[^\\[:]*$")
    )
    # The generic event of all other calls does not say on which descriptor they work.
    own = [name for name, call in scap.calls().items() if call.known]
    files = files.filter(pl.col("syscall").is_in(own))
    # Of a call on two descriptors sysdig shows the one that is written to or made, we the one it is from.
    other = files.filter(pl.col("fd").cast(pl.Int64).ne_missing(pl.col("fd.num")))
    assert set(other["syscall"]) <= {"copy_file_range", "splice", "sendfile", "fcntl"}, other[
        "syscall"
    ].unique()
    files = files.filter(pl.col("fd").cast(pl.Int64) == pl.col("fd.num"))
    names = files.select("fd_name", "fd.name", "pid", "fd", "syscall").unique(["fd_name", "fd.name"])
    for ours, theirs, *where in names.iter_rows():
        plain = posixpath.normpath(ours.removeprefix("./"))
        if ours.startswith("/"):
            assert theirs == plain.replace("//", "/"), (ours, theirs, where)
        elif not ours.startswith(".."):
            assert theirs is not None
            assert theirs == plain or theirs.endswith("/" + plain) or plain == ".", (ours, theirs, where)


def _sockets(both: pl.DataFrame) -> None:
    """Both ends of a socket once it is connected; sysdig writes the client first. The server is fd.sip."""
    moved = both.filter(
        pl.col("fd_name").str.contains("->"),
        pl.col("syscall").is_in(["connect", "accept4", "sendto", "recvfrom", "writev", "write", "read"]),
        pl.col("ret") >= 0, pl.col("fd_kind") == "socket",
    )  # fmt: skip
    for ours, theirs, server, port in moved.select("fd_name", "fd.name", "fd.sip", "fd.sport").iter_rows():
        ends = ours.replace("[", "").replace("]", "").split("->")
        assert theirs in ("->".join(ends), "->".join(reversed(ends))), (ours, theirs)
        assert theirs.split("->")[1] == f"{server}:{port}", (theirs, server, port)
