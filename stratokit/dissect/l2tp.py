"""L2TP version 2 over UDP (RFC 2661): messages that carry PPP."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import HAS_TUNNEL_ID, T_L2TP, Row, be16, be32, lacking
from stratokit.dissect.link import TYPE_PPP
from stratokit.kernels import kernel

PORT = 1701
CONTROL, LENGTH, SEQUENCE, OFFSET, VERSION = 0x8000, 0x4000, 0x0800, 0x0200, 0x000F
RESERVED = 0x34F0


@kernel
def l2tp(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> tuple[int, int]:
    """Flags 12 bits, version 4; then, where a flag says so, length 16; tunnel 16, session 16; perhaps two
    sequence numbers of 16; perhaps a size 16 of padding, and that. Returns 0 when this carries no packet.
    """
    flags = be16(data, at, cap)
    if at + 6 > cap or flags & CONTROL or flags & RESERVED or flags & VERSION != 2:
        return 0, at
    at += 4 if flags & LENGTH else 2
    row.tunnel = T_L2TP
    if at + 4 <= cap:
        row.tunnel_id = be32(data, at, cap)
        row.layers |= HAS_TUNNEL_ID
    at += 8 if flags & SEQUENCE else 4
    if flags & OFFSET:
        at += 2 + be16(data, at, cap)
    stop = lacking(1, at, cap, wire)
    return stop or TYPE_PPP, at
