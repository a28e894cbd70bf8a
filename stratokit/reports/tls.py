"""TLS by server name: handshakes, versions, refusals, and how long handshakes took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import SPREAD, Options, Report, count, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a server name, those refused most first."""
    refused = pl.col("alert").is_not_null()
    unanswered = pl.col("ts_server_hello").is_null()
    return (
        capture.table("tls")
        .group_by("sni", "server_ip", "server_port")
        .agg(
            pl.len().cast(pl.UInt64).alias("handshakes"),
            count(refused | unanswered).alias("errors"),
            pl.col("alert").drop_nulls().unique().sort().str.join(" ").alias("alerts"),
            pl.col("version").drop_nulls().unique().sort().str.join(", ").alias("versions"),
            *spread(pl.col("handshake_ns")),
        )
        .sort(
            ["errors", "handshakes", "sni", "server_ip", "server_port"],
            descending=[True, True, False, False, False],
            nulls_last=True,
        )
    )


REPORT = Report(
    name="tls",
    title="TLS",
    doc="By server name. Errors are handshakes that were refused by an alert or not answered.",
    place=60,
    needs=("tls",),
    columns=(
        Column("sni", "text", "Server name that the client asked for."),
        Column("server_ip", "name", "Address of the server."),
        Column("server_port", "u16", "Port of the server."),
        Column("handshakes", "u64", "Handshakes begun."),
        Column("errors", "u64", "Handshakes that were refused or not answered."),
        Column("alerts", "text", "Alerts that occurred."),
        Column("versions", "text", "Versions that were agreed on."),
        *SPREAD,
    ),
    build=build,
    narrow=("sni", "handshakes", "errors", "alerts", "p50_ns", "p99_ns", "max_ns"),
)
