"""Protocol hierarchy: how much of the traffic each protocol carried, in the protocol that carried it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.tables import entries
from stratokit.reports.base import Options, Report
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_NETWORK = {4: "ip", 6: "ipv6"}
_TRANSPORT = {
    1: "icmp",
    2: "igmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    58: "icmpv6",
    89: "ospf",
    132: "sctp",
}
_NO_APPLICATIONS = frozenset(("packets", "flows", "tcp"))


def _applications(capture: Capture) -> pl.LazyFrame:
    """flow_id and application protocol; a conversation that changed protocol has several."""
    found = [
        capture.table(name).select("flow_id", pl.lit(name).alias("application"))
        for name, entry in entries().items()
        if name not in _NO_APPLICATIONS and "flow_id" in entry.columns
    ]
    return pl.concat(found).drop_nulls().unique() if found else pl.LazyFrame(schema=_APPLICATION_SCHEMA)


_APPLICATION_SCHEMA = {"flow_id": pl.UInt64, "application": pl.String}


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a protocol within what carries it, each packet counted once at every level."""
    number = pl.col("ip_proto")
    packets = (
        capture.table("packets")
        .select("frame", "orig_len", "flow_id", "ip_version", "ip_proto")
        .filter(pl.col("frame").is_first_distinct())  # a local packet was seen twice
        .with_columns(
            pl.col("ip_version")
            .replace_strict(_NETWORK, default="other", return_dtype=pl.String)
            .alias("network"),
            pl.when(number.is_not_null())
            .then(number.replace_strict(_TRANSPORT, default=pl.format("ip.proto {}", number)))
            .alias("transport"),
        )
        .join(_applications(capture), on="flow_id", how="left")
    )
    levels = [["network"], ["network", "transport"], ["network", "transport", "application"]]
    totals = [
        packets.drop_nulls(level)
        # Joined with two applications, a packet stands twice: at the levels above it counts once.
        .filter(pl.col("frame").is_first_distinct() if len(level) < 3 else pl.lit(value=True))
        .group_by(pl.concat_str(level, separator="/").alias("protocol"))
        .agg(
            pl.len().cast(pl.UInt64).alias("packets"),
            pl.col("orig_len").cast(pl.UInt64).sum().alias("bytes"),
            pl.col("flow_id").n_unique().cast(pl.UInt64).alias("flows")
            - pl.col("flow_id").has_nulls().cast(pl.UInt64),
        )
        for level in levels
    ]
    return pl.concat(totals).sort("protocol")


REPORT = Report(
    name="protocols",
    title="Protocols",
    doc="Packets, bytes and conversations by protocol. A local packet that was seen twice counts once.",
    place=10,
    needs=("packets",),
    columns=(
        Column("protocol", "text", "Protocol behind those that carry it."),
        Column("packets", "u64", "Packets."),
        Column("bytes", "u64", "Length on the wire at the recorded layer.", "bytes"),
        Column("flows", "u64", "Conversations."),
    ),
    build=build,
)
