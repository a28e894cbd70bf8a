"""First pass over a spool: everything but the bulk. Small tables stay in memory, packets and system calls do
not.

Memory: proportional to the numbers of processes, sockets and distinct open files, not to events.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.engine.ingest import endpoints
from stratokit.engine.ingest.clock import Clock
from stratokit.engine.ingest.datagrams import Datagrams
from stratokit.engine.ingest.evidence import Evidence
from stratokit.errors import FormatError
from stratokit.formats import events, spool
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stratokit.formats.events import Batch, Layout

# Who calls these on a socket need not be the one who uses it: a server closes what it gave to its child.
_MANAGING = ("close", "dup", "dup2", "dup3", "fcntl", "fstat")
_AF_UNIX = 1
# Events are taken together up to about this many bytes.
WINDOW_BYTES = 8 << 20
OWNER: dict[str, Any] = {
    "socket_cookie": pl.UInt64,
    "ts": pl.Int64,
    "pid": pl.UInt32,
    "tid": pl.UInt32,
    "comm": pl.Binary,
}


@dataclasses.dataclass
class Survey:
    """What the first pass found. Times in frames are UTC nanoseconds (i64)."""

    opening: dict[str, Any]
    layouts: dict[str, Layout]
    clock: Clock
    clock_pairs: list[dict[str, int]]
    tables: dict[str, dict[str, Any]]
    counters: list[dict[str, Any]]
    closing: dict[str, Any] | None
    damage: spool.Damage
    unreadable: int
    read: dict[str, int]  # records found, by event
    processes: list[Batch]
    sockets: list[Batch]
    owners: pl.DataFrame  # socket_cookie, ts, pid, tid, comm
    files: pl.DataFrame  # identity, ts, pid, dirfd, name, inode, type: which path an open file had from ts on
    users: pl.DataFrame  # pid, fd, ts, identity, inode: which file an fd was from ts on
    closes: pl.DataFrame  # pid, fd, ts of the first close
    folders: pl.DataFrame  # pid, ts, name, identity: chdir by name, fchdir by open file
    homes: pl.DataFrame  # socket_cookie, ts, netns: cookie of the socket's network namespace
    datagrams: Datagrams
    ends: pl.DataFrame  # key, ts, socket_cookie: which socket had addresses from ts on; see `endpoints`
    # Of a segment: {monotonic_ns, totals} where its rows begin; what is before only says what there was.
    begin: dict[str, Any] | None = None
    lead_processes: list[Batch] = dataclasses.field(default_factory=list)
    lead_sockets: list[Batch] = dataclasses.field(default_factory=list)


class Reader:
    """Chunks of a spool, with progress. Events come in windows: the recorder writes a chunk every 50 ms, and
    frames of a few rows cost as much time as frames of many.
    """

    def __init__(self, reader: spool.SpoolChain, progress: Callable[[int, int], None] | None) -> None:
        self.spool = reader
        self._progress = progress

    def chunks(self, part: int) -> Iterator[spool.Chunk]:
        """All chunks; `part` is 0 for the first pass and 1 for the second, each half of the progress."""
        held: list[memoryview] = []
        size = 0
        lead = False
        for chunk in self.spool.chunks():
            if self._progress:
                self._progress((part * self.spool.size + chunk.offset) // 2, self.spool.size)
            if held and (size >= WINDOW_BYTES or chunk.lead != lead):
                yield _window(held, lead)
                held, size = [], 0
            lead = chunk.lead
            if chunk.type != spool.EVENTS or not events.is_whole(chunk.payload):
                yield chunk
                continue
            held.append(chunk.payload)
            size += len(chunk.payload)
        if held:
            yield _window(held, lead)


def _window(payloads: list[memoryview], lead: bool) -> spool.Chunk:
    return spool.Chunk(spool.EVENTS, 0, memoryview(b"".join(payloads)), lead)


def recording_filter(reader: spool.SpoolChain) -> tuple[str, bool]:
    """The filter that the recording was made with, empty for none, and whether of DNS only errors count."""
    opening = next((chunk.json() for chunk in reader.chunks() if chunk.type == spool.OPENING), {})
    found = opening.get("options", {}).get("filter") or {}
    return str(found.get("text") or ""), bool(found.get("dns_errors_only"))


def recording_redaction(reader: spool.SpoolChain) -> str:
    """The profiles of `--redact` that the recording was made with, empty for none."""
    opening = next((chunk.json() for chunk in reader.chunks() if chunk.type == spool.OPENING), {})
    return str(opening.get("options", {}).get("redact") or "")


def survey(reader: Reader) -> Survey:
    """Read all chunks once.

    Raises:
        FormatError: the spool has no opening chunk, so nothing in it can be understood.
    """
    seen = _Seen()
    gathered = _Gathered()
    known: dict[str, Layout] = {}
    rows: dict[str, list[Batch]] = {"process": [], "socket": []}
    lead: dict[str, list[Batch]] = {"process": [], "socket": []}
    unreadable = 0
    read: dict[str, int] = {}
    for chunk in reader.chunks(0):
        if chunk.type != spool.EVENTS:
            seen.take(chunk)
            continue
        known = known or (events.layouts(seen.opening) if seen.opening else {})
        found, bad = events.split(chunk.payload, known)
        for name, kept in (lead if chunk.lead else rows).items():
            if name in found:
                kept.append(found[name])
        if not chunk.lead:
            unreadable += bad if known else 0
            for name, batch in found.items():
                read[name] = read.get(name, 0) + batch.fixed.size
        gathered.look(found)
    if seen.opening is None or not seen.pairs:
        raise FormatError(
            f"{reader.spool.path} was cut before the recording began; there is nothing to convert"
        )
    clock = Clock(seen.pairs, (seen.opening.get("segment") or {}).get("clock"))
    owners, files, users, closes, folders, homes, ends = gathered.frames(clock)
    return Survey(
        seen.opening,
        known or events.layouts(seen.opening),
        clock,
        seen.pairs,
        seen.tables,
        seen.counters,
        seen.closing,
        reader.spool.damage,
        unreadable,
        read,
        rows["process"],
        rows["socket"],
        owners,
        files,
        users,
        closes,
        folders,
        homes,
        gathered.datagrams,
        ends,
        seen.begin,
        lead["process"],
        lead["socket"],
    )


@dataclasses.dataclass
class _Seen:
    """What chunks other than events say."""

    opening: dict[str, Any] | None = None
    closing: dict[str, Any] | None = None
    begin: dict[str, Any] | None = None
    pairs: list[dict[str, int]] = dataclasses.field(default_factory=list)
    tables: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    counters: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def take(self, chunk: spool.Chunk) -> None:
        value = chunk.json()
        if chunk.type == spool.OPENING:
            self.opening = value
        elif chunk.type == spool.CLOCK:
            self.pairs.append(value)
        elif chunk.type == spool.TABLE:
            table = self.tables.setdefault(
                value["table"], {"monotonic_ns": value["monotonic_ns"], "rows": []}
            )
            table["rows"] += value["rows"]
        elif chunk.type == spool.CLOSING:
            self.closing = value
        elif chunk.type == spool.COUNTERS and not chunk.lead:
            self.counters.append(value)
        elif chunk.type == spool.BEGIN and not chunk.lead:
            self.begin = value


class _Gathered:
    """Evidence about sockets and files that events carry."""

    def __init__(self) -> None:
        self._owners = Evidence(("socket_cookie",), OWNER)
        name = {"name": pl.Binary, "inode": pl.UInt64, "type": pl.UInt32}
        self._files = Evidence(
            ("identity",),
            {"identity": pl.UInt64, "ts": pl.Int64, "pid": pl.UInt32, "dirfd": pl.Int32, **name},
        )
        where = {"pid": pl.UInt32, "fd": pl.Int32, "ts": pl.Int64}
        self._users = Evidence(("pid", "fd"), {**where, "identity": pl.UInt64, "inode": pl.UInt64})
        self._closes = Evidence(("pid", "fd"), where)
        self._folders = Evidence(
            ("pid",), {"pid": pl.UInt32, "ts": pl.Int64, "name": pl.Binary, "identity": pl.UInt64}
        )
        self._homes = Evidence(
            ("socket_cookie",), {"socket_cookie": pl.UInt64, "ts": pl.Int64, "netns": pl.UInt64}
        )
        self.datagrams = Datagrams()
        self._ends = Evidence(("key",), endpoints.SCHEMA)
        numbers = load.syscalls()
        by_name = {call.name: number for number, call in numbers.items()}
        self._close, self._connect, self._bind, self._chdir, self._fchdir = (
            by_name.get(name, -1) for name in ("close", "connect", "bind", "chdir", "fchdir")
        )
        self._manages = np.zeros(1 << 16, np.bool_)
        self._manages[[by_name[name] for name in _MANAGING if name in by_name]] = True
        self._fd_arg = fd_arguments()
        self._folder_arg = folder_arguments()[0]
        self._opens = np.zeros(1 << 16, np.bool_)
        for number, call in numbers.items():
            self._opens[number] = call.returns == "fd" and "path" in [kind for _, kind in call.args]

    def look(self, found: dict[str, Batch]) -> None:
        """Take what the records of one chunk say."""
        if (batch := found.get("owner")) is not None:
            fixed = batch.fixed
            self._owners.add(
                {n: fixed[s] for n, s in _named("socket_cookie", "pid", "tid", "comm", ts="ts_ns")}
            )
        for name in ("owner", "socket"):
            if (batch := found.get(name)) is not None:
                columns = _named("socket_cookie", ts="ts_ns", netns="netns_cookie")
                self._homes.add({n: batch.fixed[s] for n, s in columns})
        if (batch := found.get("packet")) is not None:
            self.datagrams.packets(batch)
        if (batch := found.get("endpoint")) is not None:
            self._ends.add(endpoints.evidence(batch))
        if (batch := found.get("syscall")) is not None:
            self._syscalls(batch)

    def _syscalls(self, batch: Batch) -> None:
        fixed = batch.fixed
        file = file_section(batch)
        with_file = batch.sections["file"][1] == FILE_BYTES
        end = fixed["ts_ns"].astype(np.int64) + fixed["duration_ns"].astype(np.int64)
        fd = descriptor(batch, self._fd_arg)
        socket = with_file & (file["cookie"] != 0) & ~self._manages[fixed["syscall"]]
        if socket.any():
            self._owners.add(
                {
                    # The start of the call: what it sends leaves before it ends.
                    "socket_cookie": file["cookie"][socket],
                    "ts": fixed["ts_ns"][socket].astype(np.int64),
                    "pid": fixed["pid"][socket],
                    "tid": fixed["tid"][socket],
                    "comm": fixed["comm"][socket],
                }
            )
        used = with_file & (fd >= 0)
        if used.any():
            self._users.add(
                {
                    "pid": fixed["pid"][used],
                    "fd": fd[used],
                    "ts": end[used],
                    "identity": file["identity"][used],
                    "inode": file["inode"][used],
                }
            )
        opened = with_file & self._opens[fixed["syscall"]] & (fixed["ret"] >= 0)
        if opened.any():
            start, length = batch.sections["path"]
            data, offsets = events.gather(batch.data, start[opened], np.maximum(length[opened] - 1, 0))
            self._files.add(
                {
                    "identity": file["identity"][opened],
                    "ts": end[opened],
                    "pid": fixed["pid"][opened],
                    "dirfd": folder_of(batch, self._folder_arg)[opened],
                    "name": binary(data, offsets),
                    "inode": file["inode"][opened],
                    "type": file["mode"][opened] & FILE_TYPE,
                }
            )
        self._unix_sockets(batch, file, end)
        connected = (fixed["syscall"] == self._connect) & (fixed["ret"] == 0) & (file["cookie"] != 0)
        if connected.any():
            start, length = (part[connected] for part in batch.sections["address"])
            self.datagrams.connected(file["cookie"][connected], end[connected], batch.data, start, length)
        moved = (fixed["syscall"] == self._chdir) | (fixed["syscall"] == self._fchdir)
        moved &= fixed["ret"] == 0
        if moved.any():
            start, length = batch.sections["path"]
            self._folders.add(
                {
                    "pid": fixed["pid"][moved],
                    "ts": end[moved],
                    "name": binary(
                        *events.gather(batch.data, start[moved], np.maximum(length[moved] - 1, 0))
                    ),
                    "identity": file["identity"][moved],
                }
            )
        closed = (fixed["syscall"] == self._close) & (fixed["ret"] == 0)
        if closed.any():
            self._closes.add({"pid": fixed["pid"][closed], "fd": fd[closed], "ts": end[closed]})

    def _unix_sockets(self, batch: Batch, file: Any, end: Any) -> None:
        """The path that a UNIX socket was bound or connected to is its name; an abstract one begins with @
        (unix(7)).
        """
        fixed = batch.fixed
        start, length = batch.sections["address"]
        named = (fixed["syscall"] == self._connect) | (fixed["syscall"] == self._bind)
        named &= (fixed["ret"] == 0) & (length > 2) & (file["identity"] != 0)
        named[named] = batch.data[start[named]] == _AF_UNIX
        if not named.any():
            return
        data, offsets = events.gather(batch.data, start[named] + 2, length[named] - 2)
        paths = [
            b"@" + path[1:] if path.startswith(b"\0") else path.partition(b"\0")[0]
            for path in binary(data, offsets)
        ]
        self._files.add(
            {
                "identity": file["identity"][named],
                "ts": end[named],
                "pid": fixed["pid"][named],
                "dirfd": np.full(len(paths), NO_FOLDER),
                "name": pl.Series(paths, dtype=pl.Binary),
                "inode": file["inode"][named],
                "type": file["mode"][named] & FILE_TYPE,
            }
        )

    def frames(self, clock: Clock) -> tuple[pl.DataFrame, ...]:
        """Owners, files, users, closes, folders, homes and ends with UTC times and text."""
        frames = []
        for evidence in (
            self._owners,
            self._files,
            self._users,
            self._closes,
            self._folders,
            self._homes,
            self._ends,
        ):
            frame = evidence.frame()
            frame = frame.with_columns(pl.Series("ts", clock.utc_ns(frame["ts"].to_numpy()), pl.Int64))
            for name in ("comm", "name"):
                if name in frame.columns:
                    frame = frame.with_columns(text(frame[name]).alias(name))
            frames.append(frame)
        return tuple(frames)


# Section "file" of a syscall record (bpf/syscalls.c, struct file_info).
FILE = np.dtype(
    [("identity", "<u8"), ("cookie", "<u8"), ("inode", "<u8"), ("device", "<u4"), ("mode", "<u4")]
)
FILE_BYTES = FILE.itemsize
# The part of `mode` that is the type of file (S_IFMT of inode(7)).
FILE_TYPE = 0o170000


def file_section(batch: Batch) -> Any:
    """Section "file" of every record, zero where it has none."""
    start, length = batch.sections["file"]
    data, _ = events.gather(batch.data, start, np.where(length == FILE_BYTES, FILE_BYTES, 0))
    result = np.zeros(start.size, FILE)
    result[length == FILE_BYTES] = data.view(FILE)
    return result


def raw_args(batch: Batch) -> Any:
    """Raw arguments as (n, 6) u64, zero beyond those that a call has."""
    start, length = batch.sections["args"]
    result = np.zeros((start.size, 6), np.uint64)
    for index in range(6):
        has = length >= 8 * (index + 1)
        data, _ = events.gather(batch.data, start[has] + 8 * index, np.full(int(has.sum()), 8))
        result[has, index] = data.view("<u8")
    return result


def descriptor(batch: Batch, fd_arg: Any, args: Any = None) -> Any:
    """The fd that each call worked on or returned, -1 for none (i32); `fd_arg` is indexed by call number."""
    args = raw_args(batch) if args is None else args
    which = fd_arg[batch.fixed["syscall"]]
    given = args[np.arange(which.size), np.maximum(which, 0)].astype(np.uint32).view(np.int32)
    return np.where(which == -2, np.maximum(batch.fixed["ret"], -1), np.where(which >= 0, given, -1)).astype(
        np.int32
    )


def fd_arguments() -> Any:
    """For each call number the index of its fd argument, -2 when it returns one, -1 when it has none."""
    table = np.full(1 << 16, -1, np.int64)
    for number, call in load.syscalls().items():
        kinds = [kind for _, kind in call.args]
        table[number] = -2 if call.returns == "fd" else kinds.index("fd") if "fd" in kinds else -1
    return table


# Values of `dirfd` that are no descriptor: the current directory (fcntl.h), and a name that is not relative
# to any.
AT_FDCWD, NO_FOLDER = -100, -101
# First paths that name no file, or are meant from elsewhere: a link's target from where the link is.
_NOT_RELATIVE = frozenset(("memfd_create", "mount", "symlink", "symlinkat"))


def folder_arguments() -> tuple[Any, Any]:
    """For each call number, for its first and second path: the index of the dirfd argument that a relative
    path is meant from, AT_FDCWD for the current directory, NO_FOLDER where it is not to be completed.
    """
    tables = (np.full(1 << 16, NO_FOLDER, np.int64), np.full(1 << 16, NO_FOLDER, np.int64))
    for number, call in load.syscalls().items():
        folder, path = AT_FDCWD, 0
        for index, (_, kind) in enumerate(call.args):
            if kind == "dirfd":
                folder = index
            elif kind == "path" and path < len(tables):
                if path or call.name not in _NOT_RELATIVE:
                    tables[path][number] = folder
                path += 1
    return tables


def folder_of(batch: Batch, folder_arg: Any, args: Any = None) -> Any:
    """The dirfd that each call's path is meant from (i32), AT_FDCWD or NO_FOLDER."""
    args = raw_args(batch) if args is None else args
    which = folder_arg[batch.fixed["syscall"]]
    given = args[np.arange(which.size), np.maximum(which, 0)].astype(np.uint32).view(np.int32)
    return np.where(which >= 0, given, which).astype(np.int32)


def binary(data: Any, offsets: Any) -> pl.Series:
    """A Binary column of a gathered buffer."""
    import pyarrow as pa

    array = pa.Array.from_buffers(
        pa.large_binary(), offsets.size - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def text(series: pl.Series) -> pl.Series:
    r"""Text of a Binary column; a byte that is no UTF-8 becomes \xNN, so that names stay apart."""
    try:
        return series.cast(pl.String)
    except pl.exceptions.ComputeError:
        distinct = series.drop_nulls().unique()
        mended = pl.Series([value.decode("utf-8", "backslashreplace") for value in distinct], dtype=pl.String)
        names = pl.DataFrame({"bytes": distinct, "text": mended})
        rows = pl.DataFrame({"bytes": series})
        return rows.join(names, on="bytes", how="left", maintain_order="left")["text"].alias(series.name)


def _named(*names: str, **renamed: str) -> list[tuple[str, str]]:
    return [*((name, name) for name in names), *renamed.items()]
