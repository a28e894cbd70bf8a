"""Latency: how long each layer kept its user waiting, and in which part of it the time went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols import dns
from stratokit.reports import tcp
from stratokit.reports.base import Options, Report, count
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

# What is waited for, the table, its duration, and what counts as failed. Order of a request's own steps.
STEPS = (
    ("DNS answer", "dns", "latency_ns", dns.FAILED),
    ("TCP handshake", "tcp", "handshake_rtt_ns", tcp.failed()),
    ("TLS handshake", "tls", "handshake_ns", pl.col("alert").is_not_null()),
    ("HTTP response", "http", "latency_ns", (pl.col("status") >= 400).fill_null(value=True)),
)
# The table `latency` tells gRPC calls from other requests.
_KINDS = {
    "dns": "DNS answer",
    "tcp": "TCP handshake",
    "tls": "TLS handshake",
    "http": "HTTP response",
    "grpc": "gRPC call",
}
WHOLE = "all of it"
# How a reader calls the parts, in order of time.
WORDS = {
    "name_ns": "name look-up",
    "connect_ns": "connecting",
    "tls_ns": "TLS handshake",
    "client_ns": "client, before the request",
    "request_ns": "sending the request",
    "network_to_ns": "network to the server",
    "server_buffer_ns": "server's socket buffer",
    "app_ns": "application",
    "upstream_ns": "application's own calls",
    "server_ns": "server, all together",
    "response_ns": "sending the response",
    "network_back_ns": "network back",
    "client_buffer_ns": "client's socket buffer",
    "transfer_ns": "transfer of the rest",
    "rest_ns": "unknown",
}
_SHARES = {"p50_ns": 0.5, "p90_ns": 0.9, "p95_ns": 0.95, "p99_ns": 0.99, "p999_ns": 0.999}


def _spread(duration: str) -> list[pl.Expr]:
    column = pl.col(duration)
    shares = (column.quantile(q, "equiprobable").cast(pl.Int64).alias(name) for name, q in _SHARES.items())
    return [*shares, column.max().cast(pl.Int64).alias("max_ns"), column.sum().cast(pl.Int64).alias("sum_ns")]


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """A row for each layer that occurred, then one for each part that is known, most time first."""
    layers = [
        capture.table(table).select(
            pl.lit(title).alias("waiting_for"),
            pl.lit(WHOLE).alias("part"),
            pl.len().cast(pl.UInt64).alias("count"),
            count(failed).alias("errors"),
            *_spread(duration),
        )
        for title, table, duration, failed in STEPS
    ]
    requests = capture.table("latency").with_columns(
        waiting_for=pl.col("kind").replace_strict(_KINDS, return_dtype=pl.String)
    )
    calls = (
        requests.filter(kind="grpc")
        .group_by("waiting_for")
        .agg(
            pl.lit(WHOLE).alias("part"),
            pl.len().cast(pl.UInt64).alias("count"),
            count(pl.col("failed")).alias("errors"),
            *_spread("total_ns"),
        )
    )
    parts = [
        requests.filter(pl.col(part) > 0 if part == "rest_ns" else pl.col(part).is_not_null())
        .group_by("waiting_for")
        .agg(
            pl.lit(word).alias("part"),
            pl.len().cast(pl.UInt64).alias("count"),
            count(pl.col("failed")).alias("errors"),
            *_spread(part),
        )
        for part, word in WORDS.items()
    ]
    totals = requests.group_by("waiting_for").agg(total_ns=pl.col("total_ns").sum())
    layer = {word: k for k, word in enumerate(_KINDS.values())}
    is_part = pl.col("part") != WHOLE
    return (
        pl.concat([*layers, calls, *parts])
        .filter(pl.col("count") > 0)
        .join(totals, on="waiting_for", how="left")
        .with_columns(
            share=pl.when(is_part & (pl.col("total_ns") > 0)).then(pl.col("sum_ns") / pl.col("total_ns")),
            layer=pl.col("waiting_for").replace_strict(layer, return_dtype=pl.Int64),
        )
        .sort(is_part, pl.when(is_part).then(-pl.col("sum_ns")), "layer", "part", nulls_last=True)
        .select(column.name for column in _COLUMNS)
    )


_COLUMNS = (
    Column("waiting_for", "text", "What was waited for."),
    Column("part", "text", "Part of it (docs/latency.md), or all of it."),
    Column("count", "u64", "How often; for a part, how often it is known."),
    Column("errors", "u64", "How often in vain."),
    Column("share", "f64", "Share of all time that was waited so."),
    Column("p50_ns", "s64", "Half took at most this long.", "ns"),
    Column("p90_ns", "s64", "Nine of ten took at most this long.", "ns"),
    Column("p95_ns", "s64", "19 of 20 took at most this long.", "ns"),
    Column("p99_ns", "s64", "99 of 100 took at most this long.", "ns"),
    Column("p999_ns", "s64", "999 of 1000 took at most this long.", "ns"),
    Column("max_ns", "s64", "The longest.", "ns"),
)

REPORT = Report(
    name="latency",
    title="Latency",
    doc="How long each layer kept its user waiting, and in which part of it the time went.",
    place=70,
    needs=("dns", "tcp", "http", "tls", "latency"),
    columns=_COLUMNS,
    build=build,
    narrow=("waiting_for", "part", "count", "errors", "share", "p50_ns", "p99_ns", "max_ns"),
)
