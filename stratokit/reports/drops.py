"""Packets that the kernel dropped: why, whose, between whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import Options, Report
from stratokit.schema.model import Column
from stratokit.streams.conversations import PROTO_NAMES

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_OF = ("drop_reason", "proto", "src_ip", "dst_ip", "dst_port", "comm", "pid", "drop_location")
_PROTO = pl.col("ip_proto").cast(pl.String).replace({str(key): name for key, name in PROTO_NAMES.items()})


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a reason, process, sender and receiver, the most frequent first."""
    return (
        capture.table("drops")
        .with_columns(_PROTO.alias("proto"))
        .group_by(_OF)
        .agg(
            pl.len().cast(pl.UInt64).alias("packets"),
            pl.col("ts").min().alias("first_ts"),
            pl.col("ts").max().alias("last_ts"),
        )
        .sort(["packets", "first_ts", *_OF], descending=[True, *[False] * 9], nulls_last=True)
    )


REPORT = Report(
    name="drops",
    title="Dropped packets",
    doc="By reason, process, sender and receiver. Reasons are the kernel's; what it drops in the course of "
    "things (a closed port, a packet that comes again) is among them.",
    place=32,
    needs=("drops",),
    columns=(
        Column("drop_reason", "name", "Why, as the kernel calls it."),
        Column("packets", "u64", "Packets dropped."),
        Column("comm", "name", "Process of the socket; null where there is none."),
        Column("pid", "u32", "Its process id."),
        Column("proto", "text", "Protocol over IP."),
        Column("src_ip", "name", "Sender."),
        Column("dst_ip", "name", "Receiver."),
        Column("dst_port", "u16", "Port of the receiver."),
        Column("drop_location", "name", "Function of the kernel that dropped them, with offset."),
        Column("first_ts", "time", "First of them."),
        Column("last_ts", "time", "Last of them."),
    ),
    build=build,
    narrow=("drop_reason", "packets", "comm", "src_ip", "dst_ip", "dst_port"),
)
