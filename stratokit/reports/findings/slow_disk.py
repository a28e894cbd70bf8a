"""Calls on files that keep a process waiting for the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, finding, quoted

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_SLOW_NS = 50_000_000
_LEAST, _SHARE = 3, 0.01


def find(capture: Capture) -> pl.LazyFrame:
    """At least 3 calls of a program on files, and one in a hundred, took 50 ms or more."""
    calls = capture.table("syscalls").filter(pl.col("fd_kind") == "file", pl.col("unfinished").is_null())
    # Apart from the slow ones, of which there are few: in one query the rows would be kept for both.
    every = calls.group_by("comm").agg(of=pl.len().cast(pl.UInt64)).collect().lazy()
    return (
        calls.filter(pl.col("duration_ns") >= _SLOW_NS)
        .group_by("comm")
        .agg(
            since=pl.col("ts").min(),
            until=pl.col("ts").max(),
            count=pl.len().cast(pl.UInt64),
            frames=pl.lit(None, pl.String),
            worst=pl.col("duration_ns").max() // 1_000_000,
            call=pl.col("syscall").mode().sort().first(),
            file=pl.coalesce("fd_name", "path").drop_nulls().mode().sort().first(),
        )
        .join(every, on="comm", nulls_equal=True)
        .filter(pl.col("count") >= _LEAST, pl.col("count") >= _SHARE * pl.col("of"))
        .select(
            finding(
                "syscalls",
                pl.col("comm"),
                pl.format(
                    "{} waited 50 ms or more in {} of {} calls on files, {} ms at most, most often in {}{}.",
                    "comm",
                    "count",
                    "of",
                    "worst",
                    "call",
                    pl.when(pl.col("file").is_not_null())
                    .then(pl.format(" on {}", "file"))
                    .otherwise(pl.lit("")),
                ),
                pl.format('proc.name == {} && fd.type == "file" && evt.latency >= 50ms', quoted("comm")),
            )
        )
    )


RULE = Rule("slow-disk", find.__doc__ or "", ("syscalls",), find)
