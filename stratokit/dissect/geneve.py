"""GENEVE (RFC 8926)."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import HAS_TUNNEL_ID, T_GENEVE, Row, be16, be32, lacking, u8
from stratokit.dissect.link import LENGTH_MAX
from stratokit.kernels import kernel

PORT = 6081


@kernel
def geneve(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> tuple[int, int]:
    """Version 2 bits, length of options in words 6, flags 2, reserved 6, EtherType 16, id 24, reserved 8,
    options. Returns 0 when this is none: the port may be anyone's, so everything reserved has to be zero.
    """
    if at + 8 > cap or u8(data, at, cap) >> 6 or u8(data, at + 1, cap) & 0x3F or u8(data, at + 7, cap):
        return 0, at
    ether_type = be16(data, at + 2, cap)
    if ether_type <= LENGTH_MAX:
        return 0, at
    row.tunnel = T_GENEVE
    row.tunnel_id = be32(data, at + 4, cap) >> 8
    row.layers |= HAS_TUNNEL_ID
    size = 8 + (u8(data, at, cap) & 0x3F) * 4
    stop = lacking(size, at, cap, wire)
    return stop or ether_type, at + size
