"""HTTP by endpoint: how often, how often in vain, and how long until the answer began."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import SPREAD, Options, Report, count, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a method, host and path without its query, the slowest first."""
    unanswered = pl.col("status").is_null()
    latency = pl.col("latency_ns")
    return (
        capture.table("http")
        .group_by("method", "host", pl.col("path").str.split_exact("?", 1).struct[0].alias("path"))
        .agg(
            pl.len().cast(pl.UInt64).alias("count"),
            count(unanswered | (pl.col("status") >= 400)).alias("errors"),
            count(unanswered).alias("unanswered"),
            *spread(latency),
            pl.col("request_frame")
            .sort_by(latency, descending=True, nulls_last=True)
            .first()
            .alias("slowest_frame"),
        )
        .sort(["max_ns", "host", "path", "method"], descending=[True, False, False, False], nulls_last=True)
    )


REPORT = Report(
    name="http",
    title="HTTP",
    doc="By endpoint, the slowest first. Errors are status 400 and above, and no response.",
    place=50,
    needs=("http",),
    columns=(
        Column("method", "name", "Request method."),
        Column("host", "text", "Host asked for."),
        Column("path", "text", "Path without the query."),
        Column("count", "u64", "Requests."),
        Column("errors", "u64", "Requests with a status of 400 or above, or without a response."),
        Column("unanswered", "u64", "Requests without a response in the capture."),
        *SPREAD,
        Column("slowest_frame", "u64", "Frame number of the slowest request."),
    ),
    build=build,
    narrow=("method", "host", "path", "count", "errors", "p50_ns", "p99_ns", "max_ns"),
)
