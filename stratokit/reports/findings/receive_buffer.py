"""Packets for a process that does not read them as fast as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, evidence, finding

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

# What the kernel calls it when the receive buffer of a socket, its backlog or its accept queue is full.
_FULL = {
    "SOCKET_RCVBUFF": "its receive buffer was full",
    "SOCKET_BACKLOG": "its backlog was full",
    "TCP_LISTEN_OVERFLOW": "its queue of new connections was full",
}


def find(capture: Capture) -> pl.LazyFrame:
    """The kernel dropped packets for a process because a queue of its socket was full."""
    full = pl.col("drop_reason").is_in(list(_FULL))
    who = pl.when(pl.col("pid").is_not_null()).then(pl.format("{} (pid {})", "comm", "pid"))
    socket = pl.format("the socket at port {}", pl.col("dst_port"))
    return (
        capture.table("drops")
        .filter(full)
        .group_by("drop_reason", "pid", "process_start", "dst_port")
        .agg(*evidence(full, "ts"), pl.col("comm").drop_nulls().last())
        .with_columns(who=pl.coalesce(who, socket, pl.lit("a socket")))
        .select(
            finding(
                "drops",
                pl.col("who"),
                pl.format(
                    "{} lost {} packets at port {} because {}.",
                    "who",
                    "count",
                    pl.col("dst_port").cast(pl.String).fill_null("?"),
                    pl.col("drop_reason").replace_strict(_FULL, return_dtype=pl.String),
                ),
                pl.format(
                    'drop.reason == "{}"{}',
                    "drop_reason",
                    pl.when(pl.col("pid").is_not_null())
                    .then(pl.format(" && proc.pid == {}", "pid"))
                    .otherwise(pl.lit("")),
                ),
            )
        )
    )


RULE = Rule("receive-buffer", find.__doc__ or "", ("drops",), find)
