"""Which conversation a packet belongs to, and which side sent it: one pass, packet by packet, batch by batch.

A conversation is a pair of addresses, a pair of ports, a protocol and a place: a VLAN and a tunnel. A
mirror port may show the two directions in two VLANs, and one of them may go through a tunnel while the
other does not, so each direction has its own. Conversations are numbered from 0 in the order of their first
packets, so numbers do not depend on how packets were cut into batches.

- TCP: as Wireshark does, a SYN without ACK whose sequence number differs from the first one known of its
  sender starts a new connection on the same ports; the same SYN again (sent again, or seen a second time)
  does not.
- UDP, SCTP, ICMP and everything else over IP: a pause longer than the protocol's idle time starts a new one.
- ICMP: request and reply of one kind (echo, timestamp, ...) and one identifier belong together.
- A packet whose ports are unknown, as a later IP fragment of UDP, belongs to none (-1).

Left out: SCTP multi-homing, MPTCP subflows (RFC 8684).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.dissect.layers import i64, u64
from stratokit.kernels import kernel, routine
from stratokit.streams.about import About

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
PORTED = (TCP, UDP, SCTP)
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

# What NATs shall keep: a UDP binding two minutes (RFC 4787 REQ-5), an ICMP query one (RFC 5508 REQ-2).
UDP_IDLE_NS = 120 * 1_000_000_000
ICMP_IDLE_NS = 60 * 1_000_000_000
WELL_KNOWN_PORTS = 1024  # RFC 6335 section 6: system ports are 0-1023

_NO_ENTRY = -1

# A conversation is a row of eight 64-bit words, one cache line: five words of key, then these.
_FLOW = 5  # number << _STATE_BITS | state
_LAST = 6  # TCP: first sequence numbers, side 0 in the low half, side 1 in the high one; others: last time
_PLACES = 7  # of side 0 in bits 0-31, of side 1 in bits 32-63
_STATE_BITS = 8
_BASE_KNOWN, _CLIENT_IS_1, _PLACE_KNOWN = 1, 4, 8  # state; _BASE_KNOWN and _PLACE_KNOWN << side
# Conversations between the same ends that are told apart by their places; of more, packets go to the first.
PLACES_MAX = 256


@routine
def icmp_class(ip_proto: int, icmp_type: int) -> int:
    """One number for the request and the reply of an ICMP exchange; the type itself for all others."""
    if ip_proto == ICMP:
        if icmp_type == 0:  # echo reply belongs to echo, 8
            return 8
        if icmp_type in (14, 16, 18):  # timestamp, information and mask reply
            return icmp_type - 1
        if icmp_type == 9:  # router advertisement belongs to solicitation, 10
            return 10
    elif icmp_type in (129, 131, 134, 136):  # echo reply, MLD report, router and neighbour advertisement
        return icmp_type - 1
    return icmp_type


@kernel
def sender_is_client(ip_proto: int, tcp_flags: int, src_port: int, dst_port: int, icmp_type: int) -> bool:
    """Whether the sender of the packet that decides about a conversation is its client.

    1. The sender of a SYN is the client, the sender of a SYN-ACK the server.
    2. ICMP: the sender of a reply is the server.
    3. Where one port is well-known (below 1024) and the other is not, the well-known one is the server's.
    4. TCP that began before the capture: the lower port is the server's.
    5. Otherwise the first sender is the client.
    """
    if ip_proto == TCP and tcp_flags & SYN:
        return tcp_flags & ACK == 0
    if ip_proto in (ICMP, ICMPV6):
        return icmp_class(ip_proto, icmp_type) == icmp_type
    if (src_port < WELL_KNOWN_PORTS) != (dst_port < WELL_KNOWN_PORTS):
        return dst_port < WELL_KNOWN_PORTS
    if ip_proto == TCP and src_port != dst_port:
        return dst_port < src_port
    return True


@routine
def _slot(slots: np.ndarray, seed: Any, key: Any) -> Any:
    """Where the search for a key begins."""
    k0, k1, k2, k3, k4 = key
    h = seed ^ k0
    for k in (k1, k2, k3, k4):
        h = (h ^ (h >> u64(32))) * u64(0x9E3779B97F4A7C15) ^ k
    h = (h ^ (h >> u64(29))) * u64(0xBF58476D1CE4E5B9)
    return i64(h ^ (h >> u64(32))) & i64(slots.size - 1)


@routine
def _find(rows: np.ndarray, slots: np.ndarray, seed: Any, key: Any, side: int, place: Any) -> tuple[int, int]:
    """(row, free slot); row is -1 when the conversation is new. Linear probing.

    Of several conversations with one key, that whose sender uses this place is taken, else the first whose
    sender was not heard yet.
    """
    k0, k1, k2, k3, k4 = key
    at = _slot(slots, seed, key)
    silent = first = i64(_NO_ENTRY)
    met = 0
    while True:
        i = i64(slots[at])
        if i == _NO_ENTRY:
            return silent, at
        same = rows[i, 0] == k0 and rows[i, 1] == k1 and rows[i, 2] == k2
        if same and rows[i, 3] == k3 and rows[i, 4] == k4:
            if rows[i, _FLOW] & u64(_PLACE_KNOWN << side) == 0:
                silent = i if silent == _NO_ENTRY else silent
            elif (rows[i, _PLACES] >> u64(32 * side)) & u64(0xFFFFFFFF) == u64(place):
                return i, at
            first = i if met == 0 else first
            met += 1
            if met == PLACES_MAX:
                return (first if silent == _NO_ENTRY else silent), at
        at = (at + 1) & (slots.size - 1)


@kernel
def _fill_slots(rows: np.ndarray, used: int, slots: np.ndarray, seed: Any) -> None:
    slots[:] = _NO_ENTRY
    for i in range(used):
        at = _slot(slots, seed, (rows[i, 0], rows[i, 1], rows[i, 2], rows[i, 3], rows[i, 4]))
        while slots[at] != _NO_ENTRY:
            at = (at + 1) & (slots.size - 1)
        slots[at] = i


@routine
def _key(src: Any, dst: Any, ports: Any, proto: int, kind: int, icmp_id: int) -> tuple[Any, int]:
    """(key, side): the same five words for both directions, and 1 where the sender is the greater end.

    Takes numbers: of arrays in a tuple the references would be counted for every packet.
    """
    sp, dp, k = u64(0), u64(0), u64(0)
    if proto in (ICMP, ICMPV6):
        k = u64(icmp_class(proto, kind))
        sp = dp = u64(icmp_id)
    elif proto in PORTED:
        sp, dp = u64(ports[0]), u64(ports[1])
    (s0, s1), (d0, d1) = src, dst
    side = 0
    if s0 > d0 or (s0 == d0 and (s1 > d1 or (s1 == d1 and sp > dp))):
        side = 1
        s0, s1, sp, d0, d1, dp = d0, d1, dp, s0, s1, sp
    rest = (sp << u64(48)) | (dp << u64(32)) | (k << u64(8)) | u64(proto)
    return (s0, s1, d0, d1, rest), side


@routine
def _learn_bases(rows: np.ndarray, at: int, side: int, flags: int, seq: Any, ack: Any) -> None:
    """Keep each side's first sequence number: the SYN's, else as if its first segment had followed a SYN."""
    for which in range(2):
        known = u64(_BASE_KNOWN << which)
        if rows[at, _FLOW] & known or (which != side and flags & ACK == 0):
            continue
        base = np.uint32(ack - np.uint32(1))
        if which == side:
            base = seq if flags & SYN else np.uint32(seq - np.uint32(1))
        rows[at, _LAST] |= u64(base) << u64(32 * which)
        rows[at, _FLOW] |= known


@routine
def _begins_anew(rows: np.ndarray, at: int, proto: int, side: int, flags: int, seq: Any, ts: int) -> Any:
    """Whether a packet on known addresses and ports starts another conversation."""
    if proto == TCP:  # Wireshark's rule for reused ports
        if flags & (SYN | ACK) != SYN or rows[at, _FLOW] & u64(_BASE_KNOWN << side) == 0:
            return False
        return np.uint32(rows[at, _LAST] >> u64(32 * side)) != seq
    idle = ICMP_IDLE_NS if proto in (ICMP, ICMPV6) else UDP_IDLE_NS
    return ts - i64(rows[at, _LAST]) > idle


@routine
def _known(rows: np.ndarray, slots: np.ndarray, seed: Any, key: Any) -> int:
    """The conversation of a key in whatever VLAN, -1 where there is none."""
    k0, k1, k2, k3, k4 = key
    at = _slot(slots, seed, key)
    while True:
        i = i64(slots[at])
        if i == _NO_ENTRY:
            return -1
        same = rows[i, 0] == k0 and rows[i, 1] == k1 and rows[i, 2] == k2
        if same and rows[i, 3] == k3 and rows[i, 4] == k4:
            return int(rows[i, _FLOW] >> u64(_STATE_BITS))
        at = (at + 1) & (slots.size - 1)


@routine
def _embedded_key(about: Any, e: int) -> tuple[Any, int]:
    src, dst, src_port, dst_port, proto, kind, icmp_id = about
    ends = (src[e, 0], src[e, 1]), (dst[e, 0], dst[e, 1])
    return _key(*ends, (src_port[e], dst_port[e]), i64(proto[e]), kind[e], icmp_id[e])


@kernel
def _assign(
    packets: Any,
    start: int,
    about: Any,
    rows: np.ndarray,
    slots: np.ndarray,
    used: int,
    flows: int,
    seed: Any,
    out: Any,
) -> tuple[int, int, int]:
    """Give flows to packets from `start` on; stops early, returning where, when the table has no room."""
    src, dst, src_port, dst_port, protos, place, has_ports, all_flags, seq, ack, kind, icmp_id, ts = packets
    out_flow, out_from_client = out
    errors, embedded, out_about = about
    e = i64(0)
    while e < errors.size and errors[e] < start:  # np.searchsorted would load all of numba's numpy with it
        e += 1
    for i in range(start, protos.size):
        if e < errors.size and errors[e] == i:
            key, _ = _embedded_key(embedded, e)
            out_about[e] = _known(rows, slots, seed, key)
            e += 1
        proto, flags, sport, dport = i64(protos[i]), i64(all_flags[i]), src_port[i], dst_port[i]
        if proto < 0 or (proto in PORTED and not has_ports[i]):
            out_flow[i] = -1
            out_from_client[i] = False
            continue
        ends = (src[i, 0], src[i, 1]), (dst[i, 0], dst[i, 1])
        key, side = _key(*ends, (sport, dport), proto, kind[i], icmp_id[i])
        at, slot = _find(rows, slots, seed, key, side, place[i])
        is_new = at == _NO_ENTRY
        if is_new:
            if used == rows.shape[0]:
                return i, used, flows
            at = used
            used += 1
            slots[slot] = at
            rows[at, 0], rows[at, 1], rows[at, 2], rows[at, 3], rows[at, 4] = key
            rows[at, _FLOW] = rows[at, _PLACES] = 0
        if is_new or _begins_anew(rows, at, proto, side, flags, seq[i], ts[i]):
            known_places = rows[at, _FLOW] & u64(3 * _PLACE_KNOWN)
            rows[at, _FLOW] = u64(flows << _STATE_BITS) | known_places
            if sender_is_client(proto, flags, i64(sport), i64(dport), i64(kind[i])) == (side == 1):
                rows[at, _FLOW] |= u64(_CLIENT_IS_1)
            rows[at, _LAST] = u64(0) if proto == TCP else u64(ts[i])
            flows += 1
        if rows[at, _FLOW] & u64(_PLACE_KNOWN << side) == 0:
            rows[at, _FLOW] |= u64(_PLACE_KNOWN << side)
            rows[at, _PLACES] |= u64(place[i]) << u64(32 * side)
        if proto == TCP:
            _learn_bases(rows, at, side, flags, seq[i], ack[i])
        elif ts[i] > i64(rows[at, _LAST]):
            rows[at, _LAST] = u64(ts[i])
        out_flow[i] = i64(rows[at, _FLOW] >> u64(_STATE_BITS))
        out_from_client[i] = (side == 1) == (rows[at, _FLOW] & u64(_CLIENT_IS_1) != 0)
    return protos.size, used, flows


class FlowTable:
    """Gives every packet its conversation; keeps its state between batches.

    Memory grows with the number of address and port pairs (at most 160 bytes each), not with packets.

    >>> table = FlowTable()
    >>> a, b = np.zeros((1, 16), "u1"), np.ones((1, 16), "u1")
    >>> table.assign(a, b, [40000], [80], [6], [0], [SYN], [7], [0])
    (array([0]), array([ True]))
    >>> table.assign(b, a, [80], [40000], [6], [0], [SYN | ACK], [9], [1])
    (array([0]), array([False]))
    """

    def __init__(self, capacity: int = 1 << 12) -> None:
        size = 1 << max(capacity - 1, 1).bit_length()
        self._seed = u64(secrets.randbits(64))  # so that nobody can choose addresses that collide
        self._rows = np.empty((size, 8), np.uint64)
        self._slots = np.full(2 * size, _NO_ENTRY, np.int32)
        self._used = 0
        self._flows = 0

    def __len__(self) -> int:
        """Number of conversations so far."""
        return self._flows

    def assign(
        self,
        src_ip16: NDArray[np.uint8],
        dst_ip16: NDArray[np.uint8],
        src_port: ArrayLike,
        dst_port: ArrayLike,
        ip_proto: ArrayLike,
        vlan: ArrayLike,
        tcp_flags: ArrayLike,
        tcp_seq: ArrayLike,
        ts_ns: ArrayLike,
        has_ports: ArrayLike | None = None,
        *,
        tcp_ack: ArrayLike | None = None,
        icmp_type: ArrayLike | None = None,
        icmp_id: ArrayLike | None = None,
        valid: ArrayLike | None = None,
        tunnel: ArrayLike | None = None,
        about: About | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(flow_id, from_client) of packets in capture order; flow_id is -1 where a packet belongs to none.

        Args:
            src_ip16: addresses as (n, 16) bytes, IPv4 as ::ffff:a.b.c.d; `dst_ip16` likewise.
            vlan: VLAN id; any one number stands for "none".
            has_ports: false where ports are unknown, as in later IP fragments; default: known everywhere.
            tcp_ack: lets an ACK tell the first sequence number of the side not yet seen, as Wireshark does.
            valid: false where a packet is not IP at all.
            tunnel: a number for the tunnel that the packet is in, 0 for none.
            about: packets that ICMP errors are about; its `flow_id` is filled in.
        """
        proto = np.array(ip_proto, np.int16)
        n = proto.size
        if valid is not None:
            proto[~np.asarray(valid, np.bool_)] = -1
        flags = np.ascontiguousarray(tcp_flags, np.uint16)
        if tcp_ack is None:  # nothing can be learnt from an ACK whose number is unknown
            flags = np.where((flags & SYN) != 0, flags, flags & ~np.uint16(ACK))
        packets = (
            np.ascontiguousarray(src_ip16, np.uint8).view(np.uint64),
            np.ascontiguousarray(dst_ip16, np.uint8).view(np.uint64),
            np.ascontiguousarray(src_port, np.uint16),
            np.ascontiguousarray(dst_port, np.uint16),
            proto,
            _places(vlan, tunnel),
            _or_default(has_ports, n, np.bool_, True),
            flags,
            np.ascontiguousarray(tcp_seq, np.uint32),
            _or_default(tcp_ack, n, np.uint32, 0),
            _or_default(icmp_type, n, np.uint8, 0),
            _or_default(icmp_id, n, np.uint16, 0),
            np.ascontiguousarray(ts_ns, np.int64),
        )
        out = (np.empty(n, np.int64), np.empty(n, np.bool_))
        errors = (About.none() if about is None else about).arrays()
        done = 0
        while True:
            done, self._used, self._flows = _assign(
                packets, done, errors, self._rows, self._slots, self._used, self._flows, self._seed, out
            )
            if done == n:
                return out
            self._grow()

    def _grow(self) -> None:
        self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._slots = np.empty(2 * self._slots.size, np.int32)
        _fill_slots(self._rows, self._used, self._slots, self._seed)


def _places(vlan: ArrayLike, tunnel: ArrayLike | None) -> NDArray[np.uint32]:
    """One number for VLAN and tunnel."""
    places = np.ascontiguousarray(vlan).astype(np.uint32)
    if tunnel is not None:
        places ^= np.asarray(tunnel).astype(np.uint32) * np.uint32(0x9E3779B1)  # odd: tunnels stay distinct
    return places


def _or_default(values: ArrayLike | None, n: int, dtype: Any, default: Any) -> NDArray[Any]:
    if values is None:
        return np.full(n, default, dtype)
    return np.ascontiguousarray(values, dtype)
