"""Calls on files that keep a process waiting for the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, evidence, finding, quoted

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_SLOW_NS = 50_000_000
_LEAST, _SHARE = 3, 0.01


def find(capture: Capture) -> pl.LazyFrame:
    """At least 3 calls of a program on files, and one in a hundred, took 50 ms or more."""
    name = pl.coalesce("fd_name", "path")
    slow = (pl.col("duration_ns") >= _SLOW_NS).fill_null(value=False)
    return (
        capture.table("syscalls")
        .filter(pl.col("fd_kind") == "file", pl.col("unfinished").is_null())
        .group_by("comm")
        .agg(
            *evidence(slow, "ts"),
            worst=pl.col("duration_ns").max() // 1_000_000,
            call=pl.col("syscall").filter(slow).mode().sort().first(),
            file=name.filter(slow).drop_nulls().mode().sort().first(),
        )
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
