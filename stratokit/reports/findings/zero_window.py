"""A receiver that takes no more data, because its application does not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, address, endpoint, finding

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST_NS = 200_000_000
# Who did not read, the time in which the other side's data could not go on, and what said so.
_SIDES = (
    ("server", "zero_window_c2s_ns", "zero_windows_s2c", "the clients wait"),
    ("client", "zero_window_s2c_ns", "zero_windows_c2s", "the server waits"),
)


def find(capture: Capture) -> pl.LazyFrame:
    """A server's port, or its clients, took no more data for 200 ms or more, all connections together."""
    ends = capture.whole.table("flows").select("flow_id", "server_ip", "server_port", "first_ts", "last_ts")
    connections = capture.table("tcp").join(ends, on="flow_id")
    parts = []
    for who, closed_ns, windows, others in _SIDES:
        closed = pl.col(closed_ns) > 0
        server = endpoint("server_ip", "server_port")
        whom = server if who == "server" else pl.format("clients of {}", server)
        parts.append(
            connections.group_by("server_ip", "server_port")
            .agg(
                pl.col("first_ts").filter(closed).min().alias("since"),
                pl.col("last_ts").filter(closed).max().alias("until"),
                pl.col(windows).filter(closed).sum().cast(pl.UInt64).alias("count"),
                pl.len().cast(pl.UInt64).alias("of"),
                pl.lit(None, pl.String).alias("frames"),
                closed_ns=pl.col(closed_ns).sum(),
                connections=closed.sum(),
            )
            .filter(pl.col("closed_ns") >= _LEAST_NS)
            .select(
                finding(
                    "segments",
                    whom,
                    pl.format(
                        "In {} of {} connections {} took no more data, for {} ms all together: applications "
                        f"there read too slowly, and {others}.",
                        "connections",
                        "of",
                        whom,
                        pl.col("closed_ns") // 1_000_000,
                    ),
                    pl.format(
                        "{} && tcp.dstport == {} && tcp.analysis.zero_window",
                        address("server_ip"),
                        "server_port",
                    ),
                )
            )
        )
    return pl.concat(parts)


RULE = Rule("zero-window", find.__doc__ or "", ("tcp", "flows"), find)
