"""Table `segments`: what was found about each TCP segment. The rules are in docs/tcp.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.connections import Judge, segments_of
from stratokit.streams.sides import CLIENT, SERVER, WIRE
from stratokit.streams.source import deferred, frame_schema
from stratokit.streams.tcp_flags import FLAG_NAMES
from stratokit.streams.tcp_state import NEVER

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        Column("direction", "text", "in or out, as that of its packet."),
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
    judge, parts, places = Judge(), [], []
    for batch in segments_of(capture):
        found = judge.feed(batch)
        places.append((found.connection, found.side))
        parts.append(
            batch.select("frame", "ts", "flow_id", "direction").with_columns(
                tcp_analysis=pl.Series(found.flags),
                duplicate_ack_num=_known(np.where(found.dup_ack > 0, found.dup_ack, NEVER)),
                ack_rtt_ns=_known(found.rtt_ns),
                bytes_in_flight=_known(np.where(found.in_flight > 0, found.in_flight, NEVER)),
            )
        )
    if not parts:
        return pl.DataFrame(schema=frame_schema(TABLE))
    everything = judge.connections()  # who is the client is known at the end
    connection, side = (np.concatenate(arrays) for arrays in zip(*places, strict=True))
    # Null where there is nothing, so that a filter by the name alone finds what Wireshark finds.
    bits = ((name, pl.col("tcp_analysis") & (1 << bit)) for bit, name in enumerate(FLAG_NAMES))
    return pl.concat(parts).with_columns(
        view=pl.Series(everything.view[connection]).replace_strict(_VIEWS, return_dtype=pl.String),
        from_client=pl.Series(everything.client[connection] == side),
        **{name: pl.when(found != 0).then(statement=True) for name, found in bits},
    )


def _known(values: NDArray[np.int64]) -> pl.Series:
    return pl.Series(values).replace(NEVER, None)


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `segments`, in capture order."""
    return deferred(frame_schema(TABLE), lambda: _segments(capture), kept=False)
