"""Who calls whom: how often, how slow, how often in vain, and how much goes over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import SPREAD, Options, Report, count, spread
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_KEY = ("client", "server", "server_port", "proto")
_REQUESTS = ("http", "grpc", "dns")


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a pair of services, those whose callers waited longest all together first."""
    named = capture.table("flows").filter(pl.col("server_port").is_not_null()).select(
        "flow_id", "server_port", "proto",
        client=pl.coalesce("pod", "comm", "client_ip"),
        server=pl.coalesce("server_pod", "server_comm", "server_ip"),
        bytes=pl.col("bytes_c2s") + pl.col("bytes_s2c"),
    )  # fmt: skip
    pairs = named.group_by(_KEY).agg(
        pl.len().cast(pl.UInt64).alias("connections"), pl.col("bytes").sum().cast(pl.UInt64)
    )
    asked = (
        capture.table("latency")
        .filter(pl.col("kind").is_in(_REQUESTS))
        .select("flow_id", "total_ns", "failed")
        .join(named, on="flow_id")
        .group_by(_KEY)
        .agg(
            pl.len().cast(pl.UInt64).alias("requests"),
            count(pl.col("failed")).alias("errors"),
            *spread(pl.col("total_ns")),
            pl.col("total_ns").sum().alias("waited_ns"),
        )
    )
    return (
        pairs.join(asked, on=_KEY, how="left", nulls_equal=True)
        .with_columns(pl.col("requests", "errors").fill_null(0))
        .sort("waited_ns", "bytes", *_KEY, descending=[True, True, *[False] * len(_KEY)], nulls_last=True)
        .select(column.name for column in _COLUMNS)
    )


_COLUMNS = (
    Column("client", "text", "Who calls: pod, else process, else address."),
    Column("server", "text", "Who is called, likewise."),
    Column("server_port", "u16", "Port of the server."),
    Column("proto", "name", "Transport protocol."),
    Column("connections", "u64", "Conversations."),
    Column("requests", "u64", "Requests of HTTP and gRPC, questions of DNS."),
    Column("errors", "u64", "Requests that failed or had no response."),
    *SPREAD,
    Column("bytes", "u64", "Bytes of their packets.", "bytes"),
)
REPORT = Report(
    name="services",
    title="Who calls whom",
    doc="By pod or process; times are those of whole requests, from the first that was waited for.",
    place=15,
    needs=("flows", "latency"),
    columns=_COLUMNS,
    build=build,
    narrow=("client", "server", "server_port", "requests", "errors", "p50_ns", "p99_ns", "max_ns", "bytes"),
)
