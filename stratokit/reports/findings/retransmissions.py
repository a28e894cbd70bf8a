"""A peer to or from which segments had to be sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, address, counted, endpoint, finding

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST, _SHARE = 10, 0.01


def find(capture: Capture) -> pl.LazyFrame:
    """At least 10 segments between clients and a server's port, and one in a hundred, were sent again."""
    ends = capture.whole.table("flows").select(
        "flow_id",
        "server_ip",
        "server_port",
        "first_ts",
        "last_ts",
        packets=pl.col("packets_c2s") + pl.col("packets_s2c"),
    )
    again = pl.col("retransmissions") > 0
    return (
        capture.table("tcp")
        .join(ends, on="flow_id")
        .group_by("server_ip", "server_port")
        .agg(
            pl.col("first_ts").filter(again).min().alias("since"),
            pl.col("last_ts").filter(again).max().alias("until"),
            pl.col("retransmissions").sum().cast(pl.UInt64).alias("count"),
            pl.col("packets").sum().cast(pl.UInt64).alias("of"),
            pl.lit(None, pl.String).alias("frames"),
            connections=again.sum(),
        )
        .filter(pl.col("count") >= _LEAST, pl.col("count") >= _SHARE * pl.col("of"))
        .select(
            finding(
                "flows",
                endpoint("server_ip", "server_port"),
                pl.format(
                    "{} of {} packets between {} and its clients were sent again, in {}.",
                    "count",
                    "of",
                    endpoint("server_ip", "server_port"),
                    counted("connections", "connection"),
                ),
                pl.format("{} && tcp.dstport == {}", address("server_ip"), "server_port"),
            )
        )
    )


RULE = Rule("retransmissions", find.__doc__ or "", ("tcp", "flows"), find)
