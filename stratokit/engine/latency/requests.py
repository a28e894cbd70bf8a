"""Everything that somebody waited for, in one form: requests of HTTP and gRPC, questions of DNS, handshakes.

A request has the frames in which it began and was complete, and those of its response. TCP handshakes have
none: they are told by `passing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols import dns
from stratokit.streams.ends import END_COLUMNS

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

ENDS = tuple(column.name for column in END_COLUMNS if column.name != "server_latency_ns")
_GOODBYE = "close_notify"
_ALL = (
    "kind", "flow_id", "stream_id", "ts", "end", "what", "method", "host", "path", "qname", "sni", "status",
    "outcome", "failed", "request_frame", "request_last_frame", "response_frame", "response_last_frame",
    *ENDS,
)  # fmt: skip


def requests(capture: Capture) -> pl.DataFrame:
    """A row for each; `end` is when it was over where no frame of the response tells."""
    parts = [_http(capture), _dns(capture), _tls(capture)]
    rows = pl.concat([part.collect() for part in parts], how="diagonal_relaxed")
    return rows.select(_ALL).with_columns(pl.col("ts").to_physical(), pl.col("end").cast(pl.Int64))


def _http(capture: Capture) -> pl.LazyFrame:
    calls = capture.built("grpc").select(
        "flow_id", "stream_id", "service", grpc_method="method", grpc="status_name"
    )
    rows = capture.built("http").filter(pl.col("request_frame").is_not_null())
    is_call = pl.col("service").is_not_null()
    return rows.join(calls, on=["flow_id", "stream_id"], how="left", maintain_order="left").select(
        "flow_id", "stream_id", "method", "host", "path", "status", "request_frame", "request_last_frame",
        "response_frame", "response_last_frame", *ENDS,
        pl.when(is_call).then(pl.lit("grpc")).otherwise(pl.lit("http")).alias("kind"),
        pl.col("ts_request").alias("ts"),
        pl.lit(None, pl.Int64).alias("end"),
        pl.when(is_call)
        .then(pl.format("{}/{}", "service", "grpc_method"))
        .otherwise(pl.format("{} {}{}", "method", pl.col("host").fill_null(""), "path"))
        .alias("what"),
        pl.when(is_call).then("grpc").otherwise(pl.col("status").cast(pl.String)).alias("outcome"),
        pl.when(is_call)
        .then(pl.col("grpc").ne_missing("OK"))
        .otherwise((pl.col("status") >= 400).fill_null(value=True))
        .alias("failed"),
    )  # fmt: skip


def _dns(capture: Capture) -> pl.LazyFrame:
    rows = capture.built("dns").filter(pl.col("query_frame").is_not_null())
    return rows.select(
        "flow_id", "qname", "outcome", *ENDS,
        pl.lit("dns").alias("kind"),
        pl.col("ts_query").alias("ts"),
        pl.lit(None, pl.Int64).alias("end"),
        pl.format("{} {}", "qname", "qtype_name").alias("what"),
        dns.FAILED.alias("failed"),
        request_frame="query_frame", request_last_frame="query_frame",
        response_frame="response_frame", response_last_frame="response_frame",
    )  # fmt: skip


def _tls(capture: Capture) -> pl.LazyFrame:
    rows = capture.built("tls").filter(pl.col("client_hello_frame").is_not_null())
    parted = pl.col("alert").is_null() | (pl.col("alert") == _GOODBYE)
    return rows.select(
        "flow_id", "sni", *ENDS,
        pl.lit("tls").alias("kind"),
        "ts",
        (pl.col("ts").to_physical() + pl.col("handshake_ns")).alias("end"),
        pl.coalesce("sni", pl.format("{}:{}", "server_ip", "server_port")).alias("what"),
        pl.coalesce("alert", "version").alias("outcome"),
        (~parted | pl.col("ts_server_hello").is_null()).alias("failed"),
        request_frame="client_hello_frame", request_last_frame="client_hello_frame",
        response_frame="server_hello_frame", response_last_frame=pl.lit(None, pl.UInt64),
    )  # fmt: skip
