"""When the bytes of TCP streams passed each socket: out of the sender's, in to the receiver's.

A byte counts as passed when every byte before it has passed too: of a segment that was lost and sent again,
the receiver has what comes after it no earlier than the repetition.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.engine.latency.running import highest, reaching, stream_key
from stratokit.streams.flows import ACK, SYN, TCP
from stratokit.streams.segments import NOWHERE, grouped, stream_offsets
from stratokit.streams.sides import (
    CLIENT,
    GREATER,
    SERVER,
    SIDE_COLUMNS,
    WIRE,
    column,
    sender_is_greater,
    with_sides,
)

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

# Packets that are looked at at once: what is made of them meanwhile is several times as large as they are.
_AT_ONCE = 1 << 18


@dataclasses.dataclass(frozen=True, slots=True)
class Passing:
    """What the TCP packets of a capture tell.

    Attributes:
        bytes: per sighting of a stream (the client's bytes at the client's socket, at the server's, ...),
            told by its `key` (running.stream_key), and segment with payload: `position` of its end in the
            stream, `ts` in ns at which all up to there had passed; in order of key and position.
        frames: per flow and frame `from_client`, `begin` and `end`, its payload's place in the stream.
        sockets: per flow and view the `socket_cookie`.
        began: per `key` whether the stream's first byte is known (its SYN was seen).
        handshakes: per flow the times of its SYN and SYN-ACK at either end, see `_handshakes`.
    """

    bytes: pl.DataFrame
    frames: pl.DataFrame
    sockets: pl.DataFrame
    began: pl.DataFrame
    handshakes: pl.DataFrame

    def at(
        self, wanted: pl.DataFrame, position: str, view: int, *, from_client: bool, name: str
    ) -> pl.Series:
        """When the byte before `position` had passed at an end; a plain capture counts as the client's."""
        rows = []
        for seen_at in (view, WIRE) if view == CLIENT else (view,):
            key = wanted.select(stream_key(pl.lit(seen_at), pl.lit(from_client))).to_series()
            rows.append(reaching(self.bytes["key"], self.bytes["position"], key, wanted[position]))
        here, *on_wire = rows
        row = here if not on_wire else pl.select(pl.coalesce(here, *on_wire)).to_series()
        return self.bytes["ts"].gather(row).alias(name)


def passing(capture: Capture, requests: pl.DataFrame) -> Passing:
    """Read once the TCP packets of conversations that carry `requests`, and every SYN."""
    packets = _packets(capture, requests["flow_id"].unique().drop_nulls())
    names = [name for name in requests.columns if name.endswith("_frame")]
    frames = pl.concat([requests[name].alias("frame") for name in names]).drop_nulls().unique()
    sizes = packets.group_by("flow_id").len().sort("flow_id")
    group = (pl.col("len").cum_sum() - pl.col("len")) // _AT_ONCE
    ranges = sizes.group_by(group.alias("group"), maintain_order=True).agg(
        low=pl.col("flow_id").first(), high=pl.col("flow_id").last()
    )
    parts = [
        _passing(packets.filter(pl.col("flow_id").is_between(low, high)), frames)
        for low, high in ranges.select("low", "high").iter_rows()
    ] or [_passing(packets, frames)]
    of_parts = zip(*((p.bytes, p.frames, p.sockets, p.began, p.handshakes) for p in parts), strict=True)
    return Passing(*(pl.concat(found) for found in of_parts))


def _packets(capture: Capture, asked: pl.Series) -> pl.DataFrame:
    """TCP packets of the conversations `asked`, and those with SYN, as far as something follows from them.

    Others than those with payload or SYN only tell which side is which, and where a side was seen: of these
    the first of each kind in every batch is enough.
    """
    flow_id, flags = pl.col("flow_id"), pl.col("tcp_flags")
    wanted = flow_id.is_not_null() & (flow_id.is_in(asked.implode()) | (flags & SYN != 0))
    rows = capture.rows("packet").filter(pl.col("ip_proto") == TCP, flags.is_not_null(), wanted)
    columns = sorted({*SIDE_COLUMNS, "frame", "ts", "tcp_seq", "payload_len", "socket_cookie"})
    columns = [name for name in columns if name not in ("src_ip", "dst_ip", "direction")]
    found = rows.select(*columns, pl.col("direction").cast(pl.Categorical), sender_is_greater())
    way = (pl.col("direction") == "out").cast(pl.UInt64).fill_null(2)
    kind = flow_id * 6 + pl.col(GREATER).cast(pl.UInt64) * 3 + way
    needed = (pl.col("payload_len") > 0) | (flags & SYN != 0) | kind.is_first_distinct()
    batches = found.collect_batches(maintain_order=True)
    return pl.concat([found.collect_schema().to_frame(), *(batch.filter(needed) for batch in batches)])


def _passing(packets: pl.DataFrame, frames: pl.Series) -> Passing:
    """What the packets of some conversations tell; `frames`: those in which something begins or ends."""
    flags = pl.col("tcp_flags")
    packets = with_sides(packets).drop("src_port", "dst_port")
    packets = packets.filter((pl.col("payload_len") > 0) | (flags & SYN != 0))
    packets = packets.with_columns(pl.col("ts").to_physical(), pl.col("payload_len").cast(pl.Int64))
    key = packets.select(stream_key(pl.col("view"), pl.col("from_client"))).to_series()
    keys, stream = np.unique(key.to_numpy(), return_inverse=True)
    order, bounds = grouped(stream, keys.size)
    offsets, began, *_ = stream_offsets(
        column(packets, "tcp_seq", np.uint32),
        column(packets, "tcp_flags", np.uint16),
        column(packets, "payload_len", np.int64),
        order,
        bounds,
    )
    places = packets.with_columns(begin=pl.Series(offsets), stream=pl.Series(stream)).filter(
        pl.col("begin") != NOWHERE, pl.col("payload_len") > 0
    )
    places = places.with_columns(position=pl.col("begin") + pl.col("payload_len"))
    return Passing(
        _in_order(places.select(pl.Series(keys).gather(places["stream"]).alias("key"), "position", "ts")),
        places.filter(pl.col("frame").is_in(frames.implode()))
        .select("flow_id", "frame", "from_client", "begin", end="position")
        .unique(["flow_id", "frame"], keep="first"),
        packets.drop_nulls("socket_cookie").group_by("flow_id", "view").agg(pl.col("socket_cookie").last()),
        pl.DataFrame({"key": keys, "began": began}),
        _handshakes(packets.filter(flags & SYN != 0)),
    )


def _in_order(places: pl.DataFrame) -> pl.DataFrame:
    """By place in the stream, each at the first time, and no place earlier than those before it."""
    places = places.sort("key", "position", maintain_order=True)
    again = pl.all_horizontal(
        (pl.col(c) == pl.col(c).shift(1)).fill_null(value=False) for c in ("key", "position")
    )
    places = places.filter(~again)
    return places.with_columns(highest(places["key"], places["ts"]).alias("ts"))


def _handshakes(flow: pl.DataFrame) -> pl.DataFrame:
    """Of packets with SYN, per flow in ns: the client's first; the SYN and SYN-ACK that met, at both ends.

    Of a SYN sent again the last counts that left before one arrived; what it waited before is the retry's.
    """
    syn, ts = pl.col("tcp_flags") & (SYN | ACK) == SYN, pl.col("ts")
    both = pl.col("tcp_flags") & (SYN | ACK) == SYN | ACK
    near = pl.col("view").is_in([CLIENT, WIRE])
    far = pl.col("view") == SERVER
    ends = flow.group_by("flow_id").agg(
        syn_first=ts.filter(syn & near).min(),
        syn_in=ts.filter(syn & far).min(),
        answer_in=ts.filter(both & near).min(),
        syn_view=pl.col("view").filter(syn).min(),
        syn_frame=pl.col("frame").filter(syn).min(),
        answer_frame=pl.col("frame").filter(both).min(),
    )
    limits = flow.join(ends.select("flow_id", "syn_in", "answer_in"), on="flow_id")
    before = ts <= pl.coalesce("syn_in", "answer_in")
    met = limits.group_by("flow_id").agg(
        syn_out=ts.filter(syn & near & before).max(),
        answer_out=ts.filter(both & far & (ts <= pl.col("answer_in"))).max(),
    )
    return ends.join(met, on="flow_id")
