"""What the transport layers share: ports and payload. SCTP (RFC 9260), whose chunks stay unread."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import (
    HAS_PAYLOAD,
    HAS_PORTS,
    HAS_SCTP,
    HAS_SCTP_CHUNK,
    Row,
    be16,
    be32,
    lacking,
    u8,
)
from stratokit.kernels import kernel, routine

PROTO_ICMP, PROTO_TCP, PROTO_UDP, PROTO_ICMPV6, PROTO_SCTP, PROTO_UDPLITE = 1, 6, 17, 58, 132, 136
PROTO_ESP = 50


@kernel
def ports(data: np.ndarray, at: int, cap: int, row: Row) -> None:
    """Source and destination port, 16 bits each, are the first four bytes of TCP, UDP and SCTP."""
    if at + 4 <= cap:
        row.src_port = be16(data, at, cap)
        row.dst_port = be16(data, at + 2, cap)
        row.layers |= HAS_PORTS


@kernel
def payload(start: int, at: int, cap: int, wire: int, row: Row) -> None:
    """Payload from `at` to `wire` in a frame that begins at `start`; it never begins behind `cap`."""
    row.payload_offset = min(at, cap) - start
    row.payload_len = max(wire - at, 0)
    row.layers |= HAS_PAYLOAD


@routine
def sctp(data: np.ndarray, start: int, at: int, cap: int, wire: int, row: Row) -> int:
    """Ports 32, verification tag 32, checksum 32, chunks of type 8, flags 8, length 16, value."""
    ports(data, at, cap, row)
    stop = lacking(12, at, cap, wire)
    if stop:
        return stop
    row.sctp_tag = be32(data, at + 4, cap)
    row.layers |= HAS_SCTP
    if at + 13 <= cap:
        row.sctp_chunk = u8(data, at + 12, cap)
        row.layers |= HAS_SCTP_CHUNK
    payload(start, at + 12, cap, wire, row)
    return 0
