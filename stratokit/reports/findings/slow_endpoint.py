"""One endpoint of a host that is much slower than the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, evidence, finding, quoted

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST = 3
_SLOW_NS, _TIMES = 20_000_000, 5


def find(capture: Capture) -> pl.LazyFrame:
    """Half of at least 3 requests of an endpoint took 20 ms and 5 times as long as half of all requests."""
    requests = capture.table("http").filter(pl.col("latency_ns").is_not_null(), pl.col("host").is_not_null())
    endpoint = pl.col("path").str.splitn("?", 2).struct.field("field_0")
    usual = requests.select(usual=pl.col("latency_ns").median())
    return (
        requests.with_columns(endpoint=endpoint)
        .group_by("host", "endpoint")
        .agg(
            *evidence(pl.col("latency_ns").is_not_null(), "ts_request", "request_frame"),
            half=pl.col("latency_ns").median(),
        )
        .join(usual, how="cross")
        .filter(
            pl.col("count") >= _LEAST, pl.col("half") >= _SLOW_NS, pl.col("half") >= _TIMES * pl.col("usual")
        )
        .with_columns(with_query=pl.col("endpoint") + "?")
        .select(
            finding(
                "http",
                pl.format("{}{}", "host", "endpoint"),
                pl.format(
                    "{}{} kept {} requests waiting, half of them {} ms or more; half of all take {} ms.",
                    "host",
                    "endpoint",
                    "count",
                    (pl.col("half") / 1e6).round(1),
                    (pl.col("usual") / 1e6).round(1),
                ),
                pl.format(
                    "http.time && http.host == {} && "
                    "(http.request.uri == {} || http.request.uri[0:{}] == {})",
                    quoted("host"),
                    quoted("endpoint"),
                    pl.col("with_query").str.len_chars(),
                    quoted("with_query"),
                ),
            )
        )
    )


RULE = Rule("slow-endpoint", find.__doc__ or "", ("http",), find)
