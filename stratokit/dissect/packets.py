"""Frames to columns: one pass over a buffer of frames, each through its layers, no object a packet."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
from numba import njit

from stratokit.dissect import layers
from stratokit.dissect.ip import NO_NEXT, ipv4, ipv6
from stratokit.dissect.layers import ROW, STOP_UNKNOWN, Row, i64
from stratokit.dissect.link import TYPE_ARP, TYPE_IPV4, TYPE_IPV6, VLAN_TYPES, link, tags
from stratokit.dissect.transport import (
    PROTO_ICMP,
    PROTO_ICMPV6,
    PROTO_SCTP,
    PROTO_TCP,
    PROTO_UDP,
    icmp,
    sctp,
    tcp,
    udp,
)


@njit(nogil=True, cache=True)
def _transport(
    data: np.ndarray, start: int, at: int, cap: int, wire: int, proto: int, row: Row
) -> tuple[int, int]:
    """The layer that was entered (0: none) and 0 or the stop reason."""
    if proto == PROTO_TCP:
        return layers.TCP, tcp(data, start, at, cap, wire, row)
    if proto == PROTO_UDP:
        return layers.UDP, udp(data, start, at, cap, wire, row)
    if proto == PROTO_ICMP:
        return layers.ICMP, icmp(data, start, at, cap, wire, row)
    if proto == PROTO_ICMPV6:
        return layers.ICMPV6, icmp(data, start, at, cap, wire, row)
    if proto == PROTO_SCTP:
        return layers.SCTP, sctp(data, start, at, cap, wire, row)
    if proto == NO_NEXT:
        return 0, 0
    return 0, STOP_UNKNOWN


@njit(nogil=True, cache=True)
def _packet(data: np.ndarray, start: int, cap: int, wire: int, link_type: int, row: Row) -> tuple[int, int]:
    """Decode one frame; returns the layer at which decoding ended and 0 or the stop reason."""
    ether_type, at = link(data, start, cap, wire, link_type)
    if ether_type < 0:
        return layers.LINK, ether_type
    link_layer = layers.VLAN if ether_type in VLAN_TYPES else layers.LINK
    ether_type, at, wire = tags(data, at, cap, wire, ether_type, row)
    cap = min(cap, wire)
    if ether_type < 0:
        return link_layer, ether_type
    if ether_type == TYPE_IPV4:
        network = layers.IPV4
        proto, at, cap, wire = ipv4(data, at, cap, wire, row)
    elif ether_type == TYPE_IPV6:
        network = layers.IPV6
        proto, at, cap, wire = ipv6(data, at, cap, wire, row)
    elif ether_type == TYPE_ARP:
        return link_layer, 0
    else:
        return link_layer, STOP_UNKNOWN
    if proto < 0:
        return network, proto
    transport, stop = _transport(data, start, at, cap, wire, proto, row)
    return transport or network, stop


# One array a column. numba looks into named tuples, so the kernels below take all of them as one argument.
Columns: Any = collections.namedtuple("Columns", ROW.names or ())  # type: ignore[misc]


@njit(nogil=True, cache=True, inline="always")
def _emit(row: Row, columns: Any, i: int) -> None:
    """Spread the finished row over the columns."""
    for k in range(2):
        columns.src_ip[i, k] = row.src_ip[k]
        columns.dst_ip[i, k] = row.dst_ip[k]
    columns.ether_type[i] = row.ether_type
    columns.vlan[i] = row.vlan
    columns.ip_version[i] = row.ip_version
    columns.ip_ttl[i] = row.ip_ttl
    columns.ip_id[i] = row.ip_id
    columns.ip_proto[i] = row.ip_proto
    columns.src_port[i] = row.src_port
    columns.dst_port[i] = row.dst_port
    columns.icmp_type[i] = row.icmp_type
    columns.icmp_code[i] = row.icmp_code
    columns.tcp_flags[i] = row.tcp_flags
    columns.tcp_seq[i] = row.tcp_seq
    columns.tcp_ack[i] = row.tcp_ack
    columns.tcp_window[i] = row.tcp_window
    columns.payload_offset[i] = row.payload_offset
    columns.payload_len[i] = row.payload_len
    columns.stop_layer[i] = row.stop_layer
    columns.stop_reason[i] = row.stop_reason
    columns.layers[i] = row.layers


@njit(nogil=True, cache=True)
def _dissect(
    data: np.ndarray,
    offsets: np.ndarray,
    cap_lens: np.ndarray,
    orig_lens: np.ndarray,
    link_types: np.ndarray,
    scratch: np.ndarray,
    columns: Any,
) -> None:
    size = len(data)
    row = scratch[0]
    for i in range(len(offsets)):
        scratch[0] = scratch[1]  # which nothing fills: a clean row
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
        _emit(row, columns, i)


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
        Columns by the names of schemas/capture.toml, zero where a packet has none: `layers` has a bit for
        each group that was filled (layers.HAS_...). Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d.
        stop_layer and stop_reason are indexes of layers.LAYER_NAMES and layers.REASON_NAMES.
        `columns.packet_columns` makes Arrow arrays of them.
    """
    count = len(offsets)
    data = np.ascontiguousarray(data, np.uint8).view()
    data.flags.writeable = False  # so that mapped files and buffers share one compiled kernel
    columns = Columns(*(np.empty((count, *ROW[name].shape), ROW[name].base) for name in (ROW.names or ())))
    _dissect(
        data,
        np.ascontiguousarray(offsets, np.int64),
        np.ascontiguousarray(cap_lens, np.uint32),
        np.ascontiguousarray(orig_lens, np.uint32),
        np.ascontiguousarray(link_types, np.uint16),
        np.zeros(2, ROW),
        columns,
    )
    result: dict[str, np.ndarray] = columns._asdict()
    for name in ("src_ip", "dst_ip"):
        result[name] = result[name].view(np.uint8)
    return result
