"""Requests that wait because an earlier one on the same connection is not done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, address, counted, endpoint, evidence, finding

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_WAIT_NS = 20_000_000
_LEAST = 3


def find(capture: Capture) -> pl.LazyFrame:
    """At least 3 requests to a server waited 20 ms or more for earlier responses of their connection.

    HTTP/1.1 answers in order; in HTTP/2 streams stand still while a window of the connection is closed.
    """
    done = pl.col("ts_response") + pl.duration(nanoseconds="transfer_ns")
    before = done.cum_max().shift(1).over("flow_id", order_by="ts_request")
    behind = pl.when(pl.col("stream_id").is_null()).then(
        (before - pl.col("ts_request")).dt.total_nanoseconds()
    )
    stalled = pl.max_horizontal("request_stall_ns", "response_stall_ns")
    waited = pl.max_horizontal(behind.clip(0), stalled)
    return (
        capture.table("http")
        .filter(pl.col("ts_request").is_not_null(), pl.col("server_ip").is_not_null())
        .with_columns(waited=waited)
        .group_by("server_ip", "server_port")
        .agg(
            *evidence((pl.col("waited") >= _WAIT_NS).fill_null(value=False), "ts_request", "request_frame"),
            worst=pl.col("waited").max() // 1_000_000,
            connections=pl.col("flow_id").filter(pl.col("waited") >= _WAIT_NS).n_unique(),
        )
        .filter(pl.col("count") >= _LEAST)
        .select(
            finding(
                "http",
                endpoint("server_ip", "server_port"),
                pl.format(
                    "{} of {} requests to {} waited for earlier responses of their connection, {} ms at "
                    "most, in {}.",
                    "count",
                    "of",
                    endpoint("server_ip", "server_port"),
                    "worst",
                    counted("connections", "connection"),
                ),
                pl.format("{} && tcp.dstport == {}", address("server_ip"), "server_port"),
            )
        )
    )


RULE = Rule("head-of-line", find.__doc__ or "", ("http",), find)
