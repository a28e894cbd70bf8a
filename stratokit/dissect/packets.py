"""Frames to columns: one pass over a buffer of frames, each through its layers, no object a packet.

Of IP packets within each other the innermost one that can be decoded gives addresses, ports and payload; the
one right around it stays as the outer one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect import layers, tunnels
from stratokit.dissect.arp import arp
from stratokit.dissect.emit import IS_RARE, clean, empty_columns, finished
from stratokit.dissect.icmp import icmp
from stratokit.dissect.ip import NO_NEXT, ipv4, ipv6
from stratokit.dissect.l2tp import PORT as L2TP_PORT
from stratokit.dissect.layers import (
    HAS_ETHER_TYPE,
    HAS_IP,
    HAS_IP_PROTO,
    HAS_OUTER,
    HAS_PAYLOAD,
    HAS_TCP_OPTIONS,
    HAS_TIMESTAMPS,
    IS_FRAGMENT,
    MAX_TUNNELS,
    OF_PACKET,
    ROW,
    STOP_DEPTH,
    STOP_ENCRYPTED,
    STOP_FRAGMENT,
    STOP_UNKNOWN,
    Row,
    i64,
    lacking,
)
from stratokit.dissect.link import ETHERNET, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, TYPE_RARP, ethernet, link
from stratokit.dissect.rings import RING_TYPES, rings
from stratokit.dissect.shims import shims
from stratokit.dissect.tcp import tcp
from stratokit.dissect.transport import (
    PROTO_ESP,
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_SCTP,
    PROTO_TCP,
    PROTO_UDP,
    PROTO_UDPLITE,
    sctp,
)
from stratokit.dissect.udp import udp, udplite
from stratokit.dissect.wifi import WIFI_TYPES, wifi
from stratokit.kernels import kernel, read_only, routine

# UDP ports below have no tunnels.
LOWEST_TUNNEL_PORT = L2TP_PORT


@routine
def _transport(
    data: np.ndarray, start: int, at: int, cap: int, wire: int, proto: int, row: Row
) -> tuple[int, int]:
    """The layer that was entered (0: none) and 0 or the stop reason. TCP and UDP are decoded elsewhere."""
    if proto == PROTO_ICMP:
        return layers.ICMP, icmp(data, start, at, cap, wire, proto, row)
    if proto == PROTO_ICMPV6:
        return layers.ICMPV6, icmp(data, start, at, cap, wire, proto, row)
    if proto == PROTO_SCTP:
        return layers.SCTP, sctp(data, start, at, cap, wire, row)
    if proto == PROTO_UDPLITE:
        return layers.UDPLITE, udplite(data, start, at, cap, wire, row)
    if proto == PROTO_ESP:
        return layers.ESP, lacking(8, at, cap, wire) or STOP_ENCRYPTED
    if proto == NO_NEXT:
        return 0, 0
    return 0, STOP_UNKNOWN


@routine
def _inner(
    data: np.ndarray, start: int, at: int, cap: int, wire: int, six: bool, row: Row
) -> tuple[int, int, int, int]:
    """An IP packet within another one: it takes the row over if its fixed header can be read."""
    kept, version = row.layers, row.ip_version
    source, destination = (row.src_ip[0], row.src_ip[1]), (row.dst_ip[0], row.dst_ip[1])
    row.layers &= ~(HAS_IP | OF_PACKET)
    if six:
        proto, at, cap, wire = ipv6(data, start, at, cap, wire, row)
    else:
        proto, at, cap, wire = ipv4(data, start, at, cap, wire, row)
    if not row.layers & HAS_IP:
        row.layers = kept
        return proto, at, cap, wire
    row.layers |= HAS_OUTER
    row.outer_ip_version = version
    row.outer_src_ip[0], row.outer_src_ip[1] = source
    row.outer_dst_ip[0], row.outer_dst_ip[1] = destination
    if not row.layers & HAS_IP_PROTO:
        row.ip_proto = 0
    row.src_port = row.dst_port = 0
    row.payload_offset = row.payload_len = 0
    return proto, at, cap, wire


@routine
def _above(
    data: np.ndarray, start: int, at: int, cap: int, wire: int, proto: int, layer: int, row: Row
) -> tuple[int, int, int, int, int]:
    """What an IP packet of `layer` carries: the layer that decoding came to, then the EtherType of what a
    tunnel carries, 0 at the end of the packet, or a stop reason; `at`, `cap`, `wire`.
    """
    if proto == PROTO_TCP:
        return layers.TCP, tcp(data, start, at, cap, wire, row), at, cap, wire
    if proto == PROTO_UDP:
        stop, wire = udp(data, start, at, cap, wire, row)
        if max(row.src_port, row.dst_port) < LOWEST_TUNNEL_PORT or not row.layers & HAS_PAYLOAD:
            return layers.UDP, stop, at, cap, wire
        cap = min(cap, wire)
        tunnel, ether_type, at = tunnels.of_udp(data, at + 8, cap, wire, row)
        return (tunnel if ether_type else layers.UDP), ether_type, at, cap, wire
    if proto in tunnels.PROTOCOLS:
        if row.layers & IS_FRAGMENT:
            return layer, STOP_FRAGMENT, at, cap, wire
        tunnel, ether_type, at = tunnels.of_ip(data, at, cap, wire, proto, row)
        return tunnel, ether_type, at, cap, wire
    transport, stop = _transport(data, start, at, cap, wire, proto, row)
    return transport or layer, stop, at, cap, wire


@routine
def _outermost(data: np.ndarray, at: int, cap: int, wire: int, link_type: int) -> tuple[int, int]:
    """What a link layer other than Ethernet says that follows, and where."""
    if link_type in WIFI_TYPES:
        return wifi(data, at, cap, wire, link_type)
    if link_type in RING_TYPES:
        return rings(data, at, cap, wire, link_type)
    return link(data, at, cap, wire, link_type)


@routine
def _packet(data: np.ndarray, start: int, cap: int, wire: int, link_type: int, row: Row) -> tuple[int, int]:
    """Decode one frame; returns the layer at which decoding ended and 0 or the stop reason."""
    # Nearly all are Ethernet, which what the other link types take would slow down.
    is_ethernet = link_type == ETHERNET
    ether_type, at = (
        ethernet(data, start, cap, wire) if is_ethernet else _outermost(data, start, cap, wire, link_type)
    )
    layer, depth = layers.LINK, 0
    while True:
        if ether_type not in (TYPE_IPV4, TYPE_IPV6):
            layer, ether_type, at, cap, wire = shims(data, at, cap, wire, ether_type, layer, row)
        if ether_type < 0:
            return layer, ether_type
        if not depth:
            row.ether_type = ether_type
            row.layers |= HAS_ETHER_TYPE
        six = ether_type == TYPE_IPV6
        if not six and ether_type != TYPE_IPV4:
            if ether_type in (TYPE_ARP, TYPE_RARP):
                return layers.ARP, arp(data, at, cap, wire, row)
            return layer, STOP_UNKNOWN
        layer = layers.IPV6 if six else layers.IPV4
        if depth:
            proto, at, cap, wire = _inner(data, start, at, cap, wire, six, row)
        elif six:
            proto, at, cap, wire = ipv6(data, start, at, cap, wire, row)
        else:
            proto, at, cap, wire = ipv4(data, start, at, cap, wire, row)
        if proto < 0:
            return layer, proto
        layer, ether_type, at, cap, wire = _above(data, start, at, cap, wire, proto, layer, row)
        if ether_type <= 0:
            return layer, ether_type
        depth += 1
        row.tunnel_depth = depth
        if depth > MAX_TUNNELS:
            return layer, STOP_DEPTH


@kernel
def _dissect(
    data: np.ndarray,
    offsets: np.ndarray,
    cap_lens: np.ndarray,
    orig_lens: np.ndarray,
    link_types: np.ndarray,
    scratch: np.ndarray,
    columns: Any,
    rare: np.ndarray,
    rare_at: np.ndarray,
) -> int:
    """How many rows have rare fields; those are kept whole."""
    # Arrays by themselves: those of a tuple would have their references counted for every packet.
    (
        ether_type,
        vlan,
        src_ip,
        dst_ip,
        ip_version,
        ip_ttl,
        ip_id,
        ip_proto,
        src_port,
        dst_port,
        icmp_type,
        icmp_code,
        tcp_flags,
        tcp_seq,
        tcp_ack,
        tcp_window,
        payload_offset,
        payload_len,
        stop_layer,
        stop_reason,
        filled,
        tcp_options,
        tcp_tsval,
        tcp_tsecr,
    ) = columns
    size, rares = len(data), 0
    row = scratch[0]
    for i in range(len(offsets)):
        clean(row)
        # Here the frame is put inside the buffer; no layer can leave [start, cap) afterwards.
        start = i64(offsets[i])
        if start < 0 or start > size:
            start = size
        cap = min(start + i64(cap_lens[i]), size)
        wire = max(start + i64(orig_lens[i]), cap)
        layer, stop = _packet(data, start, cap, wire, i64(link_types[i]), row)
        if stop:
            row.stop_layer = layer
            row.stop_reason = -stop
        for k in range(2):
            src_ip[i, k] = row.src_ip[k]
            dst_ip[i, k] = row.dst_ip[k]
        ether_type[i] = row.ether_type
        vlan[i] = row.vlan
        ip_version[i] = row.ip_version
        ip_ttl[i] = row.ip_ttl
        ip_id[i] = row.ip_id
        ip_proto[i] = row.ip_proto
        src_port[i] = row.src_port
        dst_port[i] = row.dst_port
        icmp_type[i] = row.icmp_type
        icmp_code[i] = row.icmp_code
        tcp_flags[i] = row.tcp_flags
        tcp_seq[i] = row.tcp_seq
        tcp_ack[i] = row.tcp_ack
        tcp_window[i] = row.tcp_window
        payload_offset[i] = row.payload_offset
        payload_len[i] = row.payload_len
        stop_layer[i] = row.stop_layer
        stop_reason[i] = row.stop_reason
        filled[i] = row.layers
        if row.layers & HAS_TCP_OPTIONS:
            tcp_options[i] = row.tcp_options
        if row.layers & HAS_TIMESTAMPS:
            tcp_tsval[i] = row.tcp_tsval
            tcp_tsecr[i] = row.tcp_tsecr
        if row.layers & IS_RARE:
            rare[rares] = row
            rare_at[rares] = i
            rares += 1
    return rares


def dissect(
    data: np.ndarray,
    offsets: np.ndarray,
    cap_lens: np.ndarray,
    orig_lens: np.ndarray,
    link_types: np.ndarray,
) -> dict[str, np.ndarray]:
    """Decode frames that lie anywhere in `data`.

    Args:
        data: bytes (u1); frame i is data[offsets[i] : offsets[i] + cap_lens[i]].
        offsets: i8, where each frame begins.
        cap_lens: u4, captured bytes of each frame.
        orig_lens: u4, bytes that the frame had on the wire.
        link_types: u2, LINKTYPE_ number of each frame.

    Returns:
        Columns by the names of layers.ROW, zero where a packet has none: `layers` has a bit for each group
        that was filled (layers.HAS_...). Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d. stop_layer,
        stop_reason and tunnel are indexes of layers.LAYER_NAMES, layers.REASON_NAMES and TUNNEL_NAMES.
        `columns.packet_columns` makes Arrow arrays of them.
    """
    count = len(offsets)
    data = read_only(data, np.uint8)
    columns = empty_columns(count)
    rare, rare_at = np.empty(count, ROW), np.empty(count, np.int64)
    rares = _dissect(
        data,
        np.ascontiguousarray(offsets, np.int64),
        np.ascontiguousarray(cap_lens, np.uint32),
        np.ascontiguousarray(orig_lens, np.uint32),
        np.ascontiguousarray(link_types, np.uint16),
        np.zeros(1, ROW),
        columns,
        rare,
        rare_at,
    )
    return finished(columns, rare[:rares], rare_at[:rares])
