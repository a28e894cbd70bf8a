"""A connection for each request where one would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, endpoint, evidence, finding, folded, side

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST, _SHARE = 20, 0.8


def find(capture: Capture) -> pl.LazyFrame:
    """At least 20 connections of a client to a server's port, and four in five, carried one request."""
    single = pl.col("requests") == 1
    often = (pl.col("count") >= _LEAST) & (pl.col("count") >= _SHARE * pl.col("of"))
    several = pl.col("clients") > 1
    return (
        capture.table("http")
        .filter(pl.col("client_ip").is_not_null(), pl.col("ts_request").is_not_null())
        .group_by("flow_id", "client_ip", "server_ip", "server_port")
        .agg(pl.len().alias("requests"), pl.col("ts_request").min(), pl.col("request_frame").min())
        .group_by("client_ip", "server_ip", "server_port")
        .agg(*evidence(single, "ts_request", "request_frame"))
        .pipe(folded("client_ip", ("server_ip", "server_port"), often))
        .select(
            finding(
                "http",
                pl.when(several).then(endpoint("server_ip", "server_port")).otherwise("client_ip"),
                pl.format(
                    "{} opened {} of {} connections to {} for one request each: without keep-alive every "
                    "request waits for a handshake.",
                    pl.when(several)
                    .then(pl.format("{} clients, {} most often,", "clients", "client_ip"))
                    .otherwise("client_ip"),
                    "count",
                    "of",
                    endpoint("server_ip", "server_port"),
                ),
                pl.format(
                    "{}{} == {} && tcp.dstport == {}",
                    pl.when(several)
                    .then(pl.lit(""))
                    .otherwise(pl.format("{} == {} && ", side("src", "client_ip"), "client_ip")),
                    side("dst", "server_ip"),
                    "server_ip",
                    "server_port",
                ),
            )
        )
    )


RULE = Rule("churn", find.__doc__ or "", ("http",), find)
