"""Table `http_bodies`: bodies of HTTP/1 messages, decoded. Built only where it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols.base import Protocol
from stratokit.protocols.over_tcp import messages
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from stratokit.streams.source import PacketSource

TABLE = Table(
    "http_bodies",
    "a body of an HTTP/1 message, without chunks and decoded (gzip, deflate, br, zstd); at most 16 MiB each",
    (
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("ts", "time", "First byte of the message."),
        Column("side", "text", "request or response."),
        Column("method", "text", "Method of the request."),
        Column("host", "text", "Its field Host."),
        Column("path", "text", "Its target."),
        Column("status", "u16", "Status of the response."),
        Column("content_type", "text", "Content-Type of the message."),
        Column("content_encoding", "text", "Its Content-Encoding."),
        Column("sent_bytes", "u64", "Size without chunk framing, as sent.", "bytes"),
        Column("body", "bytes", "The body; null where it cannot be decoded."),
        Column("error", "text", "What is wrong with it: it is incomplete, too large or no such format."),
        Column(
            "first_frame", "u64", "Packet with the first byte of the message, as request_frame in `http`."
        ),
    ),
    (
        FilterField("http.request.method", ("method",), "Method of the request."),
        FilterField("http.host", ("host",), "Field Host of the request."),
        FilterField("http.request.uri", ("path",), "Target of the request."),
        FilterField("http.response.code", ("status",), "Status of the response."),
        FilterField("http.content_type", ("content_type",), "Content-Type of the message."),
        FilterField("http.file_data", ("body",), "The body."),
    ),
    costly=True,
)


def _rows(capture: PacketSource) -> pl.DataFrame:
    parts = messages(capture, TABLE.name)
    if not parts:
        return pl.DataFrame(schema=frame_schema(TABLE))
    return pl.concat(parts).sort("ts", "flow_id", maintain_order=True)


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `http_bodies` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


PROTOCOL = Protocol(
    "http_bodies",
    "bodies of HTTP/1 (RFC 9110 section 8.4, RFC 9112 section 7)",
    "as http",
    TABLE,
    build,
)
