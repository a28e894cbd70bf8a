"""HTTP/1.0, HTTP/1.1 and HTTP/2: a row for each request and its response.

How the messages are read is in `http1` and `http2`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols.base import Protocol
from stratokit.protocols.over_tcp import messages, sighted
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.ends import END_COLUMNS, with_ends
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from stratokit.streams.source import PacketSource

TABLE = Table(
    "http",
    "an HTTP request and its response; a part that was not captured is null",
    (
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("ts_request", "time", "First byte of the request."),
        Column("ts_response", "time", "First byte of the final response."),
        Column("version", "text", "Version of the request: HTTP/1.0, HTTP/1.1 or HTTP/2."),
        Column("method", "text", "GET, POST, ..."),
        Column("host", "text", "Field Host, or :authority."),
        Column("path", "text", "Target of the request as sent, with its query."),
        Column("status", "u16", "Status code."),
        Column("request_bytes", "u64", "Head and body of the request on the stream.", "bytes"),
        Column("response_bytes", "u64", "Head and body of the response on the stream.", "bytes"),
        Column("request_body_bytes", "u64", "Body of the request without chunk framing.", "bytes"),
        Column("response_body_bytes", "u64", "Body of the response without chunk framing.", "bytes"),
        Column("user_agent", "text", "Field User-Agent."),
        Column("content_type", "text", "Field Content-Type of the response."),
        Column("content_encoding", "text", "Field Content-Encoding of the response."),
        Column("latency_ns", "s64", "From the first byte of the request to the first of the response.", "ns"),
        Column(
            "wait_ns",
            "s64",
            "From the request's completion to the first byte of the response; negative when it came early.",
            "ns",
        ),
        Column("transfer_ns", "s64", "From the first byte of the response to its completion.", "ns"),
        Column("request_frame", "u64", "Packet with the first byte of the request."),
        Column("request_last_frame", "u64", "Packet that completed it."),
        Column("response_frame", "u64", "Packet with the first byte of the response."),
        Column("response_last_frame", "u64", "Packet that completed it."),
        Column("request_cut", "bool", "Bytes of the request are missing from the capture."),
        Column("response_cut", "bool", "Bytes of the response are missing from the capture."),
        Column("stream_id", "u32", "Stream of HTTP/2; null for HTTP/1."),
        Column("reset", "text", "Error code with which the stream was reset, as CANCEL."),
        Column("reset_by", "text", "Who reset it: client or server."),
        Column(
            "request_stall_ns", "s64", "How long windows of HTTP/2 kept the client from sending on.", "ns"
        ),
        Column("response_stall_ns", "s64", "How long they kept the server from sending on.", "ns"),
        Column("request_content_type", "text", "Field Content-Type of the request."),
        *END_COLUMNS,
    ),
    (
        FilterField("http.request.method", ("method",), "Method of the request."),
        FilterField("http.request.uri", ("path",), "Target of the request."),
        FilterField("http.request.version", ("version",), "Version of the request."),
        FilterField("http.host", ("host",), "Field Host."),
        FilterField("http.user_agent", ("user_agent",), "Field User-Agent."),
        FilterField("http.response.code", ("status",), "Status code of the response."),
        FilterField(
            "http.content_type", ("content_type", "request_content_type"), "Field Content-Type, of either."
        ),
        FilterField("http.content_encoding", ("content_encoding",), "Its Content-Encoding."),
        FilterField("http2.streamid", ("stream_id",), "Stream of HTTP/2."),
        FilterField("http2.rst_stream.error", ("reset",), "Error code with which the stream was reset."),
        FilterField("http.time", ("latency_ns",), "From the request's to the response's first byte."),
    ),
)

_OF_RESPONSE = (
    "ts_response", "ts_response_last", "response_frame", "response_last_frame", "response_bytes",
    "response_body_bytes", "response_cut", "content_type", "content_encoding", "response_stall_ns", "reset",
    "reset_by",
)  # fmt: skip


def _rows(capture: PacketSource) -> pl.DataFrame:
    parts = messages(capture, "http")
    if not parts:
        return pl.DataFrame(schema=frame_schema(TABLE))
    start, end = pl.col("ts_request"), pl.col("ts_response")
    fold = r"[ \t]*\r?\n[ \t]+"  # obs-fold means one blank (RFC 9112 section 5.2)
    texts = pl.col("host", "user_agent", "content_type", "content_encoding", "request_content_type")
    rows = _with_upgraded(pl.concat(parts, how="diagonal_relaxed")).with_columns(
        texts.str.replace_all(fold, " "),
        latency_ns=end - start,
        wait_ns=end - pl.col("ts_request_last"),
        transfer_ns=pl.col("ts_response_last") - end,
    )
    rows = rows.sort(pl.coalesce(start, end), "flow_id", maintain_order=True)
    rows = rows.cast({"request_frame": pl.UInt64, "response_frame": pl.UInt64})
    return with_ends(rows, sighted(capture, "http"), "request_frame", "response_frame")


def _with_upgraded(rows: pl.DataFrame) -> pl.DataFrame:
    """A request that upgraded to HTTP/2 is answered on stream 1 (RFC 7540 section 3.2): 101 was interim."""
    if "stream_id" not in rows.columns or "upgrade" not in rows.columns:
        return rows
    asked = (pl.col("status") == 101) & (pl.col("upgrade") == "h2c")
    answers = pl.col("stream_id").eq(1) & pl.col("method").is_null() & pl.col("status").is_not_null()
    answered = rows.filter(answers).select("flow_id", "stream_id", "status", *_OF_RESPONSE)
    upgraded = rows.filter(asked).drop("stream_id", "status", *_OF_RESPONSE)
    merged = upgraded.join(answered, on="flow_id", how="inner", maintain_order="left")
    done = pl.col("flow_id").is_in(merged["flow_id"].implode())
    return pl.concat(
        [rows.filter((done & (asked | answers)).not_().fill_null(value=True)), merged], how="diagonal"
    )


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `http` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


PROTOCOL = Protocol(
    "http",
    "HTTP/1.0 and HTTP/1.1 (RFC 9110, 9112), HTTP/2 without TLS (RFC 9113)",
    "a request line among the first bytes of the client, or a status line as the first bytes of the server; "
    "for HTTP/2 see http2",
    TABLE,
    build,
)
