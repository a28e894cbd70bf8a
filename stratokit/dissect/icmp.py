"""ICMP (RFC 792) and ICMPv6 (RFC 4443), with the packet that an error is about."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.ip import walk
from stratokit.dissect.layers import (
    HAS_ICMP,
    HAS_ICMP_ID,
    HAS_ICMP_IP,
    HAS_ICMP_PORTS,
    Row,
    be16,
    lacking,
    le64,
    mapped,
    u8,
    u64,
)
from stratokit.dissect.transport import (
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_SCTP,
    PROTO_TCP,
    PROTO_UDP,
    PROTO_UDPLITE,
    payload,
)
from stratokit.kernels import kernel, routine

# Unreachable, source quench, redirect, time exceeded, parameter problem: the packet stands behind 8 bytes.
ERRORS_4 = (3, 4, 5, 11, 12)
# Unreachable, too big, time exceeded, parameter problem.
ERRORS_6 = (1, 2, 3, 4)
# It has addresses and options before the packet.
REDIRECT_6, REDIRECTED_HEADER = 137, 4
# Echo, timestamp, information, address mask (RFC 950); echo. They have an identifier and a sequence number.
QUERIES_4 = (0, 8, 13, 14, 15, 16, 17, 18)
QUERIES_6 = (128, 129)


@routine
def is_query(kind: int, four: bool) -> bool:
    """Whether a message of this type has an identifier."""
    return kind in QUERIES_4 if four else kind in QUERIES_6


@kernel
def icmp(data: np.ndarray, start: int, at: int, cap: int, wire: int, proto: int, row: Row) -> int:
    """Type 8, code 8, checksum 16, four bytes whose meaning the type gives."""
    stop = lacking(2, at, cap, wire)
    if stop:
        return stop
    kind = u8(data, at, cap)
    row.icmp_type = kind
    row.icmp_code = u8(data, at + 1, cap)
    row.layers |= HAS_ICMP
    stop = lacking(8, at, cap, wire)
    if stop:
        return stop
    payload(start, at + 8, cap, wire, row)
    four = proto == PROTO_ICMP
    if is_query(kind, four):
        row.icmp_id = be16(data, at + 4, cap)
        row.icmp_seq = be16(data, at + 6, cap)
        row.layers |= HAS_ICMP_ID
    elif (four and kind in ERRORS_4) or (not four and kind in ERRORS_6):
        about(data, at + 8, cap, wire, row)
    elif not four and kind == REDIRECT_6:
        redirected(data, at + 40, cap, wire, row)
    return 0


@routine
def redirected(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> None:
    """Options of neighbour discovery (RFC 4861 section 4.6): type 8, length in 8 bytes 8; the redirected
    packet stands behind 8 bytes of its own.
    """
    while at + 8 <= cap:
        if u8(data, at, cap) == REDIRECTED_HEADER:
            about(data, at + 8, cap, wire, row)
            return
        size = 8 * u8(data, at + 1, cap)
        if not size:
            return
        at += size


@kernel
def about(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> None:
    """Addresses, protocol and ports of the packet at `at`, of which only the beginning has to be there."""
    version = u8(data, at, cap) >> 4
    later = False
    if version == 4 and at + 20 <= cap:
        proto = u8(data, at + 9, cap)
        row.icmp_src_ip[0] = row.icmp_dst_ip[0] = u64(0)
        row.icmp_src_ip[1] = mapped(data, at + 12, cap)
        row.icmp_dst_ip[1] = mapped(data, at + 16, cap)
        later = be16(data, at + 6, cap) & 0x1FFF != 0
        at += (u8(data, at, cap) & 15) * 4
    elif version == 6 and at + 40 <= cap:
        for k in range(2):
            row.icmp_src_ip[k] = le64(data, at + 8 + 8 * k, cap)
            row.icmp_dst_ip[k] = le64(data, at + 24 + 8 * k, cap)
        proto, at, fragment_at = walk(data, at + 40, cap, wire, u8(data, at + 6, cap))
        later = fragment_at >= 0 and be16(data, fragment_at + 2, cap) & 0xFFF8 != 0
    else:
        return
    row.icmp_ip_version = version
    row.icmp_ip_proto = max(proto, 0)
    row.icmp_about_type = row.icmp_about_id = 0
    row.layers |= HAS_ICMP_IP
    if later:
        return
    if proto in (PROTO_ICMP, PROTO_ICMPV6) and at + 8 <= cap:
        row.icmp_about_type = u8(data, at, cap)
        if is_query(row.icmp_about_type, proto == PROTO_ICMP):
            row.icmp_about_id = be16(data, at + 4, cap)
    elif proto in (PROTO_TCP, PROTO_UDP, PROTO_SCTP, PROTO_UDPLITE) and at + 4 <= cap:
        row.icmp_src_port = be16(data, at, cap)
        row.icmp_dst_port = be16(data, at + 2, cap)
        row.layers |= HAS_ICMP_PORTS
