"""Errors over time by endpoint, peer, process and pod, each of these for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports import timeline
from stratokit.reports.base import SPREAD, Options, Report, count, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

# By whom: columns of the table `latency`. What is not known of a request counts nowhere.
_BY = {
    "endpoint": pl.col("what").str.split_exact("?", 1).struct[0],
    "peer": pl.col("server_ip"),
    "process": pl.col("server_comm"),
    "client process": pl.col("comm"),
    "pod": pl.col("server_pod"),
    "client pod": pl.col("pod"),
}
_KEY = ("by", "name", "kind")


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row for each endpoint, peer, ... and span of time; those with most errors first."""
    rows = capture.table("latency").filter(pl.col("kind") != "tcp").select(
        "kind", "ts", "total_ns", "failed", *(name.alias(by) for by, name in _BY.items())
    ).collect()  # fmt: skip
    if rows.is_empty():
        return pl.LazyFrame(schema=dict.fromkeys((column.name for column in _COLUMNS), pl.Null))
    each = rows.lazy().unpivot(
        list(_BY), index=["kind", "ts", "total_ns", "failed"], variable_name="by", value_name="name"
    )
    order = {by: k for k, by in enumerate(_BY)}
    return (
        each.drop_nulls("name")
        .group_by(timeline.span_of(rows["ts"]), *_KEY)
        .agg(
            pl.len().cast(pl.UInt64).alias("count"),
            count(pl.col("failed")).alias("errors"),
            pl.col("failed").mean().alias("error_share"),
            *spread(pl.col("total_ns")),
        )
        .sort(
            pl.col("by").replace_strict(order, return_dtype=pl.Int64),
            -pl.col("errors").sum().over(_KEY).cast(pl.Int64),
            "name",
            "kind",
            "ts",
        )
        .select(column.name for column in _COLUMNS)
    )


_COLUMNS = (
    Column("by", "text", "endpoint, peer (who is asked), process and pod of either side."),
    Column("name", "text", "Which one; an endpoint without its query."),
    Column("kind", "text", "http, grpc, dns or tls."),
    Column("ts", "time", "Beginning of the span."),
    Column("count", "u64", "Requests that began."),
    Column("errors", "u64", "Requests of them that failed or had no response."),
    Column("error_share", "f64", "Their share."),
    *SPREAD,
)
REPORT = Report(
    name="error_shares",
    title="Errors over time",
    doc="Requests that failed, span by span, by endpoint, by peer, by process and by pod.",
    place=75,
    needs=("latency",),
    columns=_COLUMNS,
    build=build,
    narrow=("by", "name", "ts", "count", "errors", "error_share", "p99_ns"),
    extra=True,
)
