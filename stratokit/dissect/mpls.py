"""MPLS label stacks (RFC 3032)."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import HAS_MPLS, STOP_UNKNOWN, Row, be16, be32, lacking, u8
from stratokit.dissect.link import TYPE_BRIDGED, TYPE_IPV4, TYPE_IPV6
from stratokit.kernels import routine

PORT = 6635  # MPLS in UDP (RFC 7510)
LENGTH_MAX = 0xFFFF  # what 16 bits can say


@routine
def mpls(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> tuple[int, int]:
    """Label 20 bits, traffic class 3, bottom of stack 1, TTL 8, and again until the bottom.

    Nothing says what follows: its first half byte is taken for an IP version (RFC 4928 section 3), and zero
    for the control word of an Ethernet pseudowire (RFC 4448 section 4.6).
    """
    while True:
        stop = lacking(4, at, cap, wire)
        if stop:
            return stop, at
        entry = be32(data, at, cap)
        at += 4
        if not row.layers & HAS_MPLS:
            row.mpls_label = entry >> 12
            row.layers |= HAS_MPLS
        if entry & 0x100:
            break
    stop = lacking(1, at, cap, wire)
    if stop:
        return stop, at
    version = u8(data, at, cap) >> 4
    if version == 4:
        return TYPE_IPV4, at
    if version == 6:
        return TYPE_IPV6, at
    if version == 0:
        return TYPE_BRIDGED, at + 4
    return STOP_UNKNOWN, at


@routine
def fits(data: np.ndarray, at: int, cap: int, wire: int, ether_type: int) -> bool:
    """Whether what `mpls` guessed to be there may be: the length of an IP packet is one that there is room
    for, and a control word begins with twelve more bits of zero (RFC 4448 section 4.6).
    """
    room = wire - at
    if ether_type == TYPE_IPV4:
        size = be16(data, at + 2, cap)
        # Zero: segmentation offload, as in `ip.ipv4`.
        return at + 20 <= cap and (20 <= size <= room or (size == 0 and room > LENGTH_MAX))
    if ether_type == TYPE_IPV6:
        size = be16(data, at + 4, cap)
        return at + 40 <= cap and 40 + size <= room
    return ether_type == TYPE_BRIDGED and at + 14 <= cap and be16(data, at - 4, cap) == 0
