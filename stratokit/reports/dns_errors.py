"""DNS names that failed, by the resolver that was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols import dns
from stratokit.reports.base import SPREAD, Options, Report, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a resolver, name, type and error, the most frequent first."""
    error = pl.when(pl.col("ts_response").is_null()).then(pl.lit("no answer")).otherwise("rcode_name")
    return (
        capture.table("dns")
        .filter(dns.FAILED)
        .group_by(
            "server_ip", "server_port", "qname", pl.col("qtype_name").alias("qtype"), error.alias("error")
        )
        .agg(pl.len().cast(pl.UInt64).alias("count"), *spread(pl.col("latency_ns")))
        .sort(
            ["count", "server_ip", "server_port", "qname", "qtype", "error"],
            descending=[True, False, False, False, False, False],
        )
    )


REPORT = Report(
    name="dns_errors",
    title="DNS errors",
    doc="By resolver and name: answers other than NOERROR, and no answer.",
    place=41,
    needs=("dns",),
    columns=(
        Column("server_ip", "name", "Address of the resolver."),
        Column("server_port", "u16", "Port of the resolver."),
        Column("qname", "text", "Name that was asked for."),
        Column("qtype", "name", "Type of record."),
        Column("error", "text", "Response code, or that none came."),
        Column("count", "u64", "How often."),
        *SPREAD,
    ),
    build=build,
    narrow=("server_ip", "server_port", "qname", "qtype", "error", "count"),
    extra=True,
)
