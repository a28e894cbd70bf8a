"""IP fragments put together (RFC 791 section 3.2, RFC 8200 section 4.5), in bounded memory, batch by batch.

A datagram is known by version, addresses, identification and, in IPv4, protocol. It belongs to the frame that
completes it: that row gets the columns of the whole packet, and its bytes stand in a side buffer. All other
rows of fragments have no transport but ports, where the fragment is the first one.

- At most SLOTS datagrams wait at a time, each in 64 KiB of its own: 36 MiB with what is known of them,
  whatever comes. A key leads to WAYS slots; where all of them wait, the one that waits longest gives way.
- What is not whole TIMEOUT_NS after its first fragment is given up (RFC 8200 section 4.5: 60 seconds).
- Of bytes that come twice the first ones stay. Fragments that were captured in part are left out, and with
  them their datagram.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np
from numba import njit

from stratokit.dissect import layers
from stratokit.dissect.layers import (
    HAS_OUTER,
    HAS_PORTS,
    HAS_TUNNEL,
    HAS_TUNNEL_ID,
    IS_FRAGMENT,
    MAX_TUNNELS,
    OF_PACKET,
    STOP_FRAGMENT,
    Row,
    i64,
    u64,
)
from stratokit.dissect.packets import dissect

WAYS, SETS = 8, 64
SLOTS = WAYS * SETS
TIMEOUT_NS = 60_000_000_000
DATAGRAM_MAX = 1 << 16
UNITS = DATAGRAM_MAX // 8
LINKTYPE_RAW = 101
HEADER_4, HEADER_6 = 20, 40
# Hashes differ from process to process, so that no capture can be made whose datagrams all meet in one set.
SEED = int.from_bytes(os.urandom(7), "little")

# A datagram that waits: what it is known by, when it began, how much of it is there.
SLOT = np.dtype(
    [
        ("key", "<u8", 5),  # addresses; identification, protocol, version
        ("first_ns", "<i8"),
        ("got", "<u4"),  # units of 8 bytes
        ("size", "<u4"),  # of the payload, 0 until the last fragment came
        ("fragments", "<u4"),
        ("proto", "u1"),
        ("used", "u1"),
    ],
    align=True,
)
# What a fragment is, for the kernel: of packets.dissect's columns, plus where it stands.
PIECE = np.dtype(
    [
        ("key", "<u8", 5),
        ("ts_ns", "<i8"),
        ("at", "<i8"),
        ("size", "<u4"),
        ("offset", "<u4"),
        ("ttl", "u1"),
        ("proto", "u1"),
        ("version", "u1"),
        ("more", "u1"),
    ],
    align=True,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Datagrams:
    """IP packets that were put together: of row `rows[i]` data[offsets[i] : offsets[i] + lens[i]]."""

    rows: np.ndarray
    data: np.ndarray
    offsets: np.ndarray
    lens: np.ndarray


def _none() -> Datagrams:
    whole = np.empty(0, np.int64)
    return Datagrams(whole, np.empty(0, np.uint8), whole, whole.astype(np.uint32))


@njit(nogil=True, cache=True)
def _find(slots: np.ndarray, piece: Row, seed: int, lost: np.ndarray) -> int:
    """The slot of the datagram that `piece` belongs to, made free for it where it is the first."""
    h = u64(seed)
    for k in range(5):
        h = (h ^ (h >> u64(32)) ^ piece.key[k]) * u64(0x9E3779B97F4A7C15)
    base = i64(h >> u64(58)) * WAYS
    found = base
    for s in range(base, base + WAYS):
        slot = slots[s]
        if slot.used and piece.ts_ns - slot.first_ns > TIMEOUT_NS:
            lost[0] += slot.fragments
            slot.used = 0
        if slot.used:
            same = True
            for k in range(5):
                same = same and slot.key[k] == piece.key[k]
            if same:
                return s
        # A free one before one in use, among those the one that waits longest.
        best = slots[found]
        if best.used and (not slot.used or slot.first_ns < best.first_ns):
            found = s
    slot = slots[found]
    if slot.used:
        lost[0] += slot.fragments
    for k in range(5):
        slot.key[k] = piece.key[k]
    slot.first_ns = piece.ts_ns
    slot.got = slot.size = slot.fragments = 0
    slot.proto = piece.proto
    slot.used = 1
    return int(found)


@njit(nogil=True, cache=True)
def _put(data: np.ndarray, piece: Row, slot: Row, pool: np.ndarray, seen: np.ndarray) -> bool:
    """Copy what is new of a fragment, 8 bytes at a time; whether the datagram is whole now."""
    end = i64(piece.offset) + i64(piece.size)
    if end > DATAGRAM_MAX - HEADER_4 or (piece.more and piece.size & 7):
        return False
    if slot.fragments == 0:
        seen[:] = 0
    slot.fragments += 1
    if not piece.more and slot.size == 0:
        slot.size = end
    if piece.offset == 0:
        slot.proto = piece.proto
    for unit in range(piece.offset >> 3, (end + 7) >> 3):
        if seen[unit]:
            continue
        seen[unit] = 1
        slot.got += 1
        first = i64(unit) * 8
        source = piece.at + first - i64(piece.offset)
        for k in range(min(8, end - first)):
            pool[first + k] = data[source + k]
    units = (i64(slot.size) + 7) >> 3
    if units == 0 or i64(slot.got) < units:
        return False
    return bool(np.all(seen[:units]))  # some of those that came may lie behind the end


@njit(nogil=True, cache=True)
def _write(piece: Row, slot: Row, pool: np.ndarray, out: np.ndarray, at: int) -> int:
    """The IP packet with the plainest header that says the same; returns where it ends."""
    four = piece.version == 4
    header = HEADER_4 if four else HEADER_6
    for k in range(header):
        out[at + k] = 0
    # Addresses are words whose bytes in memory are those of the address.
    words, base = (1, 12) if four else (2, 8)
    for side in range(2):
        for w in range(words):
            word = slot.key[2 * side + w] if not four else slot.key[2 * side + 1] >> u64(32)
            size = 4 if four else 8
            for k in range(size):
                out[at + base + (side * words + w) * size + k] = (word >> u64(8 * k)) & u64(255)
    size = i64(slot.size)
    if four:
        out[at] = 0x45
        length = size + HEADER_4
        identification = slot.key[4] & u64(0xFFFF)
        out[at + 2], out[at + 3] = length >> 8, length & 255
        out[at + 4], out[at + 5] = identification >> u64(8), identification & u64(255)
        out[at + 8], out[at + 9] = piece.ttl, slot.proto
    else:
        out[at] = 0x60
        out[at + 4], out[at + 5] = size >> 8, size & 255
        out[at + 6], out[at + 7] = slot.proto, piece.ttl
    at += header
    out[at : at + size] = pool[:size]
    return int(at + size)


@njit(nogil=True, cache=True)
def _assemble(
    data: np.ndarray,
    pieces: np.ndarray,
    seed: int,
    slots: np.ndarray,
    pool: np.ndarray,
    seen: np.ndarray,
    out: np.ndarray,
    completed: np.ndarray,
    ends: np.ndarray,
    lost: np.ndarray,
) -> int:
    """Take all fragments in order; returns how many datagrams became whole."""
    count, at = 0, 0
    for i in range(len(pieces)):
        piece = pieces[i]
        s = _find(slots, piece, seed, lost)
        slot = slots[s]
        if not _put(data, piece, slot, pool[s], seen[s]):
            continue
        at = _write(piece, slot, pool[s], out, at)
        slot.used = 0
        completed[count] = i
        ends[count] = at
        count += 1
    return count


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
        self._pool = np.zeros((SLOTS, DATAGRAM_MAX), np.uint8)
        self._seen = np.zeros((SLOTS, UNITS), np.uint8)
        self._lost = np.zeros(1, np.int64)

    @property
    def lost(self) -> int:
        """Fragments that were given up so far, as their datagram did not become whole in time or room."""
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
        rows = rows[found["fragment_whole"][rows] != 0]
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
        completed = np.empty(len(rows), np.int64)
        ends = np.zeros(len(rows) + 1, np.int64)
        count = _assemble(
            _readable(data),
            pieces,
            SEED,
            self._slots,
            self._pool,
            self._seen,
            out,
            completed,
            ends[1:],
            self._lost,
        )
        ends = ends[: count + 1]
        return Datagrams(
            rows[completed[:count]], out[: ends[-1]].copy(), ends[:-1].copy(), np.diff(ends).astype(np.uint32)
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
    return Datagrams(whole.rows, np.concatenate([whole.data, deeper.data]), offsets, lens)


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
