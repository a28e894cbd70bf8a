"""Connections that a server refused, or never answered; of many ports or many hosts one finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, endpoint, evidence, finding, side

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST, _SHARE = 2, 0.1
_MANY = 10  # ports of a host, or hosts with the same port: a scan, or all of a host or a network is gone
# Zeek's states: a SYN that a RST answered, a SYN that nothing answered.
_STATES = {"REJ": "refused", "S0": "never answered"}


def _folded(rows: pl.LazyFrame) -> pl.LazyFrame:
    """One row where many ports of a host, or many hosts with a port, have the same trouble."""
    of_host, of_port = pl.col("of_host"), pl.col("of_port")
    return (
        rows.with_columns(of_host=pl.len().over("server_ip") >= _MANY)
        .with_columns(of_port=(~of_host).sum().over("server_port") >= _MANY)
        .with_columns(
            host=pl.when(of_host | ~of_port).then("server_ip"),
            port=pl.when(~of_host).then("server_port"),
        )
        .group_by("host", "port", maintain_order=True)
        .agg(
            pl.col("since").min(),
            pl.col("until").max(),
            pl.col("count", "of").sum(),
            pl.col("frames").first(),
            ports=pl.col("server_port").n_unique(),
            hosts=pl.col("server_ip").n_unique(),
        )
    )


def find(capture: Capture) -> pl.LazyFrame:
    """At least 2 connections to a server's port, and one in ten, were refused, or were never answered."""
    ends = capture.whole.table("flows").select("flow_id", "server_ip", "server_port")
    connections = capture.table("tcp").filter(pl.col("syn_ts").is_not_null()).join(ends, on="flow_id")
    whom = (
        pl.when(pl.col("host").is_null())
        .then(pl.format("port {} of {} hosts", "port", "hosts"))
        .when(pl.col("port").is_null())
        .then(pl.format("{} ports of {}", "ports", "host"))
        .otherwise(endpoint("host", "port"))
    )
    ports = pl.format("tcp.dstport == {} && ", "port").fill_null("")
    parts = []
    for state, words in _STATES.items():
        failed = (pl.col("conn_state") == state).fill_null(value=False)
        parts.append(
            connections.group_by("server_ip", "server_port")
            .agg(*evidence(failed, "syn_ts"))
            .filter(pl.col("count") > 0, pl.col("count") >= _SHARE * pl.col("of"))
            .sort("server_ip", "server_port")
            .pipe(_folded)
            .filter(pl.col("count") >= _LEAST)
            .select(
                finding(
                    "tcp",
                    whom,
                    pl.format("{} of {} connections to {} were {}.", "count", "of", whom, pl.lit(words)),
                    pl.format(
                        '{}{}tcp.connection.state == "{}"',
                        pl.format("{} == {} && ", side("dst", "host"), "host").fill_null(""),
                        ports,
                        pl.lit(state),
                    ),
                )
            )
        )
    return pl.concat(parts)


RULE = Rule("connect-failing", find.__doc__ or "", ("tcp", "flows"), find)
