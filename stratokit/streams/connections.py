"""All TCP segments of a capture judged in one pass: what analysis and lifecycle say, per connection.

Where a conversation was recorded at both ends, each end's own view of it is a connection here.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.kernels import kernel
from stratokit.streams import lifecycle
from stratokit.streams.analysis import analyse
from stratokit.streams.flows import TCP
from stratokit.streams.sides import CLIENT, SERVER, SIDE_COLUMNS, VIEWS, column, with_sides
from stratokit.streams.tcp_state import NEVER, SACK_RANGES, new_connections, new_pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.source import PacketSource

_EDGES = tuple(f"tcp_sack{n}_{edge}" for n in range(1, SACK_RANGES + 1) for edge in ("left", "right"))
_SEGMENT = ("frame", "ts", "tcp_seq", "tcp_ack", "tcp_window", "payload_len", "tcp_window_scale")
COLUMNS = (*sorted({*SIDE_COLUMNS, *_SEGMENT}), "tcp_sack_count", *_EDGES)


@dataclasses.dataclass(frozen=True, slots=True)
class Connections:
    """Connection c has the flow flow_id[c], the view view[c], and the sides 2c, its client, and 2c + 1."""

    flow_id: NDArray[np.int64]
    view: NDArray[np.uint8]
    sides: NDArray[Any]  # tcp_state.SIDE
    state: NDArray[Any]  # tcp_state.CONNECTION
    lives: NDArray[Any]  # lifecycle.LIFE
    flags: NDArray[np.uint32]  # of each segment, as the others
    rtt_ns: NDArray[np.int64]  # tcp_state.NEVER where its ACK ends no segment
    in_flight: NDArray[np.int64]
    dup_ack: NDArray[np.int64]


@kernel
def _number(key: np.ndarray, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys in use, ascending, and for each row which of them it has."""
    place = np.full(keys, -1, np.int32)
    for k in key:
        place[k] = 0
    count = 0
    for k in range(keys):
        if place[k] == 0:
            place[k] = count
            count += 1
    used = np.empty(count, np.int64)
    for k in range(keys):
        if place[k] >= 0:
            used[place[k]] = k
    row = np.empty(key.size, np.int64)
    for i in range(key.size):
        row[i] = place[key[i]]
    return used, row


def segments_of(capture: PacketSource) -> pl.DataFrame:
    """TCP segments with a flow and a whole header, in capture order, with `from_client` and `view`."""
    is_tcp = (pl.col("ip_proto") == TCP) & pl.col("flow_id").is_not_null() & pl.col("tcp_flags").is_not_null()
    return with_sides(capture.rows("packet").filter(is_tcp).select(COLUMNS).collect())


def judged(packets: pl.DataFrame) -> Connections:
    """Every connection among segments of `segments_of`."""
    flow_id = column(packets, "flow_id", np.int64)
    keys = (int(flow_id.max()) + 1) * VIEWS if flow_id.size else 0
    used, connection = _number(flow_id * VIEWS + column(packets, "view", np.int64), keys)
    from_client = packets["from_client"].to_numpy()
    sacks = column(packets, "tcp_sack_count", np.int64)
    edges = np.zeros((packets.height if sacks.any() else 0, 2 * SACK_RANGES), np.uint32)
    if len(edges):
        edges = np.column_stack([column(packets, name, np.uint32) for name in _EDGES])
    segments = (
        connection,
        (~from_client).astype(np.int64),
        packets["ts"].to_physical().fill_null(0).to_numpy(),
        column(packets, "tcp_flags", np.int64),
        column(packets, "tcp_seq", np.uint32),
        column(packets, "tcp_ack", np.uint32),
        column(packets, "tcp_window", np.int64),
        column(packets, "payload_len", np.int64),
        np.ascontiguousarray(packets["tcp_window_scale"].cast(pl.Int16).fill_null(-1).to_numpy()),
        sacks,
        edges,
        packets["view"].to_numpy() == np.where(from_client, CLIENT, SERVER),
    )
    state, sides = new_connections(used.size)
    state["reused"] = _reused(packets, used // VIEWS)
    n = packets.height
    flags = np.zeros(n, np.uint32)
    rtt, in_flight, dup_ack = np.full(n, NEVER, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    analyse(segments, (state, sides, *new_pool(n)), (flags, rtt, in_flight, dup_ack))
    lives = lifecycle.new_lives(used.size)
    lifecycle.follow(segments, from_client, flags, lives)
    return Connections(
        used // VIEWS,
        (used % VIEWS).astype(np.uint8),
        sides,
        state,
        lives,
        flags,
        rtt,
        in_flight,
        dup_ack,
    )


def _reused(packets: pl.DataFrame, flow_id: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an earlier conversation had the same ports at the same addresses."""
    ends = [pl.col("from_client")]
    for name in ("src_ip", "src_port", "dst_ip", "dst_port"):
        other = ("dst" if name.startswith("src") else "src") + name[3:]
        ends.append(pl.when("from_client").then(name).otherwise(other).alias(name))
    first = packets.group_by("flow_id").agg(
        pl.col("src_ip", "src_port", "dst_ip", "dst_port", "from_client").first()
    )
    known = first.select("flow_id", *ends[1:]).sort("flow_id")
    again = known.select(
        ~pl.struct("src_ip", "src_port", "dst_ip", "dst_port").is_first_distinct()
    ).to_series()
    found: NDArray[np.bool_] = again.to_numpy()[np.searchsorted(known["flow_id"].to_numpy(), flow_id)]
    return found
