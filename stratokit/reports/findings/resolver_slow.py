"""A resolver whose answers keep applications waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols import dns
from stratokit.reports.findings.base import Rule, address, endpoint, evidence, finding

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_SLOW_NS = 100_000_000
_LEAST, _SHARE = 3, 0.1


def find(capture: Capture) -> pl.LazyFrame:
    """At least 3 answers of a resolver, and one in ten, took 100 ms or more."""
    slow = (pl.col("latency_ns") >= _SLOW_NS).fill_null(value=False)
    return (
        capture.table("dns")
        .filter(pl.col("latency_ns").is_not_null(), pl.col("server_ip").is_not_null(), ~dns.TO_GROUP)
        .group_by("server_ip", "server_port")
        .agg(*evidence(slow, "ts_query", "query_frame"), worst=pl.col("latency_ns").max() // 1_000_000)
        .filter(pl.col("count") >= _LEAST, pl.col("count") >= _SHARE * pl.col("of"))
        .select(
            finding(
                "dns",
                endpoint("server_ip", "server_port"),
                pl.format(
                    "The resolver {} took 100 ms or more for {} of {} answers, {} ms at most.",
                    endpoint("server_ip", "server_port"),
                    "count",
                    "of",
                    "worst",
                ),
                pl.format("{} && udp.port == {} && dns.time >= 100ms", address("server_ip"), "server_port"),
            )
        )
    )


RULE = Rule("resolver-slow", find.__doc__ or "", ("dns",), find)
