"""GTP-U version 1 (3GPP TS 29.281 section 5)."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import (
    HAS_TUNNEL_ID,
    STOP_LENGTH,
    STOP_UNKNOWN,
    T_GTPU,
    Row,
    be16,
    be32,
    lacking,
    u8,
)
from stratokit.dissect.link import TYPE_IPV4, TYPE_IPV6
from stratokit.kernels import kernel

PORT = 2152
G_PDU = 255  # the message that carries a packet of the user


@kernel
def gtpu(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> tuple[int, int]:
    """Version 3 bits, GTP not GTP' 1, reserved 1, extensions 1, sequence 1, N-PDU 1, message 8, length of the
    rest 16, tunnel endpoint 32; with one of the last three flags sequence 16, N-PDU 8, next extension 8.
    Returns 0 when this is none that carries a packet.
    """
    if at + 8 > cap or u8(data, at, cap) & 0xF0 != 0x30 or u8(data, at + 1, cap) != G_PDU:
        return 0, at
    row.tunnel = T_GTPU
    row.tunnel_id = be32(data, at + 4, cap)
    row.layers |= HAS_TUNNEL_ID
    flags = u8(data, at, cap)
    wire = min(wire, at + 8 + be16(data, at + 2, cap))
    cap = min(cap, wire)
    at += 8
    if flags & 7:
        stop = lacking(4, at, cap, wire)
        if stop:
            return stop, at
        following = u8(data, at + 3, cap) if flags & 4 else 0
        at += 4
        while following:
            # length in 4 bytes 8, content, next extension 8
            stop = lacking(4, at, cap, wire)
            if stop:
                return stop, at
            size = 4 * u8(data, at, cap)
            if not size:
                return STOP_LENGTH, at
            stop = lacking(size, at, cap, wire)
            if stop:
                return stop, at
            following = u8(data, at + size - 1, cap)
            at += size
    stop = lacking(1, at, cap, wire)
    if stop:
        return stop, at
    version = u8(data, at, cap) >> 4
    if version == 4:
        return TYPE_IPV4, at
    return (TYPE_IPV6 if version == 6 else STOP_UNKNOWN), at
