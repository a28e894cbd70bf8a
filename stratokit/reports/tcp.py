"""TCP by server: connections that failed, what was sent again or stood still, how long handshakes took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import SPREAD, Options, Report, count, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


_SUMS = {
    "retransmissions": "retransmissions_c2s",
    "server_retransmissions": "retransmissions_s2c",
    "lost_segments": "lost_segments",
    "resets": "resets",
}


def failed() -> pl.Expr:
    """True for a connection whose SYN had no SYN-ACK: refused, or not answered."""
    return pl.col("syn_ts").is_not_null() & pl.col("syn_rtt_ns").is_null()


def attempts() -> list[pl.Expr]:
    """How many connections there are, how many of them failed, and SYNs that were sent again."""
    return [
        pl.len().cast(pl.UInt64).alias("connections"),
        count(failed()).alias("failed"),
        (pl.col("syns").cast(pl.UInt64) - 1).filter(pl.col("syns") > 0).sum().alias("syn_retries"),
    ]


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a server's port, those in trouble first."""
    ends = capture.whole.table("flows").select("flow_id", "server_ip", "server_port")
    return (
        capture.table("tcp")
        .join(ends, on="flow_id", how="left")
        .group_by("server_ip", "server_port")
        .agg(
            *attempts(),
            *(pl.col(column).cast(pl.UInt64).sum().alias(name) for name, column in _SUMS.items()),
            (pl.col("zero_window_c2s_ns") + pl.col("zero_window_s2c_ns")).sum().alias("zero_window_ns"),
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
        Column("retransmissions", "u64", "Segments that clients sent again."),
        Column("server_retransmissions", "u64", "Segments that the server sent again."),
        Column("lost_segments", "u64", "Segments before which others are missing from the capture."),
        Column("resets", "u64", "Segments that tore a connection down."),
        Column("zero_window_ns", "s64", "Time in which receivers took no more data.", "ns"),
        *SPREAD,
    ),
    build=build,
    narrow=(
        *("server_ip", "server_port", "connections", "failed", "retransmissions", "server_retransmissions"),
        *("resets", "p50_ns", "p99_ns", "max_ns"),
    ),
)
