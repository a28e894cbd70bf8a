"""IP fragments put together (RFC 791 section 3.2, RFC 8200 section 4.5), batch by batch.

A datagram is known by version, addresses, identification, VLAN, tunnel and, in IPv4, protocol. It belongs to
the frame that completes it: that row gets the columns of the whole packet, and its bytes stand in a side
buffer. All other rows of fragments have no transport but ports, where the fragment is the first one.
Fragments that were captured in part are left out, and with them their datagram. `datagrams` bounds memory.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from stratokit.dissect import layers
from stratokit.dissect.datagrams import (
    PIECE,
    ROOM_BYTES,
    SEED,
    SLOT,
    SLOTS,
    UNITS,
    assemble,
)
from stratokit.dissect.layers import (
    HAS_OUTER,
    HAS_PORTS,
    HAS_TUNNEL,
    HAS_TUNNEL_ID,
    IS_FRAGMENT,
    MAX_TUNNELS,
    OF_PACKET,
    STOP_FRAGMENT,
    u64,
)
from stratokit.dissect.packets import dissect

LINKTYPE_RAW = 101


@dataclasses.dataclass(frozen=True, slots=True)
class Datagrams:
    """IP packets that were put together: of row `rows[i]` data[offsets[i] : offsets[i] + lens[i]], made of
    `fragments[i]` fragments.
    """

    rows: np.ndarray
    data: np.ndarray
    offsets: np.ndarray
    lens: np.ndarray
    fragments: np.ndarray


def _none() -> Datagrams:
    whole = np.empty(0, np.int64)
    return Datagrams(whole, np.empty(0, np.uint8), whole, whole.astype(np.uint32), whole.astype(np.uint16))


class Reassembler:
    """Fed with every batch in order, after `dissect`; keeps fragments from one batch to the next.

    Example:
        >>> reassembler = Reassembler()
        >>> found = dissect(data, offsets, cap_lens, orig_lens, link_types)  # doctest: +SKIP
        >>> whole = reassembler.feed(found, data, offsets, ts_ns)  # doctest: +SKIP
        >>> packet_columns(found, datagrams=whole)  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._slots = np.zeros(SLOTS, SLOT)
        self._pool = np.zeros((SLOTS, ROOM_BYTES), np.uint8)
        self._seen = np.zeros((SLOTS, UNITS), np.uint16)
        self._lost = np.zeros(1, np.int64)

    @property
    def lost(self) -> int:
        """Fragments that were given up so far: captured in part, part of no packet that can be, or of one
        that did not become whole in time or room.
        """
        return int(self._lost[0])

    @property
    def waiting(self) -> int:
        """Fragments whose datagram is not whole yet."""
        slots = self._slots
        return int(slots["fragments"][slots["used"] != 0].sum())

    def feed(
        self, found: dict[str, np.ndarray], data: np.ndarray, offsets: np.ndarray, ts_ns: np.ndarray
    ) -> Datagrams:
        """Put together what a batch completes, and change its columns accordingly, in place.

        Args:
            found: columns from `dissect`.
            data: the buffer they were decoded from.
            offsets: i8, where each frame begins in it.
            ts_ns: i8, time of each frame.
        """
        return self._feed(found, data, offsets, ts_ns, MAX_TUNNELS)

    def _feed(
        self,
        found: dict[str, np.ndarray],
        data: np.ndarray,
        offsets: np.ndarray,
        ts_ns: np.ndarray,
        depth: int,
    ) -> Datagrams:
        rows = np.flatnonzero(found["layers"] & IS_FRAGMENT)
        if not rows.size:
            return _none()
        whole_rows = rows[found["fragment_whole"][rows] != 0]
        self._lost[0] += len(rows) - len(whole_rows)
        rows = whole_rows
        _hide_transport(found, rows)
        whole = self._assemble(_pieces(found, offsets, ts_ns, rows), rows, data)
        if not whole.rows.size:
            return whole
        link_types = np.full(len(whole.rows), LINKTYPE_RAW, np.uint16)
        inner = dissect(whole.data, whole.offsets, whole.lens, whole.lens, link_types)
        if depth:
            # A tunnel's packet that came in fragments may carry a fragment.
            deeper = self._feed(inner, whole.data, whole.offsets, ts_ns[whole.rows], depth - 1)
            whole = _replaced(whole, deeper)
        _take_over(found, whole.rows, inner)
        return whole

    def _assemble(self, pieces: np.ndarray, rows: np.ndarray, data: np.ndarray) -> Datagrams:
        waiting = self._slots["got"][self._slots["used"] != 0].sum(dtype=np.int64)
        out = np.empty(8 * int(waiting) + int(pieces["size"].sum(dtype=np.int64)) + 64 * len(rows), np.uint8)
        completed, fragments = np.empty(len(rows), np.int64), np.empty(len(rows), np.uint16)
        ends = np.zeros(len(rows) + 1, np.int64)
        count = assemble(
            _readable(data),
            pieces,
            SEED,
            self._slots,
            self._pool,
            self._seen,
            out,
            completed,
            ends[1:],
            fragments,
            self._lost,
        )
        ends = ends[: count + 1]
        lens = np.diff(ends).astype(np.uint32)
        return Datagrams(
            rows[completed[:count]], out[: ends[-1]].copy(), ends[:-1].copy(), lens, fragments[:count]
        )


def _readable(data: np.ndarray) -> np.ndarray:
    data = np.ascontiguousarray(data, np.uint8).view()
    data.flags.writeable = False
    return data


def _pieces(
    found: dict[str, np.ndarray], offsets: np.ndarray, ts_ns: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    pieces = np.zeros(len(rows), PIECE)
    pieces["key"][:, 0:2] = found["src_ip"][rows].view(np.uint64)
    pieces["key"][:, 2:4] = found["dst_ip"][rows].view(np.uint64)
    version = found["ip_version"][rows].astype(np.uint64)
    # The protocol of IPv6 is the one that the first fragment names (RFC 8200): no part of the key.
    proto = np.where(version == 4, found["fragment_proto"][rows], 0).astype(np.uint64)
    pieces["key"][:, 4] = found["fragment_id"][rows].astype(np.uint64) | proto << u64(32) | version << u64(40)
    # Mirrored traffic shows one packet in several VLANs, and tunnels may use the same addresses.
    vlan = found["vlan"][rows].astype(np.uint64)
    pieces["key"][:, 5] = found["tunnel_id"][rows].astype(np.uint64) | vlan << u64(32)
    pieces["ts_ns"] = ts_ns[rows]
    pieces["at"] = offsets[rows] + found["fragment_at"][rows]
    pieces["size"] = found["fragment_len"][rows]
    pieces["offset"] = found["fragment_offset"][rows]
    pieces["ttl"] = found["ip_ttl"][rows]
    pieces["proto"] = found["fragment_proto"][rows]
    pieces["version"] = version
    pieces["more"] = found["fragment_more"][rows]
    return pieces


def _hide_transport(found: dict[str, np.ndarray], rows: np.ndarray) -> None:
    """A first fragment keeps its ports, which tell its conversation, unless they are TCP's: without flags
    and numbers such a segment would mislead.
    """
    version = found["ip_version"][rows]
    keep = ~(OF_PACKET & ~(layers.HAS_IP_PROTO | IS_FRAGMENT | HAS_PORTS)) & 0xFFFFFFFF
    found["layers"][rows] &= np.uint32(keep)
    tcp = rows[found["ip_proto"][rows] == 6]
    found["layers"][tcp] &= np.uint32(~HAS_PORTS & 0xFFFFFFFF)
    found["src_port"][tcp] = found["dst_port"][tcp] = 0
    for name in TRANSPORT:
        found[name][rows] = 0
    found["stop_layer"][rows] = np.where(version == 4, layers.IPV4, layers.IPV6)
    found["stop_reason"][rows] = -STOP_FRAGMENT


def _take_over(found: dict[str, np.ndarray], rows: np.ndarray, inner: dict[str, np.ndarray]) -> None:
    """The row of the completing fragment becomes that of the whole packet. It stays a fragment at a link, and
    in the tunnel that it came through unless the packet has a nearer one.
    """
    around = found["layers"][rows] & np.uint32(HAS_TUNNEL | HAS_TUNNEL_ID | HAS_OUTER)
    nearer = inner["layers"] & HAS_TUNNEL != 0
    stays = OF_LINK | IS_FRAGMENT
    bits = found["layers"][rows] & np.uint32(stays)
    bits |= inner["layers"] & np.uint32(~stays & 0xFFFFFFFF)
    found["layers"][rows] = np.where(nearer, bits, bits | around)
    depth = found["tunnel_depth"][rows] + inner["tunnel_depth"]
    for name, values in inner.items():
        if name in KEPT:
            continue
        if name.startswith(("tunnel", "outer_")):
            found[name][rows[nearer]] = values[nearer]
        else:
            found[name][rows] = values
    found["tunnel_depth"][rows] = depth


def _replaced(whole: Datagrams, deeper: Datagrams) -> Datagrams:
    """With the packets that were found within some of them instead of these."""
    if not deeper.rows.size:
        return whole
    offsets, lens = whole.offsets.copy(), whole.lens.copy()
    offsets[deeper.rows] = deeper.offsets + len(whole.data)
    lens[deeper.rows] = deeper.lens
    data = np.concatenate([whole.data, deeper.data])
    return Datagrams(whole.rows, data, offsets, lens, whole.fragments)


OF_LINK = layers.HAS_ETHER_TYPE | layers.HAS_VLAN | layers.HAS_VLAN_INNER | layers.HAS_MPLS | layers.HAS_PPPOE
TRANSPORT = (
    *("icmp_type", "icmp_code", "tcp_flags", "tcp_seq", "tcp_ack", "tcp_window"),
    *("payload_offset", "payload_len"),
)
# Columns of the frame itself, and of its place in the datagram.
KEPT = {
    *("layers", "ether_type", "vlan", "vlan_inner", "mpls_label", "pppoe_session"),
    *(name for name in layers.ROW.names or () if name.startswith("fragment_")),
}
