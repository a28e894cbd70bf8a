"""Rows of kind `syscall` from kernel records."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.dissect.addresses import address_column, versions_of
from stratokit.engine.ingest.call_records import (
    FILE_BYTES,
    FILE_TYPE,
    NO_FOLDER,
    descriptor,
    fd_arguments,
    file_section,
    folder_arguments,
    folder_of,
    raw_args,
    second_descriptor,
)
from stratokit.engine.ingest.owners import NOT_WATCHED, waiting_since_ns
from stratokit.engine.ingest.texts import binary, text
from stratokit.formats import events
from stratokit.kernels import kernel
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.ingest.folders import Folders
    from stratokit.engine.ingest.packets import Context
    from stratokit.engine.ingest.survey import Survey
    from stratokit.formats.events import Batch

NO_START, NO_RETURN = 8, 16
# Codes that only the kernel sees when a signal interrupts a call (include/linux/errno.h).
_KERNEL_ERRORS = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    516: "ERESTART_RESTARTBLOCK",
}
ERRNO = {-code: name for code, name in (dict(errno.errorcode) | _KERNEL_ERRORS).items()}
_MOST_ERRNO = 4095
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    0: "anon",
}


@kernel
def _addresses(
    data: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    families: np.ndarray,
    ports: np.ndarray,
    ips: np.ndarray,
) -> None:
    """struct sockaddr_in and sockaddr_in6 to 16-byte addresses (IPv4 mapped) and ports."""
    for i in range(starts.size):
        at, length = starts[i], lengths[i]
        if length < 2:
            continue
        family = np.uint16(data[at]) | np.uint16(data[at + 1]) << 8
        families[i] = family
        if family == 2 and length >= 8:
            ports[i] = np.uint16(data[at + 2]) << 8 | np.uint16(data[at + 3])
            ips[i, 10] = 255
            ips[i, 11] = 255
            ips[i, 12:16] = data[at + 4 : at + 8]
        elif family == 10 and length >= 24:
            ports[i] = np.uint16(data[at + 2]) << 8 | np.uint16(data[at + 3])
            ips[i] = data[at + 8 : at + 24]
        else:
            families[i] = 0 if family in (2, 10) else family


class Syscalls:
    """Turns spans of syscall records into rows."""

    def __init__(
        self,
        found: Survey,
        context: Context,
        files: pl.DataFrame,
        endpoints: pl.DataFrame,
        programs: pl.DataFrame,
        folders: Folders,
    ) -> None:
        """`endpoints`: one row a socket_cookie with its addresses; `programs`: (pid, ts, program) of every
        exec.
        """
        self._programs = programs
        self._folders = folders
        self._folder_args = folder_arguments()
        self._found = found
        self._clock = found.clock
        self._context = context
        self._files = files
        self._endpoints = endpoints
        self._fd_arg = fd_arguments()
        self._wanted = np.zeros(1 << 16, np.bool_)
        self._wanted[found.opening["syscalls"]] = True
        self._names = {
            number: call.name for number, call in load.syscalls(found.opening["host"]["machine"]).items()
        }
        self._close = next((number for number, name in self._names.items() if name == "close"), -1)

    def rows(self, batch: Batch) -> pa.Table | None:
        """Rows of one span sorted by time, None when it has none that were asked for."""
        chosen = np.flatnonzero(self._wanted[batch.fixed["syscall"]])
        if not chosen.size:
            return None
        # Longer calls end later: records come in the order of their ends, rows go by their starts.
        order = chosen[np.argsort(batch.fixed["ts_ns"][chosen], kind="stable")]
        batch = events.Batch(
            batch.data,
            batch.fixed[order],
            {name: (s[order], n[order]) for name, (s, n) in batch.sections.items()},
        )
        fixed = batch.fixed
        args = raw_args(batch)
        fd = descriptor(batch, self._fd_arg, args)
        second, count = second_descriptor(batch, args)
        file = file_section(batch)
        has_file = batch.sections["file"][1] == FILE_BYTES
        frame = pl.DataFrame(
            {
                "ts": self._clock.utc_ns(fixed["ts_ns"]),
                "pid": fixed["pid"],
                "tid": fixed["tid"],
                "comm": text(pl.Series(fixed["comm"], dtype=pl.Binary)),
                "syscall": pl.Series(fixed["syscall"]).replace_strict(
                    self._names, default=None, return_dtype=pl.String
                ),
                "duration_ns": _masked(fixed["duration_ns"], (fixed["flags"] & (NO_START | NO_RETURN)) == 0),
                "ret": _masked(fixed["ret"], (fixed["flags"] & NO_RETURN) == 0),
                "fd": _masked(fd, fd >= 0),
                "fd2": _masked(second, second >= 0),
                "socket_cookie": _masked(file["cookie"], file["cookie"] != 0),
                "file_ts": self._file_times(fixed),
                "identity": file["identity"],
                "type": _masked(file["mode"] & FILE_TYPE, has_file),
                "inode": _masked(file["inode"], has_file),
                "device": _masked(file["device"], has_file),
                "fd_kind": _masked(file["mode"] & FILE_TYPE, has_file).replace_strict(
                    _KINDS, default=None, return_dtype=pl.String
                ),
                **{f"arg{i}": _masked(args[:, i], count > i) for i in range(6)},
                **self._texts(batch, args),
                **_endpoint(batch),
            }
        )
        frame = self._named(frame.with_columns(_error_name(), _end()))
        frame = self._executed(frame)
        frame = self._context.process(frame)
        return self._table(frame, batch)

    def unfinished(self) -> pa.Table | None:
        """Rows of calls that had not returned when the recording ended, None when there were none."""
        rows = [
            row
            for row in self._found.tables.get("open_calls", {"rows": []})["rows"]
            if self._wanted[row["syscall"]]
        ]
        if not rows:
            return None
        start = np.array([waiting_since_ns(row, self._found) for row in rows], np.int64)
        known = np.array([row["start_ns"] != NOT_WATCHED for row in rows])
        frame = pl.DataFrame(
            {
                "ts": pl.Series(self._clock.utc_ns(start), dtype=pl.Int64),
                "duration_ns": _masked(np.array([row["at_ns"] for row in rows], np.int64) - start, known),
                "pid": pl.Series([row["pid"] for row in rows], dtype=pl.UInt32),
                "tid": pl.Series([row["tid"] for row in rows], dtype=pl.UInt32),
                "comm": [row["comm"] for row in rows],
                "syscall": [self._names.get(row["syscall"]) for row in rows],
                "unfinished": [True] * len(rows),
                "fd": pl.Series([row["fd"] if row["fd"] >= 0 else None for row in rows], dtype=pl.Int32),
                "fd_kind": [_KINDS.get(stat.S_IFMT(row["mode"])) if row["link"] else None for row in rows],
                "link": [row["link"] or None for row in rows],
                "inode": pl.Series([row["inode"] or None for row in rows], dtype=pl.UInt64),
                "socket_cookie": pl.Series([row["socket_cookie"] or None for row in rows], dtype=pl.UInt64),
                **{f"arg{i}": pl.Series([row["args"][i] for row in rows], dtype=pl.UInt64) for i in range(6)},
            }
        ).sort("ts")
        frame = frame.join(self._endpoints, on="socket_cookie", how="left", maintain_order="left")
        pair = pl.coalesce(pl.format("{}->{}", "local", "remote"), "local")
        frame = frame.with_columns(
            pl.coalesce(pair, "link").alias("fd_name"),
            pl.col("local_ip").alias("src_ip"),
            pl.col("local_port").alias("src_port"),
        )
        frame = self._context.process(frame).with_columns(
            pl.from_epoch("ts", time_unit="ns").dt.replace_time_zone("UTC")
        )
        names = [column.name for column in load.capture().of_kind("syscall") if column.name in frame.columns]
        return frame.select(names).to_arrow()

    def _file_times(self, fixed: Any) -> Any:
        """When each call's file was looked at, in UTC ns: at its end, but the file of close before it went.

        Made of monotonic times as `Survey.files` is: a start and a duration that are converted apart can
        come out a nanosecond before the opening that they are the end of.
        """
        close = fixed["syscall"] == self._close
        lasted = np.where(close, 0, fixed["duration_ns"].astype(np.int64))
        return self._clock.utc_ns(fixed["ts_ns"].astype(np.int64) + lasted)

    def _texts(self, batch: Batch, args: Any) -> dict[str, pl.Series]:
        """Paths, completed where they are relative."""
        texts = {}
        for name, folder_arg in zip(("path", "path2"), self._folder_args, strict=True):
            start, length = batch.sections[name]
            if not length.any():
                texts[name] = pl.Series([None] * length.size, dtype=pl.String)
                continue
            column = text(binary(*events.gather(batch.data, start, np.maximum(length - 1, 0))))
            # No file's name is empty, but with flags that few calls know: who failed with one named nothing.
            nothing = (length == 1) & (batch.fixed["ret"] < 0)
            given = pl.DataFrame(
                {
                    "pid": batch.fixed["pid"],
                    "ts": self._clock.utc_ns(batch.fixed["ts_ns"]),
                    "dirfd": np.where(nothing, NO_FOLDER, folder_of(batch, folder_arg, args)),
                    "name": pl.select(pl.when(pl.Series(length > 0)).then(column)).to_series(),
                }
            )
            texts[name] = self._folders.complete(given)
        return texts

    def _named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """fd_name: the path of the open file, the address pair of a socket, or the kernel's own name for the
        rest.
        """
        rows = frame.with_row_index("row").sort("file_ts")
        rows = rows.join_asof(
            self._files,
            left_on="file_ts",
            right_on="ts",
            by="identity",
            suffix="_file",
            check_sortedness=False,
        )
        rows = rows.join(self._endpoints, on="socket_cookie", how="left").sort("row").drop("row")
        socket = pl.col("fd_kind") == "socket"
        inode = pl.col("inode").cast(pl.String)
        pair = pl.format("{}->{}", "local", "remote")
        same = pl.col("named_type").is_null() | (pl.col("named_type") == pl.col("type"))
        same &= pl.col("inode") == pl.col("named_inode")
        rows = rows.with_columns(pl.when(same).then("name").alias("name"))
        return rows.with_columns(
            pl.when(socket)
            .then(pl.coalesce(pair, "local", "name", pl.format("socket:[{}]", inode)))
            .when(pl.col("fd_kind") == "pipe")
            .then(pl.coalesce("name", pl.format("pipe:[{}]", inode)))
            .otherwise(pl.col("name"))
            .alias("fd_name"),
            pl.col("src_ip").fill_null(pl.col("local_ip")),
            pl.col("src_port").fill_null(pl.col("local_port")),
        )

    def _executed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A successful exec has lost its arguments when it returns: registers are those of the new program.
        The process event between start and end has the path.
        """
        gone = pl.col("syscall").is_in(["execve", "execveat"]) & (pl.col("ret") == 0)
        frame = frame.with_columns(pl.when(~gone).then(f"arg{i}").alias(f"arg{i}") for i in range(6))
        execs = (
            frame.with_row_index("row")
            .filter(
                pl.col("syscall").is_in(["execve", "execveat"]), pl.col("ret") == 0, pl.col("path").is_null()
            )
            .select("row", "pid", "ts", "end")
            .sort("end")
        )
        if execs.is_empty():
            return frame
        found = execs.join_asof(
            self._programs.rename({"ts": "exec_ts"}),
            left_on="end",
            right_on="exec_ts",
            by="pid",
            check_sortedness=False,
        ).filter(pl.col("exec_ts") >= pl.col("ts"))
        return (
            frame.with_row_index("row")
            .join(found.select("row", "program"), on="row", how="left", maintain_order="left")
            .with_columns(pl.coalesce("path", "program").alias("path"))
            .drop("row", "program")
        )

    def _table(self, frame: pl.DataFrame, batch: Batch) -> pa.Table:
        names = [column.name for column in load.capture().of_kind("syscall") if column.name in frame.columns]
        start, length = batch.sections["data"]
        data, offsets = events.gather(batch.data, start, length)
        table: dict[str, Any] = {name: frame[name].to_arrow() for name in names}
        table["ts"] = pa.array(frame["ts"].to_numpy(), pa.timestamp("ns", "UTC"))
        empty = pa.py_buffer(np.packbits(length > 0, bitorder="little"))
        table["data"] = pa.Array.from_buffers(
            pa.large_binary(), length.size, [empty, pa.py_buffer(offsets), pa.py_buffer(data)]
        )
        return pa.table(table)


def _masked(values: Any, valid: Any) -> pl.Series:
    return pl.select(pl.when(pl.Series(valid)).then(pl.Series(np.ascontiguousarray(values)))).to_series()


def _error_name() -> pl.Expr:
    failed = pl.col("ret").is_between(-_MOST_ERRNO, -1)
    return (
        pl.when(failed)
        .then(
            pl.col("ret").replace_strict(
                ERRNO, default=pl.format("E{}", -pl.col("ret")), return_dtype=pl.String
            )
        )
        .alias("errno")
    )


def _end() -> pl.Expr:
    return (pl.col("ts") + pl.col("duration_ns").fill_null(0).cast(pl.Int64)).alias("end")


def _endpoint(batch: Batch) -> dict[str, pl.Series]:
    """The address that was passed in or filled in: dst_ip, dst_port, and src_* empty until the socket is
    known.
    """
    start, length = batch.sections["address"]
    families, ports = np.zeros(start.size, np.uint16), np.zeros(start.size, np.uint16)
    ips = np.zeros((start.size, 16), np.uint8)
    _addresses(batch.data, start.astype(np.int64), length.astype(np.int64), families, ports, ips)
    known = (families == 2) | (families == 10)
    column = pl.from_arrow(address_column(ips, versions_of(ips)))
    assert isinstance(column, pl.Series)
    return {
        "dst_ip": pl.select(pl.when(pl.Series(known)).then(column.cast(pl.String))).to_series(),
        "dst_port": _masked(ports, known),
        "src_ip": pl.Series([None] * start.size, dtype=pl.String),
        "src_port": pl.Series([None] * start.size, dtype=pl.UInt16),
    }


def endpoints(sockets: pl.DataFrame) -> pl.DataFrame:
    """One row a cookie: local_ip, local_port, and both ends as text, from the socket's last row with a remote
    end.
    """
    connected = pl.col("dst_port") > 0
    last = sockets.sort(connected.fill_null(False), "ts").group_by("socket_cookie").last()
    local = pl.format("{}:{}", _bracketed("src_ip"), "src_port")
    remote = pl.format("{}:{}", _bracketed("dst_ip"), "dst_port")
    return last.filter(pl.col("socket_cookie").is_not_null()).select(
        "socket_cookie",
        pl.col("src_ip").alias("local_ip"),
        pl.col("src_port").alias("local_port"),
        local.alias("local"),
        pl.when(connected).then(remote).alias("remote"),
    )


def _bracketed(name: str) -> pl.Expr:
    column = pl.col(name)
    return pl.when(column.str.contains(":", literal=True)).then(pl.format("[{}]", column)).otherwise(column)
