"""All TCP segments of a capture judged in one pass: what analysis and lifecycle say, per connection.

Segments come batch after batch; only what is known of the connections is kept between them, so memory grows
with the connections and not with the segments. Where a conversation was recorded at both ends, each end's own
view of it is a connection here.
"""

from __future__ import annotations

import dataclasses
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.streams import lifecycle
from stratokit.streams.analysis import analyse
from stratokit.streams.connection_table import ConnectionTable
from stratokit.streams.flows import RST, TCP
from stratokit.streams.memory import give_back
from stratokit.streams.sides import WIRE, column
from stratokit.streams.tcp_state import (
    EDGES,
    NEVER,
    SACK_RANGES,
    TROUBLE,
    Pool,
    Records,
    new_connections,
    new_sides,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stratokit.streams.source import PacketSource

_EDGES = tuple(f"tcp_sack{n}_{edge}" for n in range(1, SACK_RANGES + 1) for edge in ("left", "right"))
COLUMNS = (
    *(
        "frame",
        "ts",
        "flow_id",
        "direction",
        "vlan",
        "tunnel",
        "tunnel_id",
        "src_ip",
        "src_port",
        "dst_ip",
        "dst_port",
    ),
    *("tcp_flags", "tcp_seq", "tcp_ack", "tcp_window", "payload_len", "tcp_window_scale"),
    *("tcp_sack_count", *_EDGES),
    "socket_cookie",
)
# From so many connections on their records are most of the memory that a process has.
_MANY = 1 << 17
_TURNED = (pl.col("src_ip") > pl.col("dst_ip")) | (
    (pl.col("src_ip") == pl.col("dst_ip")) & (pl.col("src_port") > pl.col("dst_port"))
)
# The same whoever sent the segment.
_ENDS = (
    *(
        pl.when(_TURNED).then("src_" + name).otherwise("dst_" + name).alias(f"{name}_a")
        for name in ("ip", "port")
    ),
    *(
        pl.when(_TURNED).then("dst_" + name).otherwise("src_" + name).alias(f"{name}_b")
        for name in ("ip", "port")
    ),
    pl.col("vlan"),
    pl.col("tunnel"),
    pl.when(pl.col("tunnel").is_in(["vxlan", "geneve"])).then("tunnel_id").alias("network"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Connections:
    """Connection c has the flow flow_id[c] and the view view[c]; sides 2c and 2c + 1 are its ends.

    `client` is 0 or 1: which of these is its client.
    """

    flow_id: NDArray[np.int64]
    view: NDArray[np.uint8]
    client: NDArray[np.uint8]
    sides: NDArray[Any]  # tcp_state.SIDE
    state: NDArray[Any]  # tcp_state.CONNECTION
    troubles: NDArray[Any]  # tcp_state.TROUBLE
    edges: NDArray[Any]  # tcp_state.EDGES
    lives: NDArray[Any]  # lifecycle.LIFE
    resets: pl.DataFrame  # flow_id, frame of every RST that was seen at a socket
    socket: NDArray[np.uint64]  # the last socket seen at that end; 0 where none was


@dataclasses.dataclass(frozen=True, slots=True)
class Findings:
    """Of each segment of a batch: its connection, which end sent it, and what was found."""

    connection: NDArray[np.int64]
    side: NDArray[np.uint8]
    flags: NDArray[np.uint32]
    rtt_ns: NDArray[np.int64]  # tcp_state.NEVER where its ACK ends no segment
    in_flight: NDArray[np.int64]
    dup_ack: NDArray[np.int64]


def segments_of(capture: PacketSource) -> Iterator[pl.DataFrame]:
    """TCP segments with a flow and a whole header, in capture order, a batch after the other."""
    is_tcp = (pl.col("ip_proto") == TCP) & pl.col("flow_id").is_not_null() & pl.col("tcp_flags").is_not_null()
    yield from capture.rows("packet").filter(is_tcp).select(COLUMNS).collect_batches(maintain_order=True)


def _from_greater(batch: pl.DataFrame, src_port: NDArray[Any], dst_port: NDArray[Any]) -> NDArray[np.bool_]:
    """Tells both ends apart: whether the sender's port, else its address, is the greater one."""
    greater: NDArray[np.bool_] = src_port > dst_port
    same = np.flatnonzero(src_port == dst_port)
    if same.size:
        some = batch[same].select(pl.col("src_ip") > pl.col("dst_ip")).to_series()
        greater[same] = some.fill_null(value=False).to_numpy()
    return greater


def _grow(records: NDArray[Any], count: int, blank: NDArray[Any]) -> None:
    """Have records for so many; those that are there are not copied, and nobody else may hold them.

    The system moves large pieces of memory without a copy, so they need not grow far ahead.
    """
    have = records.size
    if count > have:
        records.resize(max(count, have + have // 16), refcheck=False)
        records[have:] = blank


class Judge:
    """Takes batches of `segments_of` in order; `connections` tells of all of them at the end."""

    def __init__(self) -> None:
        self._table = ConnectionTable()
        self._state, self._sides = new_connections(0), new_sides(0)
        self._lives = lifecycle.new_lives(0)
        self._pool, self._troubles, self._edges = Pool(), Records(TROUBLE), Records(EDGES)
        self._seed = secrets.randbits(64)  # so that nobody can choose addresses that collide
        self._resets: list[pl.DataFrame] = []
        self._socket = np.zeros(0, np.uint64)
        self._is_over = False  # who has the records may keep them

    def feed(self, batch: pl.DataFrame) -> Findings:
        """Judge the segments of one batch."""
        assert not self._is_over
        src_port, dst_port = column(batch, "src_port", np.uint16), column(batch, "dst_port", np.uint16)
        flags = column(batch, "tcp_flags", np.uint16)
        side = _from_greater(batch, src_port, dst_port).astype(np.uint8)
        own, seen_at = self._sightings(batch, side)
        flow_id = column(batch, "flow_id", np.int64)
        first = self._table.used
        cookie = column(batch, "socket_cookie", np.uint64)
        placed = self._table.place(flow_id, side, seen_at, own, cookie, flags, (src_port, dst_port))
        self._make_room(batch, first, placed.new_flows)
        resets = np.flatnonzero((seen_at != 0) & (flags & RST != 0))
        if resets.size:
            numbers = pl.Series("connection", placed.connection[resets])
            self._resets.append(batch[resets].select("flow_id", "frame").with_columns(numbers))
        known = np.flatnonzero(cookie)
        self._socket[placed.connection[known]] = cookie[known]  # of several the last
        sacks = column(batch, "tcp_sack_count", np.uint8)
        edges = np.zeros((batch.height if sacks.any() else 0, 2 * SACK_RANGES), np.uint32)
        for k, name in enumerate(_EDGES if len(edges) else ()):
            edges[:, k] = column(batch, name, np.uint32)
        segments = (
            placed.connection,
            side,
            column(batch.select(pl.col("ts").to_physical()), "ts", np.int64),
            flags,
            column(batch, "tcp_seq", np.uint32),
            column(batch, "tcp_ack", np.uint32),
            column(batch, "tcp_window", np.uint16),
            column(batch, "payload_len", np.uint32),
            np.ascontiguousarray(batch["tcp_window_scale"].cast(pl.Int16).fill_null(-1).to_numpy(), np.int16),
            sacks,
            edges,
            own,
        )
        n = batch.height
        found = Findings(
            placed.connection,
            side,
            np.zeros(n, np.uint32),
            np.full(n, NEVER, np.int64),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
        )
        out = (found.flags, found.rtt_ns, found.in_flight, found.dup_ack)
        records = (self._state, self._sides, self._pool.entries, self._pool.free)
        rare = (self._troubles.records, self._troubles.used, self._edges.records, self._edges.used)
        analyse(segments, (*records, *rare), out)
        lifecycle.follow(segments, placed.client, found.flags, self._lives)
        return found

    @staticmethod
    def _sightings(
        batch: pl.DataFrame, side: NDArray[np.uint8]
    ) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Whether at its sender's socket; and 0 for on the wire, else 1 more than the end it was seen at."""
        direction = batch["direction"]
        if direction.null_count() == batch.height:
            return np.zeros(batch.height, np.bool_), np.zeros(batch.height, np.uint8)
        own = (direction == "out").fill_null(value=False).to_numpy()
        known = direction.is_not_null().to_numpy()
        return own, np.where(known, 1 + np.where(own, side, 1 - side), 0).astype(np.uint8)

    def _make_room(self, batch: pl.DataFrame, first: int, new_flows: NDArray[np.int64]) -> None:
        """Records for the connections of a batch, from `first` on, before the kernels go over it."""
        if new_flows.size:
            ends = batch[new_flows].select("flow_id", *_ENDS)
            keys = ends.drop("flow_id").hash_rows(self._seed).to_numpy()
            self._table.note_ends(column(ends, "flow_id", np.int64), keys)
        used = self._table.used
        _grow(self._state, used, new_connections(1))
        _grow(self._sides, 2 * used, new_sides(1))
        _grow(self._lives, used, lifecycle.new_lives(1))
        _grow(self._socket, used, np.zeros(1, np.uint64))
        self._state["reused"][first:used] = self._table.reused_from(first)
        self._pool.make_room(batch.height)
        self._troubles.make_room(batch.height)
        self._edges.make_room(batch.height)

    def connections(self) -> Connections:
        """Everything about the connections, after the last batch."""
        self._is_over = True
        flow_id, view, client = self._table.connections()
        used = flow_id.size
        lives = self._lives[:used]
        lifecycle.settle(lives, client)
        empty = pl.DataFrame(schema={"flow_id": pl.UInt64, "frame": pl.UInt64, "connection": pl.Int64})
        resets = pl.concat([empty, *self._resets])
        at_sockets = view[resets["connection"].to_numpy()] != WIRE
        return Connections(
            flow_id,
            view,
            client,
            self._sides[: 2 * used],
            self._state[:used],
            self._troubles.records,
            self._edges.records,
            lives,
            resets.filter(at_sockets).select("flow_id", "frame").unique(),
            self._socket[:used],
        )


def judged(capture: PacketSource) -> Connections:
    """Every connection of a capture."""
    judge = Judge()
    for batch in segments_of(capture):
        judge.feed(batch)
    found = judge.connections()
    if found.flow_id.size > _MANY:
        del judge
        give_back()
    return found
