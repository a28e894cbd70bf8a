"""Evidence about sockets and files that events carry, for the first pass (see survey)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.engine.ingest import call_records as call
from stratokit.engine.ingest import endpoints
from stratokit.engine.ingest.datagrams import Datagrams
from stratokit.engine.ingest.evidence import Evidence
from stratokit.engine.ingest.texts import binary, text
from stratokit.formats import events
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.ingest.clock import Clock
    from stratokit.formats.events import Batch

_AF_UNIX = 1
_OWNER: dict[str, Any] = {
    "socket_cookie": pl.UInt64,
    "ts": pl.Int64,
    "pid": pl.UInt32,
    "tid": pl.UInt32,
    "comm": pl.Binary,
}


class Gathered:
    """Evidence about sockets and files that events carry."""

    def __init__(self) -> None:
        self._owners = Evidence(("socket_cookie",), _OWNER)
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
        by_name = {known.name: number for number, known in numbers.items()}
        self._close, self._connect, self._bind, self._chdir, self._fchdir = (
            by_name.get(name, -1) for name in ("close", "connect", "bind", "chdir", "fchdir")
        )
        self._manages = np.zeros(1 << 16, np.bool_)
        self._manages[[number for number, known in numbers.items() if known.manages]] = True
        self._fd_arg = call.fd_arguments()
        self._folder_arg = call.folder_arguments()[0]
        self._opens = np.zeros(1 << 16, np.bool_)
        for number, known in numbers.items():
            self._opens[number] = known.returns == "fd" and "path" in [kind for _, kind in known.args]

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
        file = call.file_section(batch)
        with_file = batch.sections["file"][1] == call.FILE_BYTES
        end = fixed["ts_ns"].astype(np.int64) + fixed["duration_ns"].astype(np.int64)
        fd = call.descriptor(batch, self._fd_arg)
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
                    "dirfd": call.folder_of(batch, self._folder_arg)[opened],
                    "name": binary(data, offsets),
                    "inode": file["inode"][opened],
                    "type": file["mode"][opened] & call.FILE_TYPE,
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
                "dirfd": np.full(len(paths), call.NO_FOLDER),
                "name": pl.Series(paths, dtype=pl.Binary),
                "inode": file["inode"][named],
                "type": file["mode"][named] & call.FILE_TYPE,
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


def _named(*names: str, **renamed: str) -> list[tuple[str, str]]:
    return [*((name, name) for name in names), *renamed.items()]
