"""TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792), ICMPv6 (RFC 4443), SCTP (RFC 9260): their fixed headers.

The payload is what the headers say; its offset never lies behind the captured bytes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from stratokit.dissect.layers import (
    HAS_ICMP,
    HAS_PAYLOAD,
    HAS_PORTS,
    HAS_TCP,
    STOP_LENGTH,
    Row,
    be16,
    be32,
    lacking,
    u8,
)

PROTO_ICMP, PROTO_TCP, PROTO_UDP, PROTO_ICMPV6, PROTO_SCTP = 1, 6, 17, 58, 132


@njit(nogil=True, cache=True)
def _ports(data: np.ndarray, at: int, cap: int, row: Row) -> None:
    """Source and destination port, 16 bits each, are the first four bytes of TCP, UDP and SCTP."""
    if at + 4 <= cap:
        row.src_port = be16(data, at, cap)
        row.dst_port = be16(data, at + 2, cap)
        row.layers |= HAS_PORTS


@njit(nogil=True, cache=True)
def _payload(start: int, at: int, cap: int, wire: int, row: Row) -> None:
    """Payload from `at` to `wire` in a frame that begins at `start`."""
    row.payload_offset = min(at, cap) - start
    row.payload_len = max(wire - at, 0)
    row.layers |= HAS_PAYLOAD


@njit(nogil=True, cache=True)
def tcp(data: np.ndarray, start: int, at: int, cap: int, wire: int, row: Row) -> int:
    """Ports 32, sequence 32, acknowledgment 32, header length in words 4, reserved 3, flags 9, window 16,
    checksum 16, urgent pointer 16, options.
    """
    _ports(data, at, cap, row)
    stop = lacking(16, at, cap, wire)
    if stop:
        return stop
    row.tcp_seq = be32(data, at + 4, cap)
    row.tcp_ack = be32(data, at + 8, cap)
    flags = be16(data, at + 12, cap)
    row.tcp_flags = flags & 0x01FF
    row.tcp_window = be16(data, at + 14, cap)
    row.layers |= HAS_TCP
    header = (flags >> 12) * 4
    if header < 20 or at + header > wire:
        return STOP_LENGTH
    _payload(start, at + header, cap, wire, row)
    return lacking(header, at, cap, wire)


@njit(nogil=True, cache=True)
def udp(data: np.ndarray, start: int, at: int, cap: int, wire: int, row: Row) -> int:
    """Ports 32, length of header and payload 16, checksum 16."""
    _ports(data, at, cap, row)
    stop = lacking(8, at, cap, wire)
    if stop:
        return stop
    length = be16(data, at + 4, cap)
    # Zero stands in jumbograms (RFC 2675) and in what segmentation offload makes of more than 64 KiB.
    if length:
        if length < 8:
            return STOP_LENGTH
        wire = min(wire, at + length)
    _payload(start, at + 8, cap, wire, row)
    return 0


@njit(nogil=True, cache=True)
def icmp(data: np.ndarray, start: int, at: int, cap: int, wire: int, row: Row) -> int:
    """ICMP and ICMPv6: type 8, code 8, checksum 16, four bytes whose meaning the type gives."""
    stop = lacking(2, at, cap, wire)
    if stop:
        return stop
    row.icmp_type = u8(data, at, cap)
    row.icmp_code = u8(data, at + 1, cap)
    row.layers |= HAS_ICMP
    stop = lacking(8, at, cap, wire)
    if stop:
        return stop
    _payload(start, at + 8, cap, wire, row)
    return 0


@njit(nogil=True, cache=True)
def sctp(data: np.ndarray, start: int, at: int, cap: int, wire: int, row: Row) -> int:
    """Ports 32, verification tag 32, checksum 32, chunks."""
    _ports(data, at, cap, row)
    stop = lacking(12, at, cap, wire)
    if stop:
        return stop
    _payload(start, at + 12, cap, wire, row)
    return 0
