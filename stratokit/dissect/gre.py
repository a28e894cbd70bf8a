"""GRE (RFC 2784 and RFC 2890, routing of RFC 1701, version 1 of RFC 2637) and ERSPAN, which rides on it."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import (
    HAS_TUNNEL_ID,
    STOP_UNKNOWN,
    T_ERSPAN,
    T_GRE,
    Row,
    be16,
    be32,
    lacking,
    u8,
)
from stratokit.dissect.link import LENGTH_MAX, TYPE_BRIDGED, TYPE_IPV4
from stratokit.kernels import kernel, routine

CHECKSUM, ROUTING, KEY, SEQUENCE, ACKNOWLEDGED = 0x8000, 0x4000, 0x2000, 0x1000, 0x0080
PORT = 4754  # GRE in UDP (RFC 8086)
TYPE_ERSPAN, TYPE_ERSPAN_3, TYPE_WCCP = 0x88BE, 0x22EB, 0x883E
TYPE_EOIP = 0x6400  # MikroTik's Ethernet over IP


@kernel
def gre(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> tuple[int, int]:
    """Flags 13 bits, version 3, EtherType 16, then what the flags announce: checksum 16 and offset 16, key
    32, sequence 32, acknowledgment 32 (version 1), routing entries. Returns EtherType or stop reason, `at`.
    """
    row.tunnel = T_GRE
    stop = lacking(4, at, cap, wire)
    if stop:
        return stop, at
    flags, ether_type = be16(data, at, cap), be16(data, at + 2, cap)
    version = flags & 7
    if version > 1:
        return STOP_UNKNOWN, at
    key_at = at + (8 if flags & (CHECKSUM | ROUTING) else 4)
    size = key_at - at + 4 * (flags >> 13 & 1) + 4 * (flags >> 12 & 1)  # KEY, SEQUENCE
    if version == 1 and flags & ACKNOWLEDGED:
        size += 4
    stop = lacking(size, at, cap, wire)
    if stop:
        return stop, at
    if flags & KEY:
        row.tunnel_id = _key(data, key_at, cap, version, ether_type)
        row.layers |= HAS_TUNNEL_ID
    at += size
    if flags & ROUTING:
        stop, at = _routing(data, at, cap, wire)
        if stop:
            return stop, at
    if ether_type in (TYPE_ERSPAN, TYPE_ERSPAN_3):
        return _erspan(data, at, cap, wire, ether_type, flags & SEQUENCE, row)
    if ether_type == TYPE_EOIP:
        return TYPE_BRIDGED, at
    if ether_type == TYPE_WCCP:
        # Version 2 of WCCP has a redirect header, version 1 has the packet at once.
        return TYPE_IPV4, at if u8(data, at, cap) >> 4 == 4 else at + 4
    # Below stand lengths of IEEE 802.3, which GRE does not carry; 0 is a keep-alive.
    return (ether_type if ether_type > LENGTH_MAX else STOP_UNKNOWN), at


@routine
def _key(data: np.ndarray, at: int, cap: int, version: int, ether_type: int) -> int:
    """A number; in version 1 a payload length and a call id, in which MikroTik has the bytes swapped."""
    if version == 0:
        return int(be32(data, at, cap))
    if ether_type == TYPE_EOIP:
        return int(u8(data, at + 2, cap) | u8(data, at + 3, cap) << 8)
    return int(be16(data, at + 2, cap))


@routine
def _routing(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """Entries of address family 16, offset 8, length 8, bytes; one of length 0 is the last (RFC 1701)."""
    while True:
        stop = lacking(4, at, cap, wire)
        if stop:
            return stop, at
        size = u8(data, at + 3, cap)
        at += 4 + size
        if not size:
            return 0, at


@routine
def _erspan(
    data: np.ndarray, at: int, cap: int, wire: int, ether_type: int, sequence: int, row: Row
) -> tuple[int, int]:
    """Type I has no header and no sequence number; type II (draft-foschiano-erspan-03) version 4 bits, VLAN
    12, flags 6, session 10, index 32; type III adds a timestamp and more, and perhaps 8 bytes of platform.
    """
    row.tunnel = T_ERSPAN
    if ether_type == TYPE_ERSPAN and not sequence:
        return TYPE_BRIDGED, at
    size = 8 if ether_type == TYPE_ERSPAN else 12
    stop = lacking(size, at, cap, wire)
    if stop:
        return stop, at
    if size == 12 and be16(data, at + 10, cap) & 1:
        size += 8
    row.tunnel_id = be16(data, at + 2, cap) & 0x03FF
    row.layers |= HAS_TUNNEL_ID
    return TYPE_BRIDGED, at + size
