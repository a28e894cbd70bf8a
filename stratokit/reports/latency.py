"""Latency at a glance: how long each layer kept its user waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.tables import entries
from stratokit.reports import tcp
from stratokit.reports.base import SPREAD, Options, Report, count, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

# What is waited for, the table, its duration, and what counts as failed. Order of a request's own steps.
STEPS = (
    ("DNS answer", "dns", "latency_ns", (pl.col("rcode") != 0).fill_null(value=True)),
    ("TCP handshake", "tcp", "handshake_rtt_ns", tcp.failed()),
    ("TLS handshake", "tls", "handshake_ns", pl.col("alert").is_not_null()),
    ("HTTP response", "http", "latency_ns", (pl.col("status") >= 400).fill_null(value=True)),
)


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a layer that occurred."""
    rows = [
        capture.table(table).select(
            pl.lit(title).alias("waiting_for"),
            pl.len().cast(pl.UInt64).alias("count"),
            count(failed).alias("errors"),
            *spread(pl.col(duration)),
        )
        for title, table, duration, failed in STEPS
        if table in entries()
    ]
    return pl.concat(rows).filter(pl.col("count") > 0)


REPORT = Report(
    name="latency",
    title="Latency",
    doc="How long each layer kept its user waiting.",
    place=70,
    needs=("dns", "tcp", "http", "tls"),
    columns=(
        Column("waiting_for", "text", "What was waited for."),
        Column("count", "u64", "How often."),
        Column("errors", "u64", "How often in vain."),
        *SPREAD,
    ),
    build=build,
)
