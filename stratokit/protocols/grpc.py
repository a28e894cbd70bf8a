"""gRPC over HTTP/2 without TLS (the protocol as documented in grpc/doc/PROTOCOL-HTTP2.md): a row a call.

Implemented: service and method of the path, status and message of the trailers, deadlines, messages and their
bytes by direction, calls that were reset. Left out: messages themselves, gRPC-Web.
"""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols import http2_packets
from stratokit.protocols.base import Protocol
from stratokit.protocols.over_tcp import messages, sighted
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, PacketFields, Table
from stratokit.streams.ends import END_COLUMNS, with_ends
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from stratokit.streams.source import PacketSource

STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

_UNITS_NS = {
    "H": 3_600_000_000_000,
    "M": 60_000_000_000,
    "S": 1_000_000_000,
    "m": 1_000_000,
    "u": 1000,
    "n": 1,
}

TABLE = Table(
    "grpc",
    "a gRPC call",
    (
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("stream_id", "u32", "Its stream of HTTP/2."),
        Column("ts_request", "time", "First byte of the call."),
        Column("ts_response", "time", "First byte of the answer's header."),
        Column("service", "text", "Service with its package, as demo.Echo."),
        Column("method", "text", "Method of the service."),
        Column("host", "text", "Field :authority."),
        Column("status", "u16", "grpc-status; null where no trailers were captured."),
        Column("status_name", "text", "OK, CANCELLED, ..."),
        Column("message", "text", "grpc-message, decoded."),
        Column("http_status", "u16", "Status of the HTTP response."),
        Column("reset", "text", "Error code with which the stream was reset, as CANCEL."),
        Column("reset_by", "text", "Who reset it: client or server."),
        Column("deadline_ns", "s64", "grpc-timeout: how long the client was willing to wait.", "ns"),
        Column("request_messages", "u64", "Messages from client to server; null where some are missing."),
        Column("response_messages", "u64", "Messages from server to client; null where some are missing."),
        Column("request_message_bytes", "u64", "Sum of their sizes, as sent.", "bytes"),
        Column("response_message_bytes", "u64", "Sum of their sizes, as sent.", "bytes"),
        Column("latency_ns", "s64", "From the first byte of the call to the first of the answer.", "ns"),
        Column("duration_ns", "s64", "From the first byte of the call to the last of the answer.", "ns"),
        Column("request_frame", "u64", "Packet with the first byte of the call."),
        Column("response_frame", "u64", "Packet with the first byte of the answer."),
        Column("response_last_frame", "u64", "Packet that completed it."),
        *END_COLUMNS,
    ),
    (
        FilterField("grpc.service", ("service",), "Service with its package."),
        FilterField("grpc.method", ("method",), "Method of the service."),
        FilterField("grpc.status_code", ("status",), "grpc-status."),
        FilterField("grpc.time", ("latency_ns",), "From the call's to the answer's first byte."),
    ),
)


def _rows(capture: PacketSource) -> pl.DataFrame:
    parts = messages(capture, "grpc")
    if not parts:
        return pl.DataFrame(schema=frame_schema(TABLE))
    path = pl.col("path").str.extract_groups(r"^/?(?:(?<service>.*)/)?(?<method>[^/]*)$")
    timeout = pl.col("grpc_timeout").str.extract_groups(r"^(?<value>\d{1,8})(?<unit>[HMSmun])$").struct
    scale = timeout["unit"].replace_strict(_UNITS_NS, default=None, return_dtype=pl.Int64)
    names = dict(enumerate(STATUSES))
    rows = (
        pl.concat(parts)
        .with_columns(
            http_status="status",
            status=pl.col("grpc_status").str.to_integer(strict=False, dtype=pl.Int64),
            service=path.struct["service"],
            method=path.struct["method"],
            message=_decoded(),
            deadline_ns=timeout["value"].str.to_integer(strict=False) * scale,
            latency_ns=pl.col("ts_response") - pl.col("ts_request"),
            duration_ns=pl.col("ts_response_last") - pl.col("ts_request"),
            **{
                f"{side}_{what}": pl.when(pl.col(f"{side}_messages") >= 0).then(f"{side}_{what}")
                for side in ("request", "response")
                for what in ("message_bytes", "messages")
            },
        )
        .with_columns(
            pl.when(pl.col("status").is_between(0, 0xFFFF)).then("status").alias("status"),
            status_name=pl.col("status").replace_strict(names, default=None, return_dtype=pl.String),
        )
        .sort(pl.coalesce("ts_request", "ts_response"), "flow_id", maintain_order=True)
        .cast({"request_frame": pl.UInt64, "response_frame": pl.UInt64})
    )
    return with_ends(rows, sighted(capture, "grpc"), "request_frame", "response_frame")


def _decoded() -> pl.Expr:
    """grpc-message is percent-encoded; there are few different ones."""
    message = pl.col("grpc_message")
    plain = message.str.contains("%", literal=True).not_()
    decoded = message.map_batches(
        lambda texts: texts.replace_strict(
            {t: urllib.parse.unquote(t) for t in texts.drop_nulls().unique()},
            default=None,
            return_dtype=pl.String,
        ),
        return_dtype=pl.String,
    )
    return pl.when(plain).then(message).otherwise(decoded)


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `grpc` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


PROTOCOL = Protocol(
    "grpc",
    "gRPC over HTTP/2 without TLS",
    "a Content-Type that begins with application/grpc",
    TABLE,
    build,
)
PACKET_FIELDS = PacketFields(http2_packets.GRPC_TABLE, http2_packets.build_grpc)
