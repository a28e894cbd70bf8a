"""System calls by process: where its time went in the kernel, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import SPREAD, Options, Report, count, spread
from stratokit.schema import load
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_WAITING_GROUPS = frozenset(("poll", "sync", "time"))
_WAITING_CALLS = frozenset(("wait4", "waitid", "rt_sigtimedwait", "rt_sigsuspend", "pause"))


def is_waiting() -> pl.Expr:
    """True for calls that wait for something to happen: their length says nothing of the kernel's work."""
    calls = load.syscalls("x86_64").values()
    names = [call.name for call in calls if call.group in _WAITING_GROUPS or call.name in _WAITING_CALLS]
    return pl.col("syscall").is_in(names)


def finished(duration: pl.Expr) -> pl.Expr:
    """Null for calls that had not returned when the recording ended: most are those of idle programs."""
    return pl.when(pl.col("unfinished").is_null()).then(duration)


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a process name and call: work first, waiting after it, each by total time."""
    return (
        capture.table("syscalls")
        .group_by("comm", "syscall")
        .agg(
            pl.col("pid").n_unique().cast(pl.UInt64).alias("processes"),
            pl.len().cast(pl.UInt64).alias("count"),
            count(pl.col("ret") < 0).alias("errors"),
            pl.col("errno").drop_nulls().unique().sort().str.join(" ").alias("errnos"),
            finished(pl.col("duration_ns")).sum().cast(pl.Int64).alias("total_ns"),
            *spread(finished(pl.col("duration_ns"))),
            pl.col("unfinished").is_not_null().sum().cast(pl.UInt64).alias("unfinished"),
        )
        .with_columns(is_waiting().alias("waiting"))
        .sort(
            ["waiting", "total_ns", "comm", "syscall"],
            descending=[False, True, False, False],
            nulls_last=True,
        )
    )


REPORT = Report(
    name="syscalls",
    title="System calls",
    doc="By process name, most time first; calls that wait for something to happen come last.",
    place=80,
    needs=("syscalls",),
    columns=(
        Column("comm", "name", "Process name."),
        Column("syscall", "name", "System call."),
        Column("processes", "u64", "Processes of that name that made it."),
        Column("count", "u64", "Calls."),
        Column("errors", "u64", "Calls that failed."),
        Column("errnos", "text", "Errors that occurred."),
        Column("total_ns", "s64", "Time in the call, all together.", "ns"),
        *SPREAD,
        Column("unfinished", "u64", "Calls that had not returned at the end; they are in no time here."),
        Column("waiting", "bool", "True for calls that wait for something to happen."),
    ),
    build=build,
    narrow=("comm", "syscall", "count", "errors", "total_ns", "p50_ns", "p99_ns", "max_ns"),
)
