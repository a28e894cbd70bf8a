"""Latency over time as a heat map: how many of each layer's waits began when, and took how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports import timeline
from stratokit.reports.base import Options, Report
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


def floor_ns(duration: pl.Expr) -> pl.Expr:
    """The nearest 1, 2 or 5 of a power of ten that is not above a duration.

    >>> pl.select(floor_ns(pl.Series([0, 7, 19, 20, 1000, 4_999]))).to_series().to_list()
    [1, 5, 10, 20, 1000, 2000]
    """
    least = pl.max_horizontal(duration, 1)
    # log10 of a power of ten may come out a little below it.
    decade = pl.lit(10).pow((least.log10() + 1e-9).floor().cast(pl.Int64))
    first = least // decade
    return decade * pl.when(first >= 5).then(5).when(first >= 2).then(2).otherwise(1)


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row for each layer, span of time and range of durations in which something was."""
    found = timeline.begun(capture).drop_nulls("waited_ns")
    if found.is_empty():
        return found.lazy().select("waiting_for", "ts", from_ns=pl.lit(0), count=0)
    return (
        found.lazy()
        .group_by("waiting_for", timeline.span_of(found["ts"]), from_ns=floor_ns(pl.col("waited_ns")))
        .agg(pl.len().cast(pl.UInt64).alias("count"))
        .sort("waiting_for", "ts", "from_ns")
    )


REPORT = Report(
    name="heat",
    title="Heat map of latency",
    doc="How many waits began in each span of time, by how long they took.",
    place=73,
    needs=("dns", "tcp", "http", "tls"),
    columns=(
        Column("waiting_for", "text", "What was waited for."),
        Column("ts", "time", "Beginning of the span."),
        Column(
            "from_ns", "s64", "They took at least this long, and less than the next of 1, 2, 5, 10.", "ns"
        ),
        Column("count", "u64", "How many."),
    ),
    build=build,
    extra=True,
    picture=True,
)
