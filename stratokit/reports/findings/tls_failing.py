"""TLS handshakes that ended with an alert."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, address, endpoint, evidence, finding

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST, _SHARE = 2, 0.1
_GOODBYE = "close_notify"


def find(capture: Capture) -> pl.LazyFrame:
    """At least 2 handshakes with a server, and one in ten, ended with the same alert."""
    parted = (pl.col("alert") == _GOODBYE).fill_null(value=False)
    handshakes = capture.table("tls").filter(pl.col("server_ip").is_not_null())
    alerts = (
        handshakes.filter(pl.col("alert").is_not_null() & ~parted)
        .group_by("server_ip", "server_port", "alert")
        .agg(
            *evidence(pl.col("alert").is_not_null(), "ts", "client_hello_frame"),
            by=pl.col("alert_by").mode().first(),
        )
        .drop("of")
    )
    whole = handshakes.group_by("server_ip", "server_port").agg(of=pl.len().cast(pl.UInt64))
    return (
        alerts.join(whole, on=["server_ip", "server_port"])
        .filter(pl.col("count") >= _LEAST, pl.col("count") >= _SHARE * pl.col("of"))
        .select(
            finding(
                "tls",
                endpoint("server_ip", "server_port"),
                pl.format(
                    "{} of {} TLS handshakes with {} failed: the {} said {}.",
                    "count",
                    "of",
                    endpoint("server_ip", "server_port"),
                    "by",
                    "alert",
                ),
                pl.format(
                    '{} && tcp.dstport == {} && tls.alert_message.desc == "{}"',
                    address("server_ip"),
                    "server_port",
                    "alert",
                ),
            )
        )
    )


RULE = Rule("tls-failing", find.__doc__ or "", ("tls",), find)
