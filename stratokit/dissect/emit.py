"""The finished row of a packet, spread over one array a column; rows with rare fields are kept whole."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np

from stratokit.dissect.layers import (
    HAS_ARP,
    HAS_ARP_IP,
    HAS_ICMP_ID,
    HAS_ICMP_IP,
    HAS_ICMP_PORTS,
    HAS_MPLS,
    HAS_MSS,
    HAS_OUTER,
    HAS_PPPOE,
    HAS_SACK,
    HAS_SCTP,
    HAS_SCTP_CHUNK,
    HAS_TUNNEL,
    HAS_TUNNEL_ID,
    HAS_VLAN_INNER,
    HAS_WINDOW_SCALE,
    HOT,
    IS_FRAGMENT,
    OPTIONS,
    RARE,
    ROW,
    Row,
)
from stratokit.kernels import inlined

IS_RARE = (
    HAS_VLAN_INNER | HAS_MPLS | HAS_PPPOE | HAS_ARP | HAS_ICMP_ID | HAS_ICMP_IP | HAS_SCTP | HAS_TUNNEL
) | (HAS_MSS | HAS_WINDOW_SCALE | HAS_SACK | IS_FRAGMENT)

# numba looks into named tuples, so the kernel takes all columns as one argument. It copies their reference
# counts with every function that is inlined into it: keep `emit` in one piece.
Columns: Any = collections.namedtuple(  # type: ignore[misc]
    "Columns", [name for name, *_ in HOT + OPTIONS]
)


LINE = 64  # of the processor's cache

# Rare fields, and the bits of `layers` that say that they were filled.
GROUPS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("vlan_inner",), HAS_VLAN_INNER),
    (("mpls_label",), HAS_MPLS),
    (("pppoe_session",), HAS_PPPOE),
    (("arp_op",), HAS_ARP),
    (("arp_sender_ip", "arp_target_ip"), HAS_ARP_IP),
    (("tcp_mss",), HAS_MSS),
    (("tcp_window_scale",), HAS_WINDOW_SCALE),
    (("tcp_sack_count", "tcp_sack_left", "tcp_sack_right"), HAS_SACK),
    (("icmp_id", "icmp_seq"), HAS_ICMP_ID),
    (("icmp_ip_version", "icmp_ip_proto", "icmp_src_ip", "icmp_dst_ip"), HAS_ICMP_IP),
    (("icmp_about_type", "icmp_about_id"), HAS_ICMP_IP),
    (("icmp_src_port", "icmp_dst_port"), HAS_ICMP_PORTS),
    (("sctp_tag",), HAS_SCTP),
    (("sctp_chunk",), HAS_SCTP_CHUNK),
    (("tunnel", "tunnel_depth"), HAS_TUNNEL),
    (("tunnel_id",), HAS_TUNNEL_ID),
    (("outer_ip_version", "outer_src_ip", "outer_dst_ip"), HAS_OUTER),
    (tuple(name for name, *_ in RARE if name.startswith("fragment_")), IS_FRAGMENT),
)


def _zeros(fields: list[Any], count: int) -> dict[str, np.ndarray]:
    """In one piece, which costs nothing until it is written: the system hands it out page by page."""
    ends = np.cumsum([0, *(-(-count * ROW[name].itemsize // LINE) * LINE for name, *_ in fields)]).tolist()
    block = np.zeros(ends[-1], np.uint8)
    found = {}
    for (name, *_), at in zip(fields, ends, strict=False):
        kind = ROW[name]
        values = block[at : at + count * kind.itemsize].view(kind.base)
        found[name] = values.reshape(count, *kind.shape)
    return found


def empty_columns(count: int) -> Any:
    """Arrays for `count` packets."""
    hot = [np.empty((count, *ROW[name].shape), ROW[name].base) for name, *_ in HOT]
    return Columns(*hot, *_zeros(OPTIONS, count).values())


def finished(columns: Any, rows: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
    """All columns by name, with the rare fields of `rows`, which belong to the packets `at`."""
    found: dict[str, np.ndarray] = columns._asdict()
    found |= _zeros(RARE, len(found["layers"]))
    filled = rows["layers"].copy()  # a row is some hundred bytes, of which each look would bring a line
    any_filled = int(np.bitwise_or.reduce(filled)) if len(filled) else 0
    for names, bits in GROUPS:
        if any_filled & bits:
            has = np.flatnonzero(filled & bits)
            for name in names:
                found[name][at[has]] = rows[name][has]
    for name in ADDRESSES:
        found[name] = found[name].view(np.uint8)
    return found


@inlined
def clean(row: Row) -> None:
    """Zero what `emit` copies from every row."""
    for k in range(2):
        row.src_ip[k] = 0
        row.dst_ip[k] = 0
    row.ether_type = row.vlan = 0
    row.ip_version = row.ip_ttl = row.ip_proto = 0
    row.ip_id = 0
    row.src_port = row.dst_port = 0
    row.icmp_type = row.icmp_code = 0
    row.tcp_flags = row.tcp_window = 0
    row.tcp_seq = row.tcp_ack = 0
    row.payload_offset = row.payload_len = 0
    row.stop_layer = row.stop_reason = 0
    row.layers = 0


ADDRESSES = tuple(name for name in ROW.names or () if name.endswith("_ip"))
