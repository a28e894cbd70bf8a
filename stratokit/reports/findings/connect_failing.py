"""Connections that a server refused, or never answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, address, endpoint, evidence, finding

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST, _SHARE = 2, 0.1
# Zeek's states: a SYN that a RST answered, a SYN that nothing answered.
_STATES = {"REJ": "refused", "S0": "never answered"}


def find(capture: Capture) -> pl.LazyFrame:
    """At least 2 connections to a server's port, and one in ten, were refused, or were never answered."""
    ends = capture.whole.table("flows").select("flow_id", "server_ip", "server_port")
    connections = capture.table("tcp").filter(pl.col("syn_ts").is_not_null()).join(ends, on="flow_id")
    parts = []
    for state, words in _STATES.items():
        failed = (pl.col("conn_state") == state).fill_null(value=False)
        parts.append(
            connections.group_by("server_ip", "server_port")
            .agg(*evidence(failed, "syn_ts"))
            .filter(pl.col("count") >= _LEAST, pl.col("count") >= _SHARE * pl.col("of"))
            .select(
                finding(
                    "tcp",
                    endpoint("server_ip", "server_port"),
                    pl.format(
                        "{} of {} connections to {} were {}.",
                        "count",
                        "of",
                        endpoint("server_ip", "server_port"),
                        pl.lit(words),
                    ),
                    pl.format(
                        '{} && tcp.dstport == {} && tcp.connection.state == "{}"',
                        address("server_ip"),
                        "server_port",
                        pl.lit(state),
                    ),
                )
            )
        )
    return pl.concat(parts)


RULE = Rule("connect-failing", find.__doc__ or "", ("tcp", "flows"), find)
