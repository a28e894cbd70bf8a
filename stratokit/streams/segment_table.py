"""Table `segments`: what was found about each TCP segment. The rules are in docs/tcp.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.connections import judged, segments_of
from stratokit.streams.sides import CLIENT, SERVER, WIRE
from stratokit.streams.source import deferred, frame_schema
from stratokit.streams.tcp_state import FLAG_NAMES, NEVER

if TYPE_CHECKING:
    from stratokit.streams.source import PacketSource

_VIEWS = {WIRE: "wire", CLIENT: "client", SERVER: "server"}
_FLAGS = tuple(
    Column(name, "bool", f"True for: {name.replace('_', ' ')}; null for any other (rules: docs/tcp.md).")
    for name in FLAG_NAMES
)

TABLE = Table(
    "segments",
    "a TCP segment with what was found about it; a local one has two, one in each socket's view",
    (
        Column("frame", "u64", "Number of the packet."),
        Column("ts", "time", "Time of the packet."),
        Column("flow_id", "u64", "Number of the conversation."),
        Column("view", "text", "Where it was seen: client, server, or wire for a plain capture."),
        Column("from_client", "bool", "The client sent it."),
        Column("tcp_analysis", "u32", "All that follows as bits, the first flag being 1."),
        *_FLAGS,
        Column("duplicate_ack_num", "u32", "How many duplicate ACKs there were, this one included."),
        Column("ack_rtt_ns", "s64", "From the segment whose end it acknowledges.", "ns"),
        Column("bytes_in_flight", "u64", "Bytes sent and not yet acknowledged, its own included.", "bytes"),
    ),
    (
        FilterField("tcp.analysis.flags", ("tcp_analysis",), "What was found about a segment, as bits."),
        FilterField("tcp.analysis.ack_rtt", ("ack_rtt_ns",), "From a segment to its acknowledgment."),
        FilterField("tcp.analysis.bytes_in_flight", ("bytes_in_flight",), "Bytes not yet acknowledged."),
        FilterField("tcp.analysis.duplicate_ack_num", ("duplicate_ack_num",), "Number of a duplicate ACK."),
        *(FilterField(f"tcp.analysis.{name}", (name,), f"{name.replace('_', ' ')}.") for name in FLAG_NAMES),
    ),
)


def _segments(capture: PacketSource) -> pl.DataFrame:
    packets = segments_of(capture)
    found = judged(packets)
    flags = pl.Series(found.flags)
    # Null where there is nothing, so that a filter by the name alone finds what Wireshark finds.
    is_set = {name: flags & (1 << bit) != 0 for bit, name in enumerate(FLAG_NAMES)}
    columns = {name: pl.when(value).then(statement=True).alias(name) for name, value in is_set.items()}
    return packets.select(
        "frame",
        "ts",
        "flow_id",
        pl.col("view").replace_strict(_VIEWS, return_dtype=pl.String),
        "from_client",
    ).with_columns(
        tcp_analysis=flags,
        duplicate_ack_num=pl.Series(np.where(found.dup_ack > 0, found.dup_ack, NEVER)).replace(NEVER, None),
        ack_rtt_ns=pl.Series(found.rtt_ns).replace(NEVER, None),
        bytes_in_flight=pl.Series(np.where(found.in_flight > 0, found.in_flight, NEVER)).replace(NEVER, None),
        **columns,
    )


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `segments`, in capture order."""
    return deferred(frame_schema(TABLE), lambda: _segments(capture))
