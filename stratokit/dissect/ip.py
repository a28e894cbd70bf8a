"""IPv4 (RFC 791) with options, IPv6 (RFC 8200) with extension headers (RFC 7045, AH: RFC 4302).

A fragment is described here and put together in `fragments`; a later one stops, as its bytes are the middle
of something.
"""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import (
    HAS_IP,
    HAS_IP_PROTO,
    IS_FRAGMENT,
    STOP_FRAGMENT,
    STOP_LENGTH,
    STOP_UNKNOWN,
    Row,
    be16,
    be32,
    lacking,
    le64,
    u8,
    u64,
)
from stratokit.kernels import kernel, routine

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60
MOBILITY, HIP, SHIM6 = 135, 139, 140  # RFC 6275, RFC 7401, RFC 5533
MAPPED = u64(0xFFFF0000)


@routine
def _fragment(start: int, at: int, cap: int, wire: int, bits: int, whole: bool, row: Row) -> None:
    """Fields that both versions have: offset in 8 bytes, more fragments; what follows is the fragment.

    `whole`: the frame is as long as the IP header says.
    """
    row.layers |= IS_FRAGMENT
    row.fragment_offset = bits >> 1
    row.fragment_more = bits & 1
    row.fragment_at = min(at, cap) - start
    row.fragment_len = max(wire - at, 0)
    row.fragment_whole = whole and wire <= cap


@kernel
def ipv4(data: np.ndarray, start: int, at: int, cap: int, wire: int, row: Row) -> tuple[int, int, int, int]:
    """Version 4 bits, header length in words 4, TOS 8, total length 16, id 16, flags 3, fragment offset 13,
    TTL 8, protocol 8, checksum 16, source 32, destination 32, options.
    """
    stop = lacking(20, at, cap, wire)
    if stop:
        return stop, at, cap, wire
    first = u8(data, at, cap)
    if first >> 4 != 4:
        return STOP_UNKNOWN, at, cap, wire
    row.layers |= HAS_IP | HAS_IP_PROTO
    row.ip_version = 4
    row.ip_id = be16(data, at + 4, cap)
    row.ip_ttl = u8(data, at + 8, cap)
    # Source and destination stand side by side; each goes behind the ten zeros and two ones of
    # ::ffff:a.b.c.d.
    both = le64(data, at + 12, cap)
    row.src_ip[0] = row.dst_ip[0] = u64(0)
    row.src_ip[1] = MAPPED | both << u64(32)
    row.dst_ip[1] = MAPPED | (both >> u64(32)) << u64(32)
    proto = u8(data, at + 9, cap)
    row.ip_proto = proto

    header = (first & 15) * 4
    total = be16(data, at + 2, cap)
    whole = True
    # Zero is what segmentation offload leaves in packets that are longer than 16 bits can say.
    if total:
        if header < 20 or total < header:
            return STOP_LENGTH, at, cap, wire
        whole = at + total <= wire
        wire = min(wire, at + total)
        cap = min(cap, wire)
    elif header < 20:
        return STOP_LENGTH, at, cap, wire
    stop = lacking(header, at, cap, wire)
    if stop:
        return stop, at, cap, wire
    bits = be16(data, at + 6, cap)
    if bits & 0x3FFF:  # more fragments, or not the first
        _fragment(start, at + header, cap, wire, (bits & 0x1FFF) << 4 | bits >> 13 & 1, whole, row)
        row.fragment_id = row.ip_id
        row.fragment_proto = proto
        if bits & 0x1FFF:
            return STOP_FRAGMENT, at, cap, wire
    if proto == AUTHENTICATION:
        return _extensions(data, start, at + header, cap, wire, proto, True, row)
    return proto, at + header, cap, wire


@kernel
def ipv6(data: np.ndarray, start: int, at: int, cap: int, wire: int, row: Row) -> tuple[int, int, int, int]:
    """Version 4 bits, traffic class 8, flow label 20, payload length 16, next header 8, hop limit 8,
    source 128, destination 128.
    """
    stop = lacking(40, at, cap, wire)
    if stop:
        return stop, at, cap, wire
    if u8(data, at, cap) >> 4 != 6:
        return STOP_UNKNOWN, at, cap, wire
    row.layers |= HAS_IP
    row.ip_version = 6
    row.ip_id = 0
    row.ip_ttl = u8(data, at + 7, cap)
    for k in range(2):
        row.src_ip[k] = le64(data, at + 8 + 8 * k, cap)
        row.dst_ip[k] = le64(data, at + 24 + 8 * k, cap)
    length = be16(data, at + 4, cap)
    # Zero stands in jumbograms (RFC 2675) and in what segmentation offload makes of more than 64 KiB.
    whole = at + 40 + length <= wire
    if length:
        wire = min(wire, at + 40 + length)
        cap = min(cap, wire)
    return _extensions(data, start, at + 40, cap, wire, u8(data, at + 6, cap), whole, row)


@routine
def _extensions(
    data: np.ndarray, start: int, at: int, cap: int, wire: int, proto: int, whole: bool, row: Row
) -> tuple[int, int, int, int]:
    """The chain up to the transport header, or to where it is cut or a later fragment begins."""
    proto, at, fragment_at = walk(data, at, cap, wire, proto)
    if fragment_at >= 0:
        bits = be16(data, fragment_at + 2, cap)
        if bits & 0xFFF9:  # an atomic fragment is whole (RFC 6946)
            _fragment(start, fragment_at + 8, cap, wire, (bits >> 3) << 4 | bits & 1, whole, row)
            row.fragment_id = be32(data, fragment_at + 4, cap)
            row.fragment_proto = u8(data, fragment_at, cap)
            if bits & 0xFFF8:
                row.ip_proto = row.fragment_proto
                row.layers |= HAS_IP_PROTO
                return STOP_FRAGMENT, at, cap, wire
    if proto >= 0:
        row.ip_proto = proto
        row.layers |= HAS_IP_PROTO
    return proto, at, cap, wire


@routine
def walk(data: np.ndarray, at: int, cap: int, wire: int, proto: int) -> tuple[int, int, int]:
    """Walk extension headers: the transport protocol or a stop reason, where it begins, and where the last
    fragment header stands (-1: none). Each header is at least 8 bytes long, so the walk ends; it ends at the
    header of a later fragment, too.
    """
    fragment_at = -1
    while True:
        if proto in (HOP_BY_HOP, ROUTING, DESTINATION, MOBILITY, HIP, SHIM6):
            # next header 8, length in 8 bytes without the first 8
            unit, base = 8, 8
        elif proto == AUTHENTICATION:
            # next header 8, length in 4 bytes without the first 8
            unit, base = 4, 8
        elif proto == FRAGMENT:
            # next header 8, reserved 8, offset 13, reserved 2, more fragments 1, identification 32
            unit, base = 0, 8
        else:
            return proto, at, fragment_at
        stop = lacking(8, at, cap, wire)
        if stop:
            return stop, at, fragment_at
        if proto == FRAGMENT:
            fragment_at = at
            if be16(data, at + 2, cap) & 0xFFF8:
                return u8(data, at, cap), at + 8, fragment_at
        size = base + unit * u8(data, at + 1, cap)
        stop = lacking(size, at, cap, wire)
        if stop:
            return stop, at, fragment_at
        proto = u8(data, at, cap)
        at += size
