"""Link layers: Ethernet II and IEEE 802.3 with LLC/SNAP, 802.1Q and 802.1ad tags, Linux cooked v1 and v2,
BSD null and loop, raw IP, PPP, Cisco HDLC, IP over InfiniBand, frame relay, NFLOG. Wi-Fi: `dissect.wifi`;
networks of old: `dissect.rings`.

Link types are LINKTYPE_ numbers (https://www.tcpdump.org/linktypes.html); each kernel returns an EtherType.
"""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import (
    STOP_LENGTH,
    STOP_UNKNOWN,
    be16,
    be32,
    lacking,
    u8,
)
from stratokit.kernels import kernel, routine

NULL, ETHERNET, COOKED, LOOP, COOKED2 = 0, 1, 113, 108, 276
PPP_TYPES = (9, 50)  # with and without HDLC framing; in framing of HDLC
CISCO_HDLC = 104
IPOIB, FRAME_RELAY, NFLOG = 242, 107, 239
# DLT_RAW is 12 or 14 in files of some systems, LINKTYPE_RAW everywhere else; the last two fix the IP version.
RAW_TYPES = (12, 14, 101, 228, 229)

TYPE_IPV4, TYPE_IPV6, TYPE_ARP, TYPE_RARP = 0x0800, 0x86DD, 0x0806, 0x8035
TYPE_MPLS, TYPE_MPLS_UPSTREAM, TYPE_PPPOE, TYPE_PPP = 0x8847, 0x8848, 0x8864, 0x880B
TYPE_BRIDGED = 0x6558  # an Ethernet frame within something
TYPE_SLARP = 0x8035  # in Cisco HDLC, where Ethernet has RARP
VLAN_TYPES = (0x8100, 0x88A8, 0x9100)  # 802.1Q, 802.1ad, what QinQ used before it was a standard
# Up to here the field behind the addresses is a length (IEEE 802.3), from 0x0600 a type.
LENGTH_MAX = 1500
AF_INET = 2
AF_INET6 = (10, 24, 26, 28, 30)  # Linux, NetBSD and OpenBSD, Solaris, FreeBSD, Darwin


@routine
def llc(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """IEEE 802.2 at `at`: DSAP, SSAP, control; with SNAP (AA AA 03) three bytes OUI and an EtherType."""
    stop = lacking(3, at, cap, wire)
    if stop:
        return stop, at
    service = be16(data, at, cap)
    if service == 0x0606 and u8(data, at + 2, cap) == 3:  # IP without SNAP (RFC 948)
        return TYPE_IPV4, at + 3
    if service != 0xAAAA:
        return STOP_UNKNOWN, at
    stop = lacking(8, at, cap, wire)
    if stop:
        return stop, at
    # The OUIs of encapsulated Ethernet (RFC 1042) and of IEEE 802.1H.
    if be32(data, at + 2, cap) not in (0x03000000, 0x030000F8):
        return STOP_UNKNOWN, at
    return be16(data, at + 6, cap), at + 8


@kernel
def ethernet(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """Ethernet: destination 6, source 6, type or length 2."""
    stop = lacking(14, at, cap, wire)
    if stop:
        return stop, at
    return be16(data, at + 12, cap), at + 14


@routine
def cooked(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """LINUX_SLL: packet type 2, ARPHRD type 2, address length 2, address 8, protocol 2."""
    stop = lacking(16, at, cap, wire)
    if stop:
        return stop, at
    return be16(data, at + 14, cap), at + 16


@routine
def cooked2(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """LINUX_SLL2: protocol 2, zero 2, interface 4, ARPHRD type 2, packet type 1, length 1, address 8."""
    stop = lacking(20, at, cap, wire)
    if stop:
        return stop, at
    return be16(data, at, cap), at + 20


@routine
def null(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """NULL, LOOP: address family 4, in the byte order of the capturing host (NULL) or the network (LOOP)."""
    stop = lacking(4, at, cap, wire)
    if stop:
        return stop, at
    family = be32(data, at, cap)
    if family > 0xFFFF:
        family = (family >> 24) | (family >> 8 & 0xFF00)
    if family == AF_INET:
        return TYPE_IPV4, at + 4
    if family in AF_INET6:
        return TYPE_IPV6, at + 4
    return STOP_UNKNOWN, at


@routine
def cisco(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """Cisco HDLC: address 1, control 1, EtherType 2."""
    stop = lacking(4, at, cap, wire)
    if stop:
        return stop, at
    ether_type = be16(data, at + 2, cap)
    return (STOP_UNKNOWN if ether_type == TYPE_SLARP else ether_type), at + 4


@routine
def infiniband(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """IPOIB: global routing header 40, EtherType 2, reserved 2 (RFC 4391 section 6)."""
    stop = lacking(44, at, cap, wire)
    if stop:
        return stop, at
    return be16(data, at + 40, cap), at + 44


@routine
def frame_relay(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """Q.922 address, whose last byte is odd, then RFC 2427: control 03, perhaps a pad, a protocol id of OSI
    (NLPID); or, as Cisco has it, an EtherType at once.
    """
    size = 2
    while size < 4 and not u8(data, at + size - 1, cap) & 1:
        size += 1
    at += size
    stop = lacking(2, at, cap, wire)
    if stop:
        return stop, at
    if u8(data, at, cap) != 3:
        return be16(data, at, cap), at + 2
    at += 1 if u8(data, at + 1, cap) else 2
    stop = lacking(1, at, cap, wire)
    if stop:
        return stop, at
    kind = u8(data, at, cap)
    if kind == 0xCC:
        return TYPE_IPV4, at + 1
    if kind == 0x8E:
        return TYPE_IPV6, at + 1
    if kind == 0xCF:  # RFC 1973
        return TYPE_PPP, at + 1
    if kind != 0x80:
        return STOP_UNKNOWN, at
    stop = lacking(6, at, cap, wire)
    if stop:
        return stop, at
    snap, following = be32(data, at, cap), be16(data, at + 4, cap)  # OUI 24, then 16 of its own
    if snap == 0x80000000:
        return following, at + 6
    if snap == 0x800080C2 and following in (1, 7):  # a bridged Ethernet frame, with its check sum or without
        return TYPE_BRIDGED, at + 6
    return STOP_UNKNOWN, at


@routine
def nflog(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """Family 8, version 8, resource 16; attributes of length 16, type 16, value, padded to 4 bytes: 9 is the
    packet. Their byte order is that of the capturing host: the first type tells, as none needs two bytes.
    """
    stop = lacking(8, at, cap, wire)
    if stop:
        return stop, at
    family = u8(data, at, cap)
    at += 4
    network_order = be16(data, at + 2, cap) < 256
    while True:
        stop = lacking(4, at, cap, wire)
        if stop:
            return stop, at
        size, kind = be16(data, at, cap), be16(data, at + 2, cap)
        if not network_order:
            size, kind = (size & 0xFF) << 8 | size >> 8, (kind & 0xFF) << 8 | kind >> 8
        if size < 4:
            return STOP_LENGTH, at
        if kind == 9:
            break
        at += (size + 3) & ~3
    if family == AF_INET:
        return TYPE_IPV4, at + 4
    return (TYPE_IPV6 if family in AF_INET6 else STOP_UNKNOWN), at + 4


@kernel
def raw(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int]:
    """RAW, IPV4, IPV6: no header; the first half byte is the IP version."""
    stop = lacking(1, at, cap, wire)
    if stop:
        return stop, at
    version = u8(data, at, cap) >> 4
    if version == 4:
        return TYPE_IPV4, at
    if version == 6:
        return TYPE_IPV6, at
    return STOP_UNKNOWN, at


@kernel
def link(data: np.ndarray, at: int, cap: int, wire: int, link_type: int) -> tuple[int, int]:
    """The layer that `link_type` names: EtherType or stop reason, and where the next header begins."""
    if link_type == ETHERNET:
        return ethernet(data, at, cap, wire)
    if link_type in RAW_TYPES:
        return raw(data, at, cap, wire)
    if link_type == COOKED:
        return cooked(data, at, cap, wire)
    if link_type == COOKED2:
        return cooked2(data, at, cap, wire)
    if link_type in (NULL, LOOP):
        return null(data, at, cap, wire)
    if link_type in PPP_TYPES:
        # Cisco's framing is told from that of PPP by its address.
        return cisco(data, at, cap, wire) if u8(data, at, cap) in (0x0F, 0x8F) else (TYPE_PPP, at)
    if link_type == CISCO_HDLC:
        return cisco(data, at, cap, wire)
    if link_type == IPOIB:
        return infiniband(data, at, cap, wire)
    if link_type == FRAME_RELAY:
        return frame_relay(data, at, cap, wire)
    if link_type == NFLOG:
        return nflog(data, at, cap, wire)
    return STOP_UNKNOWN, at
