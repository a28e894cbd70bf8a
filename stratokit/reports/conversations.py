"""Conversations: who spoke with whom, how much, how fast they met, and which processes they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import Options, Report
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_COLUMNS = (
    Column("flow_id", "u64", "Number of the conversation."),
    Column("proto", "name", "Transport protocol."),
    Column("client_ip", "name", "Address of the side that began."),
    Column("client_port", "u16", "Port of the side that began."),
    Column("comm", "name", "Process of the client."),
    Column("pid", "u32", "Process id of the client."),
    Column("server_ip", "name", "Address of the other side."),
    Column("server_port", "u16", "Port of the other side."),
    Column("server_comm", "name", "Process of the server."),
    Column("server_pid", "u32", "Process id of the server."),
    Column("handshake_rtt_ns", "s64", "From SYN to the ACK that completes the TCP handshake.", "ns"),
    Column("bytes_c2s", "u64", "Bytes of the client's packets.", "bytes"),
    Column("bytes_s2c", "u64", "Bytes of the server's packets.", "bytes"),
    Column("packets_c2s", "u64", "Packets of the client."),
    Column("packets_s2c", "u64", "Packets of the server."),
    Column("resets", "u64", "TCP segments that tore the connection down."),
    Column("duration_ns", "s64", "From the first packet to the last.", "ns"),
    Column("first_ts", "time", "Time of the first packet."),
)
_FROM_TCP = ("handshake_rtt_ns", "resets")


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a conversation, the largest first."""
    tcp = capture.whole.table("tcp").select("flow_id", *_FROM_TCP)
    return (
        capture.table("flows")
        .join(tcp, on="flow_id", how="left")
        .sort([pl.col("bytes_c2s") + pl.col("bytes_s2c"), "flow_id"], descending=[True, False])
        .select(column.name for column in _COLUMNS)
    )


REPORT = Report(
    name="conversations",
    title="Conversations",
    doc="The largest first. Handshake is the time until both sides had agreed on a TCP connection.",
    place=20,
    needs=("flows", "tcp"),
    columns=_COLUMNS,
    build=build,
    narrow=(
        *("proto", "client_ip", "client_port", "server_ip", "server_port", "handshake_rtt_ns"),
        *("bytes_c2s", "bytes_s2c", "duration_ns"),
    ),
)
