"""A process that opens descriptors and does not close them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, evidence, finding
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST = 30
_FULL = ("EMFILE", "ENFILE")


def find(capture: Capture) -> pl.LazyFrame:
    """The lowest free descriptor of a process rose by 30 or more, or none was left (EMFILE).

    The kernel always gives the lowest one that is free: where those given late lie above all given early,
    none of the early ones was closed.
    """
    names = [call.name for call in load.syscalls("x86_64").values() if call.returns == "fd"]
    given = pl.col("ret") >= 0
    late = pl.col("number") >= pl.col("number").max() * 3 // 4
    early = pl.col("number") < pl.col("number").max() // 4
    process = ["pid", "process_start"]
    full = pl.col("errno").is_in(_FULL)
    opened = capture.table("syscalls").filter(pl.col("syscall").is_in(names))
    # The lowest free one cannot have risen so far where none was given so high: most processes are out.
    high = opened.filter((pl.col("ret") >= _LEAST) | full).select(process).unique().collect()
    return (
        opened.filter(given | full, pl.col("pid").is_in(high["pid"].implode(), nulls_equal=True))
        .select(*process, "comm", "ts", "ret", given=given)
        .join(high.lazy(), on=process, how="semi", nulls_equal=True)
        .sort("ts")
        .with_columns(number=pl.col("given").cast(pl.Int64).cum_sum().over(process))
        .group_by(process)
        .agg(
            *evidence(pl.col("given"), "ts"),
            pl.col("comm").last(),
            lowest=pl.col("ret").filter("given").min(),
            first=pl.col("ret").filter(pl.col("given") & early).max(),
            last=pl.col("ret").filter(pl.col("given") & late).min(),
            refused=pl.col("given").not_().sum(),
        )
        .filter(
            pl.col("count") >= _LEAST,
            (pl.col("last") - pl.col("first") >= _LEAST) | (pl.col("refused") > 0),
        )
        .select(
            finding(
                "syscalls",
                pl.format("{} ({})", "comm", "pid"),
                pl.format(
                    "{} (pid {}) opened {} descriptors and keeps them: the lowest free one rose from {} "
                    "to {}{}.",
                    "comm",
                    "pid",
                    "count",
                    "lowest",
                    "last",
                    pl.when(pl.col("refused") > 0)
                    .then(pl.format(", and {} times none was left", "refused"))
                    .otherwise(pl.lit("")),
                ),
                pl.format(
                    "proc.pid == {} && evt.rawres >= 0 && evt.type in {}",
                    "pid",
                    pl.lit("{" + ", ".join(f'"{name}"' for name in names) + "}"),
                ),
            )
        )
    )


RULE = Rule("fd-leak", find.__doc__ or "", ("syscalls",), find)
