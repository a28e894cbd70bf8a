"""VXLAN (RFC 7348) and its generic protocol extension (draft-ietf-nvo3-vxlan-gpe-12)."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import HAS_TUNNEL_ID, STOP_UNKNOWN, T_VXLAN, Row, be32, u8
from stratokit.dissect.link import TYPE_BRIDGED, TYPE_IPV4, TYPE_IPV6, TYPE_MPLS
from stratokit.dissect.tags import TYPE_NSH
from stratokit.kernels import kernel

# The port of the standard, and the one that Linux used before there was one.
PORTS = (4789, 8472)
GPE_PORT = 4790


@kernel
def vxlan(data: np.ndarray, at: int, cap: int, row: Row) -> tuple[int, int]:
    """Flags 8, of which the one for a valid id has to be set, reserved 24, id 24, reserved 8; an Ethernet
    frame follows. Returns 0 when this is none.
    """
    if at + 8 > cap or not u8(data, at, cap) & 0x08:
        return 0, at
    row.tunnel = T_VXLAN
    row.tunnel_id = be32(data, at + 4, cap) >> 8
    row.layers |= HAS_TUNNEL_ID
    return TYPE_BRIDGED, at + 8


@kernel
def gpe(data: np.ndarray, at: int, cap: int, row: Row) -> tuple[int, int]:
    """As VXLAN, but the last reserved byte before the id names what follows. A flag should say so; where it
    does not, a byte that is not zero does.
    """
    kind, following = vxlan(data, at, cap, row)
    protocol = u8(data, at + 3, cap)
    if not kind or not protocol:
        return kind, following
    if protocol == 1:
        return TYPE_IPV4, following
    if protocol == 2:
        return TYPE_IPV6, following
    if protocol == 3:
        return TYPE_BRIDGED, following
    if protocol == 4:
        return TYPE_NSH, following
    return (TYPE_MPLS if protocol == 5 else STOP_UNKNOWN), following
