"""System calls by process: where its time went in the kernel, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.frames import collect
from stratokit.reports.base import SPREAD, Options, Report
from stratokit.reports.grouped import Groups
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
    calls = capture.table("syscalls")
    key = ["comm", "syscall"]
    rows = collect(
        calls.select(
            pl.col(key).cast(pl.Categorical),
            pl.col("pid").fill_null(0),
            failed=(pl.col("ret") < 0).fill_null(value=False),
            took=finished(pl.col("duration_ns")).cast(pl.Int64),
            unfinished=pl.col("unfinished").is_not_null(),
        )
    )
    groups = Groups.of(rows, key)
    times = groups.ordered(rows["took"])
    errors = calls.filter(pl.col("errno").is_not_null()).select(*key, "errno").unique()
    return (
        rows[groups.first]
        .select(pl.col(key).cast(pl.String))
        .with_columns(
            processes=groups.ordered(rows["pid"]).distinct(),
            count=groups.count(),
            errors=groups.count(rows["failed"]),
            total_ns=times.sums(),
            unfinished=groups.count(rows["unfinished"]),
            **times.spread(),
        )
        .lazy()
        .join(
            errors.group_by(key).agg(pl.col("errno").sort().str.join(" ").alias("errnos")),
            on=key,
            how="left",
            nulls_equal=True,
        )
        .with_columns(pl.col("errnos").fill_null(""), is_waiting().alias("waiting"))
        .sort(
            ["waiting", "total_ns", "comm", "syscall"],
            descending=[False, True, False, False],
            nulls_last=True,
        )
        .select(column.name for column in _COLUMNS)
    )


_COLUMNS = (
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
)
REPORT = Report(
    name="syscalls",
    title="System calls",
    doc="By process name, most time first; calls that wait for something to happen come last.",
    place=80,
    needs=("syscalls",),
    columns=_COLUMNS,
    build=build,
    narrow=("comm", "syscall", "count", "errors", "total_ns", "p50_ns", "p99_ns", "max_ns"),
)
