"""DNS by name: how often it was asked for, how often in vain, and how long the answers took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols import dns
from stratokit.reports.base import SPREAD, Options, Report, count, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a name and type, those that failed most first."""
    unanswered = pl.col("ts_response").is_null()
    return (
        capture.table("dns")
        .group_by("qname", pl.col("qtype_name").alias("qtype"))
        .agg(
            pl.len().cast(pl.UInt64).alias("count"),
            count(dns.FAILED).alias("errors"),
            count(unanswered).alias("unanswered"),
            pl.col("rcode_name").drop_nulls().unique().sort().str.join(" ").alias("rcodes"),
            *spread(pl.col("latency_ns")),
        )
        .sort(["errors", "max_ns", "qname", "qtype"], descending=[True, True, False, False], nulls_last=True)
    )


REPORT = Report(
    name="dns",
    title="DNS",
    doc="By name, those that failed first. Errors are answers other than NOERROR, and no answer; but a group "
    "(multicast DNS, LLMNR) may keep silent.",
    place=40,
    needs=("dns",),
    columns=(
        Column("qname", "text", "Name that was asked for."),
        Column("qtype", "name", "Type of record."),
        Column("count", "u64", "Queries."),
        Column("errors", "u64", "Queries that failed or had no answer."),
        Column("unanswered", "u64", "Queries without an answer in the capture."),
        Column("rcodes", "text", "Response codes that occurred."),
        *SPREAD,
    ),
    build=build,
    narrow=("qname", "qtype", "count", "errors", "p50_ns", "p99_ns", "max_ns"),
)
