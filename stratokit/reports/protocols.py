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


def applications() -> list[str]:
    """Tables of application protocols; those that take long repeat what others tell."""
    return [name for name, entry in entries().items() if entry.from_payload and not entry.table.costly]


def _applications(capture: Capture) -> pl.LazyFrame:
    """flow_id and application protocol; a conversation that changed protocol has several."""
    found = [
        capture.table(name).select("flow_id", pl.lit(name).alias("application")) for name in applications()
    ]
    return pl.concat(found).drop_nulls().unique() if found else pl.LazyFrame(schema=_APPLICATION_SCHEMA)


_APPLICATION_SCHEMA = {"flow_id": pl.UInt64, "application": pl.String}


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a protocol within what carries it, each packet counted once at every level."""
    number = pl.col("ip_proto")
    known = number.replace_strict(
        _TRANSPORT, default=pl.format("ip.proto {}", number), return_dtype=pl.String
    )
    conversations = (
        capture.table("packets")
        .select("frame", "orig_len", "flow_id", "ip_version", "ip_proto")
        .filter(pl.col("frame").is_first_distinct())  # a local packet was seen twice
        .group_by("flow_id", "ip_version", "ip_proto")
        .agg(
            pl.len().cast(pl.UInt64).alias("packets"), pl.col("orig_len").cast(pl.UInt64).sum().alias("bytes")
        )
        .with_row_index("part")
    )
    network = pl.col("ip_version").replace_strict(_NETWORK, default="other", return_dtype=pl.String)
    levels = [network, pl.when(number.is_not_null()).then(known), pl.col("application")]
    paths = [pl.concat_str(levels[:depth], separator="/") for depth in (1, 2, 3)]
    return (
        conversations.join(_applications(capture), on="flow_id", how="left")
        .with_columns(pl.concat_list(paths).alias("protocol"))
        .explode("protocol")
        .drop_nulls("protocol")
        # Joined with two applications, a conversation stands twice: at the levels above it counts once.
        .unique(["part", "protocol"])
        .group_by("protocol")
        .agg(
            pl.col("packets").sum(),
            pl.col("bytes").sum(),
            pl.col("flow_id").drop_nulls().n_unique().cast(pl.UInt64).alias("flows"),
        )
        .sort("protocol")
    )


REPORT = Report(
    name="protocols",
    title="Protocols",
    doc="Packets, bytes and conversations by protocol. A local packet that was seen twice counts once.",
    place=10,
    needs=("packets",),
    uses=applications,
    columns=(
        Column("protocol", "text", "Protocol behind those that carry it."),
        Column("packets", "u64", "Packets."),
        Column("bytes", "u64", "Length on the wire at the recorded layer.", "bytes"),
        Column("flows", "u64", "Conversations."),
    ),
    build=build,
)
