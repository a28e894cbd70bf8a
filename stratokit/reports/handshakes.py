"""TCP handshakes by server, from SYNs alone: how long until the SYN-ACK came, and how often none did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports import tcp
from stratokit.reports.base import SPREAD, Options, Report, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a client's address and a server's port, the slowest first."""
    ends = capture.whole.table("flows").select("flow_id", "client_ip", "server_ip", "server_port")
    return (
        capture.table("tcp")
        .filter(pl.col("syn_ts").is_not_null())
        .join(ends, on="flow_id", how="left")
        .group_by("client_ip", "server_ip", "server_port")
        .agg(
            *tcp.attempts(),
            *spread(pl.col("syn_rtt_ns")),
        )
        .sort(
            ["failed", "max_ns", "client_ip", "server_ip", "server_port"],
            descending=[True, True, False, False, False],
            nulls_last=True,
        )
    )


REPORT = Report(
    name="handshakes",
    title="TCP handshakes",
    doc="By peer. The times are from SYN to SYN-ACK.",
    place=31,
    needs=("tcp", "flows"),
    columns=(
        Column("client_ip", "name", "Address of the client."),
        Column("server_ip", "name", "Address of the server."),
        Column("server_port", "u16", "Port of the server."),
        Column("connections", "u64", "Connections whose SYN was recorded."),
        Column("failed", "u64", "Connections that were refused or not answered."),
        Column("syn_retries", "u64", "SYNs sent again because no answer came."),
        *SPREAD,
    ),
    build=build,
    extra=True,
)
