"""What system calls moved and how long they took, grouped by anything: for `files` and `socket_io`."""

from __future__ import annotations

import functools

import polars as pl

from stratokit.engine.frames import collect
from stratokit.reports.base import SPREAD
from stratokit.reports.grouped import Groups
from stratokit.reports.syscalls import finished
from stratokit.schema import load
from stratokit.schema.model import Column

COLUMNS = (
    Column("calls", "u64", "System calls."),
    Column("errors", "u64", "Calls that failed."),
    Column("errnos", "text", "Errors that occurred."),
    Column("read_bytes", "u64", "Bytes that calls read or received.", "bytes"),
    Column("written_bytes", "u64", "Bytes that calls wrote or sent.", "bytes"),
    Column("total_ns", "s64", "Time in the calls, all together.", "ns"),
    *SPREAD,
    Column("slowest", "name", "The call that took longest."),
)

USED = ("syscall", "ret", "errno", "duration_ns", "unfinished")  # of system calls, beside the key's


@functools.cache
def movers(suffix: str) -> tuple[str, ...]:
    """Calls that return how many bytes they moved: `_out` into buffers of the caller, `_in` out of them."""
    calls = (call for call in load.syscalls("x86_64").values() if call.returns == "bytes")
    return tuple(call.name for call in calls if any(kind.endswith(suffix) for _, kind in call.args))


def totals(calls: pl.LazyFrame, key: dict[str, pl.Expr]) -> pl.LazyFrame:
    """COLUMNS for each group of calls with equal `key`, most time first."""
    names = list(key)
    rows = collect(
        calls.select(
            **{name: value.cast(pl.Categorical) if name != "port" else value for name, value in key.items()},
            syscall=pl.col("syscall").cast(pl.Categorical),
            failed=(pl.col("ret") < 0).fill_null(value=False),
            errno="errno",
            took=finished(pl.col("duration_ns")).cast(pl.Int64),
            moved=pl.col("ret").clip(0).fill_null(0),
        )
    )
    # What depends on the name of a call is asked once for each group and call, not for each row.
    each = Groups.of(rows, [*names, "syscall"])
    groups, of = each.coarser(rows, names)
    times = groups.ordered(rows["took"])
    spread = times.spread()
    by_call = pl.DataFrame(
        {
            "group": of,
            "syscall": rows["syscall"].gather(each.first).cast(pl.String),
            "moved": each.sums(rows["moved"]),
            "longest": each.most(rows["took"]),
        }
    ).with_columns(of_group=spread["max_ns"].gather(of))
    called = (
        by_call.group_by("group", maintain_order=True)
        .agg(
            read_bytes=pl.col("moved").filter(pl.col("syscall").is_in(movers("_out"))).sum(),
            written_bytes=pl.col("moved").filter(pl.col("syscall").is_in(movers("_in"))).sum(),
            slowest=pl.col("syscall").filter(pl.col("longest") == pl.col("of_group")).min(),
        )
        .sort("group")
    )
    errnos = (
        rows.select(pl.Series("group", groups.number), "errno")
        .filter(pl.col("errno").is_not_null())
        .unique()
        .group_by("group")
        .agg(pl.col("errno").sort().str.join(" ").alias("errnos"))
    )
    return (
        rows[groups.first]
        .select(pl.col(name).cast(pl.String) if name != "port" else name for name in names)
        .with_columns(
            group=pl.int_range(pl.len(), dtype=pl.Int32),
            calls=groups.count(),
            errors=groups.count(rows["failed"]),
            total_ns=times.sums(),
            **called.drop("group").to_dict(),
            **spread,
        )
        .join(errnos, on="group", how="left", maintain_order="left")
        .with_columns(pl.col("errnos").fill_null(""))
        .sort("total_ns", *names, descending=[True, *[False] * len(names)], nulls_last=True)
        .lazy()
        .select(*names, *(column.name for column in COLUMNS))
    )
