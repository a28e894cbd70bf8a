"""PPP (RFC 1661), in HDLC framing (RFC 1662) and over Ethernet (PPPoE, RFC 2516: the session stage)."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import HAS_PPPOE, STOP_UNKNOWN, Row, be16, lacking, u8
from stratokit.dissect.link import TYPE_IPV4, TYPE_IPV6, TYPE_MPLS
from stratokit.kernels import routine

# From PPP's protocol numbers to EtherTypes.
PPP_IPV4, PPP_IPV6, PPP_MPLS, PPP_MPLS_MULTICAST = 0x0021, 0x0057, 0x0281, 0x0283


@routine
def ppp(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """Perhaps address FF and control 03; protocol 16, or 8 when it is odd and was compressed."""
    if u8(data, at, cap) == 0xFF:
        stop = lacking(2, at, cap, wire)
        if stop:
            return stop, at
        at += 2
    stop = lacking(1, at, cap, wire)
    if stop:
        return stop, at
    protocol = u8(data, at, cap)
    if protocol & 1:
        at += 1
    else:
        stop = lacking(2, at, cap, wire)
        if stop:
            return stop, at
        protocol = be16(data, at, cap)
        at += 2
    if protocol == PPP_IPV4:
        return TYPE_IPV4, at
    if protocol == PPP_IPV6:
        return TYPE_IPV6, at
    if protocol in (PPP_MPLS, PPP_MPLS_MULTICAST):
        return TYPE_MPLS, at
    return STOP_UNKNOWN, at


@routine
def pppoe(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> tuple[int, int, int]:
    """Version 4 bits, type 4, code 8, session 16, length 16. Returns 0 or the stop reason, `at`, `wire`."""
    stop = lacking(6, at, cap, wire)
    if stop:
        return stop, at, wire
    if be16(data, at, cap) != 0x1100:
        return STOP_UNKNOWN, at, wire
    row.pppoe_session = be16(data, at + 2, cap)
    row.layers |= HAS_PPPOE
    return 0, at + 6, min(wire, at + 6 + be16(data, at + 4, cap))
