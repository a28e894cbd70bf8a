"""Tags that stand before a packet and name what follows: service headers (NSH, RFC 8300), MACsec (IEEE
802.1AE) where it only signs, Cisco's FabricPath, Arista's timestamps.
"""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import STOP_ENCRYPTED, STOP_LENGTH, STOP_UNKNOWN, be16, lacking, u8
from stratokit.dissect.link import TYPE_BRIDGED, TYPE_IPV4, TYPE_IPV6, TYPE_MPLS
from stratokit.kernels import routine

TYPE_FABRICPATH, TYPE_ARISTA, TYPE_NSH, TYPE_MACSEC = 0x8903, 0xD28B, 0x894F, 0x88E5
TAG_TYPES = (TYPE_FABRICPATH, TYPE_ARISTA, TYPE_NSH, TYPE_MACSEC)
ICV_BYTES = 16  # the check value behind what MACsec signs


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


@routine
def arista(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """Subtype 16, of which 1 is a timestamp, version 16, whose lower byte tells its length; EtherType 16."""
    stop = lacking(4, at, cap, wire)
    if stop:
        return stop, at
    version = be16(data, at + 2, cap) & 0xFF
    if be16(data, at, cap) != 1 or version not in (0x10, 0x20):
        return STOP_UNKNOWN, at
    size = 12 if version == 0x10 else 10
    stop = lacking(size + 2, at, cap, wire)
    return stop or be16(data, at + size, cap), at + size + 2


@routine
def macsec(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int, int]:
    """Version 1 bit, end station 1, SCI 1, single copy 1, encrypted 1, changed 1, association 2; length 8 of
    a short frame, packet number 32, SCI 64 where its bit is set; EtherType 16; at the end the check value.
    """
    bits = u8(data, at, cap)
    size = 14 if bits & 0x20 else 6
    stop = lacking(size + 2, at, cap, wire)
    if stop:
        return stop, at, wire
    if bits & 0x0C:
        return STOP_ENCRYPTED, at, wire
    short = u8(data, at + 1, cap) & 0x3F
    wire = min(wire, at + size + short + ICV_BYTES) if short else wire
    if at + size + 2 + ICV_BYTES > wire:
        return STOP_LENGTH, at, wire
    return be16(data, at + size, cap), at + size + 2, wire - ICV_BYTES


@routine
def tag(data: np.ndarray, at: int, cap: int, wire: int, ether_type: int) -> tuple[int, int, int]:
    """One of TAG_TYPES at `at`: the EtherType of what follows or a stop reason, `at`, `wire`."""
    if ether_type == TYPE_NSH:
        following, at = nsh(data, at, cap, wire)
    elif ether_type == TYPE_ARISTA:
        following, at = arista(data, at, cap, wire)
    elif ether_type == TYPE_MACSEC:
        following, at, wire = macsec(data, at, cap, wire)
    else:  # FabricPath: forwarding tag 10 bits, TTL 6; the frame follows
        following, at = lacking(2, at, cap, wire) or TYPE_BRIDGED, at + 2
    return following, at, wire
