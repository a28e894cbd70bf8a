"""Processes that did something while recording: traffic, system calls, how they ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import Options, Report, count
from stratokit.reports.syscalls import is_waiting
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_PROCESS = ["pid", "process_start"]
_AMOUNTS = ("packets", "bytes", "syscalls", "syscall_errors", "syscall_time_ns")


def _rows(capture: Capture, name: str) -> pl.LazyFrame:
    """A table; without rows where the filter says nothing about it."""
    return capture.table(name) if capture.applies(name) else capture.whole.table(name).clear()


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a process, the busiest first; of some only their traffic or calls are known."""
    facts = capture.table("processes")
    packets = (
        _rows(capture, "packets")
        .filter(pl.col("pid").is_not_null())
        .group_by(_PROCESS)
        .agg(
            pl.col("comm").last(),
            pl.len().alias("packets"),
            pl.col("orig_len").cast(pl.UInt64).sum().alias("bytes"),
        )
    )
    calls = (
        _rows(capture, "syscalls")
        .filter(pl.col("unfinished").is_null())
        .group_by(_PROCESS)
        .agg(
            pl.col("comm").last(),
            pl.len().alias("syscalls"),
            count(pl.col("ret") < 0).alias("syscall_errors"),
            pl.col("duration_ns").filter(~is_waiting()).sum().alias("syscall_time_ns"),
        )
    )
    joined = facts
    for more in (packets, calls):
        joined = joined.join(more, on=_PROCESS, how="full", coalesce=True, nulls_equal=True, suffix="_seen")
        joined = joined.with_columns(pl.coalesce("comm", "comm_seen")).drop("comm_seen")
    active = (
        pl.any_horizontal(pl.col(*_AMOUNTS) > 0) | (pl.col("execs") > 0) | pl.col("exit_ts").is_not_null()
    )
    return (
        joined.with_columns(pl.col(*_AMOUNTS).cast(pl.UInt64).fill_null(0))
        .filter(active)
        .sort(["bytes", "syscalls", *_PROCESS], descending=[True, True, False, False], nulls_last=True)
        .select(column.name for column in _COLUMNS)
    )


_COLUMNS = (
    Column("pid", "u32", "Process id."),
    Column("comm", "name", "Process name."),
    Column("cmdline", "text", "Arguments."),
    Column("process_start", "time", "When it started."),
    Column("exit_ts", "time", "When it ended; empty when it was alive at the end."),
    Column("exit_code", "s32", "Exit code; 128 + signal number when a signal ended it."),
    Column("packets", "u64", "Packets of its sockets."),
    Column("bytes", "u64", "Bytes of these.", "bytes"),
    Column("syscalls", "u64", "System calls."),
    Column("syscall_errors", "u64", "System calls that failed."),
    Column("syscall_time_ns", "u64", "Time in system calls, without those that wait for something.", "ns"),
    Column("container_id", "name", "Container."),
    Column("pod", "name", "Kubernetes pod."),
)
REPORT = Report(
    name="processes",
    title="Processes",
    doc="Those that did something while recording, most traffic first.",
    place=90,
    needs=("processes",),
    columns=_COLUMNS,
    build=build,
    narrow=("pid", "comm", "exit_code", "packets", "bytes", "syscalls", "syscall_errors", "syscall_time_ns"),
)
