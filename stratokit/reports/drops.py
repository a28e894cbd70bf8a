"""Packets that the kernel dropped: why, whose, between whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import Options, Report
from stratokit.schema.model import Column
from stratokit.streams.conversations import PROTO_NAMES

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_OF = ("drop_reason", "proto", "src_ip", "src_port", "dst_ip", "dst_port", "comm", "drop_location")
_DYNAMIC = 32768  # Linux gives clients ports from here on (ip_local_port_range of ip(7))
_PROTO = pl.col("ip_proto").cast(pl.String).replace({str(key): name for key, name in PROTO_NAMES.items()})


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a reason, process name, sender and receiver, the most frequent first.

    Of the two ports that of the service is kept: the other end's is a new one for every connection.
    """
    only = pl.col("pid").n_unique() == 1
    return (
        capture.table("drops")
        .with_columns(
            _PROTO.alias("proto"), src_port=_of_service("src", "dst"), dst_port=_of_service("dst", "src")
        )
        .group_by(_OF)
        .agg(
            pl.len().cast(pl.UInt64).alias("packets"),
            pl.when(only).then(pl.col("pid").first()).alias("pid"),
            pl.col("ts").min().alias("first_ts"),
            pl.col("ts").max().alias("last_ts"),
        )
        .sort(["packets", "first_ts", *_OF], descending=[True, *[False] * 9], nulls_last=True)
    )


def _of_service(end: str, other: str) -> pl.Expr:
    """The port of one end if it is the lower one; of two that may be a client's, if it comes more often."""
    here, there = pl.col(f"{end}_port"), pl.col(f"{other}_port")
    may_be = pl.min_horizontal(here, there) >= _DYNAMIC
    often, seldom = (
        pl.when(may_be).then(pl.len().over(f"{side}_ip", f"{side}_port")).otherwise(0)
        for side in (end, other)
    )
    lower = (here <= there).fill_null(value=True)
    return pl.when((often > seldom) | ((often == seldom) & lower)).then(here)


REPORT = Report(
    name="drops",
    title="Dropped packets",
    doc="By reason, process name, sender and receiver. Reasons are the kernel's; what it drops in the course "
    "of things (a closed port, a packet that comes again) is among them.",
    place=32,
    needs=("drops",),
    columns=(
        Column("drop_reason", "name", "Why, as the kernel calls it."),
        Column("packets", "u64", "Packets dropped."),
        Column("comm", "name", "Process of the socket; null where there is none."),
        Column("pid", "u32", "Its process id; null where there were several."),
        Column("proto", "text", "Protocol over IP."),
        Column("src_ip", "name", "Sender."),
        Column("src_port", "u16", "Port of the sender, where that is the service."),
        Column("dst_ip", "name", "Receiver."),
        Column("dst_port", "u16", "Port of the receiver, where that is the service."),
        Column("drop_location", "name", "Function of the kernel that dropped them, with offset."),
        Column("first_ts", "time", "First of them."),
        Column("last_ts", "time", "Last of them."),
    ),
    build=build,
    narrow=("drop_reason", "packets", "comm", "src_ip", "src_port", "dst_ip", "dst_port"),
)
