"""Token ring (IEEE 802.5), FDDI, ATM with LLC (RFC 2684), and IPNET, which Solaris has for its loopback.

Link types are LINKTYPE_ numbers (https://www.tcpdump.org/linktypes.html); each kernel returns an EtherType.
"""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import STOP_LENGTH, STOP_UNKNOWN, lacking, u8
from stratokit.dissect.link import AF_INET, AF_INET6, TYPE_IPV4, TYPE_IPV6, llc
from stratokit.kernels import kernel, routine

TOKEN_RING, FDDI, ATM, SUN_ATM, IPNET = 6, 10, 100, 123, 226
RING_TYPES = (TOKEN_RING, FDDI, ATM, SUN_ATM, IPNET)


@routine
def ring(data: np.ndarray, at: int, cap: int, wire: int, is_fddi: bool) -> tuple[int, int]:
    """Token ring: access control 1 more; both: frame control 1, destination 6, source 6, whose first bit says
    that a route follows in token ring (IEEE 802.5; its size in 5 bits); then LLC.
    """
    at += 0 if is_fddi else 1
    stop = lacking(13, at, cap, wire)
    if stop:
        return stop, at
    control, size = u8(data, at, cap), 13
    if control & 0x70 != 0x50 if is_fddi else control & 0xC0 != 0x40:
        return STOP_UNKNOWN, at
    if not is_fddi and u8(data, at + 7, cap) & 0x80:
        stop = lacking(14, at, cap, wire)
        if stop:
            return stop, at
        route = u8(data, at + 13, cap) & 0x1F
        if route < 2:
            return STOP_LENGTH, at
        size += route
    return llc(data, at + size, cap, wire)


@routine
def sun_atm(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """SUNATM: direction and kind of traffic 8, path 8, circuit 16; of kind 2 is LLC (RFC 2684)."""
    stop = lacking(4, at, cap, wire)
    if stop:
        return stop, at
    return llc(data, at + 4, cap, wire) if u8(data, at, cap) & 0x0F == 2 else (STOP_UNKNOWN, at)


@routine
def ipnet(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """IPNET of Solaris: version 8, address family 8, hook 16, length 32, interfaces 64, zones 64."""
    stop = lacking(24, at, cap, wire)
    if stop:
        return stop, at
    family = u8(data, at + 1, cap)
    if family == AF_INET:
        return TYPE_IPV4, at + 24
    return (TYPE_IPV6 if family in AF_INET6 else STOP_UNKNOWN), at + 24


@kernel
def rings(data: np.ndarray, at: int, cap: int, wire: int, link_type: int) -> tuple[int, int]:
    """The layer that one of RING_TYPES names: EtherType or stop reason, and where the next header begins."""
    if link_type == ATM:
        return llc(data, at, cap, wire)
    if link_type == SUN_ATM:
        return sun_atm(data, at, cap, wire)
    if link_type == IPNET:
        return ipnet(data, at, cap, wire)
    return ring(data, at, cap, wire, link_type == FDDI)
