"""Which connection a segment belongs to: a conversation as one place saw it; and who its client is by now.

A later SYN may tell that the client is not who it seemed to be: `client` is what is known at each segment.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel
from stratokit.streams.flows import ACK, SYN, TCP, sender_is_client
from stratokit.streams.sides import CLIENT, SERVER, VIEWS, WIRE

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

_BY_FIRST, _BY_SYN_ACK, _BY_SYN = 1, 2, 3  # what tells the client; the higher one counts
INWARDS, OUTWARDS = 1, 2  # how segments of a conversation passed where they were seen


@kernel
def _place(
    flow_id: np.ndarray,
    side: np.ndarray,
    seen_at: np.ndarray,
    own: np.ndarray,
    cookie: np.ndarray,
    flags: np.ndarray,
    src_port: np.ndarray,
    dst_port: np.ndarray,
    ways: np.ndarray,
    places: np.ndarray,
    ranks: np.ndarray,
    clients: np.ndarray,
    keys: np.ndarray,
    used: int,
    connection: np.ndarray,
    client: np.ndarray,
    new_flows: np.ndarray,
) -> tuple[int, int]:
    """Number of connections by now, number of new conversations, whose first rows go to `new_flows`."""
    fresh = 0
    for i in range(flow_id.size):
        f = flow_id[i]
        at = f * VIEWS + seen_at[i]
        way = OUTWARDS if own[i] else INWARDS
        if places[at] < 0 and seen_at[i] and cookie[i] == 0 and ways[f] == way:
            # The other end's are seen the same way: both pass one place, which is nobody's socket.
            places[at] = places[f * VIEWS + 3 - seen_at[i]]
            keys[places[at]] = f * VIEWS
        if places[at] < 0:
            places[at] = used
            keys[used] = at
            used += 1
        if seen_at[i]:
            ways[f] |= way
        connection[i] = places[at]
        rank = _BY_FIRST
        if flags[i] & SYN:
            rank = _BY_SYN_ACK if flags[i] & ACK else _BY_SYN
        if ranks[f] == 0:
            new_flows[fresh] = i
            fresh += 1
        if rank > ranks[f]:
            ranks[f] = rank
            asks = sender_is_client(TCP, i64(flags[i]), i64(src_port[i]), i64(dst_port[i]), 0)
            clients[f] = side[i] if asks else 1 - side[i]
        client[i] = clients[f]
    return used, fresh


def _grown(values: NDArray[Any], size: int, fill: int) -> NDArray[Any]:
    if size <= values.size:
        return values
    more = max(size - values.size, values.size)
    return np.concatenate([values, np.full(more, fill, values.dtype)])


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """Of each segment its connection and which side is the client; first rows of new conversations."""

    connection: NDArray[np.int64]
    client: NDArray[np.uint8]
    new_flows: NDArray[np.int64]


class ConnectionTable:
    """Numbers connections in the order of their first segments; about 30 bytes each."""

    def __init__(self) -> None:
        self.used = 0
        self._places = np.empty(0, np.int32)
        self._ranks, self._clients = np.empty(0, np.uint8), np.empty(0, np.uint8)
        self._ways, self._reused = np.empty(0, np.uint8), np.empty(0, np.bool_)
        self._keys = np.empty(0, np.int64)
        self._ends = np.empty(0, np.uint64)  # hashes, in order

    def place(
        self,
        flow_id: NDArray[np.int64],
        side: NDArray[np.uint8],
        seen_at: NDArray[np.uint8],
        own: NDArray[np.bool_],
        cookie: NDArray[np.uint64],
        flags: NDArray[np.uint16],
        ports: tuple[NDArray[np.uint16], NDArray[np.uint16]],
    ) -> Placed:
        """Place the segments of a batch."""
        n = flow_id.size
        flows = int(flow_id.max()) + 1 if n else 0
        self._places = _grown(self._places, flows * VIEWS, -1)
        self._ranks, self._clients = _grown(self._ranks, flows, 0), _grown(self._clients, flows, 0)
        self._ways, self._reused = _grown(self._ways, flows, 0), _grown(self._reused, flows, 0)
        self._keys = _grown(self._keys, self.used + n, 0)
        connection, client, new_flows = np.empty(n, np.int64), np.empty(n, np.uint8), np.empty(n, np.int64)
        self.used, fresh = _place(
            *(flow_id, side, seen_at, own, cookie, flags, *ports),
            *(self._ways, self._places, self._ranks, self._clients, self._keys, self.used),
            *(connection, client, new_flows),
        )
        return Placed(connection, client, new_flows[:fresh])

    def note_ends(self, flow_id: NDArray[np.int64], ends: NDArray[np.uint64]) -> None:
        """Learn between which ends new conversations are, to know ports that are used again."""
        distinct, first = np.unique(ends, return_index=True)
        again = np.ones(ends.size, np.bool_)
        again[first] = False
        places = np.searchsorted(self._ends, distinct)
        known = np.zeros(distinct.size, np.bool_)
        inside = places < self._ends.size
        known[inside] = self._ends[places[inside]] == distinct[inside]
        again[first] |= known
        self._ends = np.insert(self._ends, places[~known], distinct[~known])
        self._reused[flow_id] = again

    def reused_from(self, first: int) -> NDArray[np.bool_]:
        """Of the connections from `first` on: whether an earlier conversation had the same ends."""
        return self._reused[self._keys[first : self.used] // VIEWS]

    def connections(self) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]:
        """(flow_id, view, side that is the client) of every connection."""
        flow_id, seen_at = np.divmod(self._keys[: self.used], VIEWS)
        client = self._clients[flow_id]
        ends = np.where(seen_at - 1 == client, CLIENT, SERVER)
        return flow_id, np.where(seen_at == 0, WIRE, ends).astype(np.uint8), client
