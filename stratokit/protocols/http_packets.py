"""Which packets have which fields of HTTP/1: as in Wireshark, the one that completes a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols import http
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, PacketFields, Table
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from stratokit.streams.source import PacketSource

_REQUEST = ("method", "path", "version", "user_agent")
_RESPONSE = ("status", "content_type", "content_encoding")

TABLE = Table(
    "http",
    "an HTTP/1 request or response",
    (
        Column("frame", "u64", "Packet that completed it."),
        Column("is_request", "bool", "True for a request, else null."),
        Column("is_response", "bool", "True for a response, else null."),
        *(c for c in http.TABLE.columns if c.name in (*_REQUEST, "host", *_RESPONSE)),
        Column("time_ns", "s64", "For a response, from the completed request to its last byte.", "ns"),
        Column("uri", "text", "Target of the request with its host."),
        Column("request_frame", "u64", "For a response, packet that completed the request."),
        Column("response_frame", "u64", "For a request, packet that completed the response."),
    ),
    (
        FilterField("http.request", ("is_request",), "True for requests."),
        FilterField("http.response", ("is_response",), "True for responses."),
        *(field for field in http.TABLE.fields if set(field.columns) <= {*_REQUEST, "host", *_RESPONSE}),
        FilterField("http.content_type", ("content_type",), "Field Content-Type."),
        FilterField("http.time", ("time_ns",), "From the request's to the response's last byte."),
        FilterField("http.request.full_uri", ("uri",), "Target of the request with its host."),
        FilterField("http.request_in", ("request_frame",), "Packet of the request to this response."),
        FilterField("http.response_in", ("response_frame",), "Packet of the response to this request."),
    ),
)


def _scheme(capture: PacketSource) -> pl.Expr:
    """That of the URI: https in conversations that secrets opened."""
    plain = pl.lit("http")
    if not getattr(capture, "secrets", None):
        return plain
    from stratokit.protocols import tls

    opened = tls.build(capture).filter("decrypted").select("flow_id").collect()["flow_id"]
    return pl.when(pl.col("flow_id").is_in(opened.implode())).then(pl.lit("https")).otherwise(plain)


def _messages(capture: PacketSource) -> pl.DataFrame:
    rows = http.build(capture).filter(pl.col("stream_id").is_null()).collect()  # HTTP/2 has streams
    is_path = pl.col("path").str.contains("^[/*]")
    uri = pl.when(is_path).then(pl.format("{}://{}{}", _scheme(capture), "host", "path")).otherwise("path")
    uri = pl.when(pl.col("host").is_not_null()).then(uri)
    requests = rows.filter(pl.col("request_last_frame").is_not_null()).select(
        *_REQUEST,
        "host",
        content_type="request_content_type",
        frame="request_last_frame",
        is_request=pl.lit(value=True),
        uri=uri,
        response_frame="response_last_frame",
    )
    responses = rows.filter(pl.col("response_last_frame").is_not_null()).select(
        *_RESPONSE,
        frame="response_last_frame",
        is_response=pl.lit(value=True),
        time_ns=pl.col("wait_ns") + pl.col("transfer_ns"),
        request_frame="request_last_frame",
    )
    return pl.concat([requests, responses], how="diagonal")


def build(capture: PacketSource) -> pl.LazyFrame:
    """Messages, requests before responses."""
    return deferred(frame_schema(TABLE), lambda: _messages(capture))


PACKET_FIELDS = PacketFields(TABLE, build)
