"""TCP by server: connections that failed, and how long handshakes took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import SPREAD, Options, Report, count, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


def failed() -> pl.Expr:
    """True for a connection whose SYN had no SYN-ACK: refused, or not answered."""
    return pl.col("syn_ts").is_not_null() & pl.col("syn_rtt_ns").is_null()


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a server's port, those in trouble first."""
    ends = capture.whole.table("flows").select("flow_id", "server_ip", "server_port")
    return (
        capture.table("tcp")
        .join(ends, on="flow_id", how="left")
        .group_by("server_ip", "server_port")
        .agg(
            pl.len().cast(pl.UInt64).alias("connections"),
            count(failed()).alias("failed"),
            (pl.col("syns").cast(pl.UInt64) - 1).filter(pl.col("syns") > 0).sum().alias("syn_retries"),
            pl.col("resets").cast(pl.UInt64).sum(),
            *spread(pl.col("handshake_rtt_ns")),
        )
        .sort(
            ["failed", "resets", "connections", "server_ip", "server_port"],
            descending=[True, True, True, False, False],
        )
    )


REPORT = Report(
    name="tcp",
    title="TCP",
    doc="By server. The times are those of handshakes.",
    place=30,
    needs=("tcp", "flows"),
    columns=(
        Column("server_ip", "name", "Address of the server."),
        Column("server_port", "u16", "Port of the server."),
        Column("connections", "u64", "Connections, also those that failed."),
        Column("failed", "u64", "Connections that were refused or not answered."),
        Column("syn_retries", "u64", "SYNs sent again because no answer came."),
        Column("resets", "u64", "Segments that tore a connection down."),
        *SPREAD,
    ),
    build=build,
    narrow=("server_ip", "server_port", "connections", "failed", "resets", "p50_ns", "p99_ns", "max_ns"),
)
