"""Network Service Header (RFC 8300): a path through services, between a tunnel and what it carries."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import STOP_LENGTH, STOP_UNKNOWN, be16, lacking, u8
from stratokit.dissect.link import TYPE_BRIDGED, TYPE_IPV4, TYPE_IPV6, TYPE_MPLS, TYPE_NSH
from stratokit.kernels import routine


@routine
def nsh(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """Version 2 bits, OAM 1, unused 1, TTL 6, length in words 6, unused 4, type of metadata 4, next protocol
    8, path and index 32, metadata. Returns EtherType or stop reason, and where that begins.
    """
    stop = lacking(8, at, cap, wire)
    if stop:
        return stop, at
    size = 4 * (be16(data, at, cap) & 0x3F)
    if size < 8:
        return STOP_LENGTH, at
    stop = lacking(size, at, cap, wire)
    if stop:
        return stop, at
    following = u8(data, at + 3, cap)
    if following == 1:
        return TYPE_IPV4, at + size
    if following == 2:
        return TYPE_IPV6, at + size
    if following == 3:
        return TYPE_BRIDGED, at + size
    if following == 4:
        return TYPE_NSH, at + size
    return (TYPE_MPLS if following == 5 else STOP_UNKNOWN), at + size
