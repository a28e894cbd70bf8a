"""Requests over time by whom they went to and what they asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports import timeline
from stratokit.reports.base import SPREAD, Options, Report, count, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_KEY = ("kind", "client", "server", "endpoint")


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row for each client, server, endpoint and span of time, in order of time."""
    rows = (
        capture.table("latency")
        .filter(pl.col("kind") != "tcp")
        .select(
            "kind",
            "ts",
            "total_ns",
            "failed",
            client=pl.coalesce("pod", "comm", "client_ip"),
            server=pl.coalesce("server_pod", "server_comm", "server_ip"),
            endpoint=pl.col("what").str.split_exact("?", 1).struct[0],
        )
        .collect()
    )
    if rows.is_empty():
        return rows.lazy().select("ts", *_KEY, count=pl.lit(0), errors=0, error_share=0.0, **_NOTHING)
    return (
        rows.lazy()
        .group_by(timeline.span_of(rows["ts"]), *_KEY)
        .agg(
            pl.len().cast(pl.UInt64).alias("count"),
            count(pl.col("failed")).alias("errors"),
            pl.col("failed").mean().alias("error_share"),
            *spread(pl.col("total_ns")),
        )
        .sort("ts", *_KEY, nulls_last=True)
    )


_NOTHING = {column.name: pl.lit(0) for column in SPREAD}
REPORT = Report(
    name="endpoints",
    title="Endpoints over time",
    doc="Requests by client, server and what was asked for, by the time at which they began.",
    place=74,
    needs=("latency",),
    columns=(
        Column("ts", "time", "Beginning of the span."),
        Column("kind", "text", "http, grpc, dns or tls."),
        Column("client", "text", "Who asks: pod, else process, else address."),
        Column("server", "text", "Who is asked, likewise."),
        Column("endpoint", "text", "What was asked for, without a query."),
        Column("count", "u64", "Requests that began."),
        Column("errors", "u64", "Requests of them that failed or had no response."),
        Column("error_share", "f64", "Their share."),
        *SPREAD,
    ),
    build=build,
    extra=True,
)
