"""What `packets.dissect` gives, as Arrow columns of schemas/capture.toml: null where there is no value."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stratokit.dissect import layers
from stratokit.dissect.addresses import address_column
from stratokit.dissect.datagrams import copy_all
from stratokit.schema import load
from stratokit.schema.arrow import ARROW_TYPES

if TYPE_CHECKING:
    from stratokit.dissect.fragments import Datagrams

# Which bit of `layers` says that a column was filled.
FILLED_BY = {
    "vlan": layers.HAS_VLAN,
    "vlan_inner": layers.HAS_VLAN_INNER,
    "mpls_label": layers.HAS_MPLS,
    "pppoe_session": layers.HAS_PPPOE,
    "arp_op": layers.HAS_ARP,
    "ip_version": layers.HAS_IP,
    "ip_ttl": layers.HAS_IP,
    "ip_proto": layers.HAS_IP_PROTO,
    "fragment_id": layers.IS_FRAGMENT,
    "fragment_offset": layers.IS_FRAGMENT,
    "src_port": layers.HAS_PORTS,
    "dst_port": layers.HAS_PORTS,
    "icmp_type": layers.HAS_ICMP,
    "icmp_code": layers.HAS_ICMP,
    "icmp_id": layers.HAS_ICMP_ID,
    "icmp_seq": layers.HAS_ICMP_ID,
    "icmp_ip_proto": layers.HAS_ICMP_IP,
    "icmp_src_port": layers.HAS_ICMP_PORTS,
    "icmp_dst_port": layers.HAS_ICMP_PORTS,
    "tcp_flags": layers.HAS_TCP,
    "tcp_seq": layers.HAS_TCP,
    "tcp_ack": layers.HAS_TCP,
    "tcp_window": layers.HAS_TCP,
    "tcp_options": layers.HAS_TCP_OPTIONS,
    "tcp_mss": layers.HAS_MSS,
    "tcp_window_scale": layers.HAS_WINDOW_SCALE,
    "tcp_sack_count": layers.HAS_SACK,
    "tcp_tsval": layers.HAS_TIMESTAMPS,
    "tcp_tsecr": layers.HAS_TIMESTAMPS,
    "sctp_tag": layers.HAS_SCTP,
    "sctp_chunk": layers.HAS_SCTP_CHUNK,
    "tunnel_id": layers.HAS_TUNNEL_ID,
    "tunnel_depth": layers.HAS_TUNNEL,
    "payload_offset": layers.HAS_PAYLOAD,
    "payload_len": layers.HAS_PAYLOAD,
}
# Addresses, and the bit and the column that say whether and in which version.
ADDRESSES = {
    "src_ip": (layers.HAS_IP, "ip_version"),
    "dst_ip": (layers.HAS_IP, "ip_version"),
    "outer_src_ip": (layers.HAS_OUTER, "outer_ip_version"),
    "outer_dst_ip": (layers.HAS_OUTER, "outer_ip_version"),
    "icmp_src_ip": (layers.HAS_ICMP_IP, "icmp_ip_version"),
    "icmp_dst_ip": (layers.HAS_ICMP_IP, "icmp_ip_version"),
    "arp_sender_ip": (layers.HAS_ARP_IP, ""),
    "arp_target_ip": (layers.HAS_ARP_IP, ""),
}
NAMES = {
    "stop_layer": pa.array(layers.LAYER_NAMES),
    "stop_reason": pa.array(layers.REASON_NAMES),
    "tunnel": pa.array(layers.TUNNEL_NAMES),
}
# No bit of `layers`: the code 0 says it.
ALWAYS = 1 << 32
SACK_EDGES = {
    f"tcp_sack{k + 1}_{side}": (f"tcp_sack_{side}", k)
    for k in range(layers.SACK_BLOCKS)
    for side in ("left", "right")
}


def _bitmap(has: np.ndarray) -> pa.Buffer | None:
    """Arrow's bits for the values that are there; None when all of them are."""
    return None if has.all() else pa.py_buffer(np.packbits(has, bitorder="little"))


def _column(values: np.ndarray, valid: pa.Buffer | None, type_: pa.DataType | None = None) -> pa.Array:
    values = np.ascontiguousarray(values)
    type_ = type_ or pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(type_, len(values), [valid, pa.py_buffer(values)])


def column(values: np.ndarray, has: np.ndarray, type_: pa.DataType | None = None) -> pa.Array:
    """`values` themselves, no copy, null where not `has`; as `type_`, whose values are as wide."""
    return _column(values, _bitmap(has), type_)


def _names(codes: np.ndarray, names: pa.Array) -> pa.Array:
    has = codes != 0
    if not has.any():
        return pa.nulls(len(codes), pa.dictionary(pa.int32(), pa.string()))
    return pa.DictionaryArray.from_arrays(column(codes.astype(np.int32), has), names)


def _edge(dissected: dict[str, np.ndarray], field: str, k: int) -> pa.Array:
    has = (dissected["layers"] & layers.HAS_SACK != 0) & (dissected["tcp_sack_count"] > k)
    return column(dissected[field][:, k], has)


def _address(dissected: dict[str, np.ndarray], name: str, bit: int, versions: str) -> pa.DictionaryArray:
    has = dissected["layers"] & bit != 0
    version = dissected[versions] if versions else np.uint8(4)
    return address_column(dissected[name], np.where(has, version, np.uint8(0)))


def packet_columns(
    dissected: dict[str, np.ndarray],
    wanted: Collection[str] | None = None,
    datagrams: Datagrams | None = None,
) -> dict[str, pa.Array]:
    """Arrow arrays by column name, without a copy in Python; of the columns in `wanted`, or of all.

    `datagrams` is what `fragments.Reassembler` gave for the same rows.
    """
    filled = dissected["layers"]
    any_filled = ALWAYS | (int(np.bitwise_or.reduce(filled)) if len(filled) else 0)
    columns: dict[str, pa.Array] = {}
    # Many columns have the same bit.
    valid = functools.cache(lambda bit: _bitmap(filled & bit != 0))

    def put(name: str, bit: int, make: Callable[[], pa.Array]) -> None:
        """A column whose bit no packet has is null throughout, and nothing is read for it."""
        if wanted is None or name in wanted:
            columns[name] = make() if any_filled & bit else pa.nulls(len(filled), TYPES[name])

    for name, bit in FILLED_BY.items():
        put(name, bit, lambda n=name, b=bit: _column(dissected[n], valid(b)))  # type: ignore[misc]
    put("ip_id", layers.HAS_IP, lambda: column(dissected["ip_id"], dissected["ip_version"] == 4))
    put("tcp_sack_permitted", layers.HAS_SACK_PERMITTED, lambda: _sack_permitted(filled))
    for name, (field, k) in SACK_EDGES.items():
        put(name, layers.HAS_SACK, lambda f=field, k=k: _edge(dissected, f, k))  # type: ignore[misc]
    for name, (bit, versions) in ADDRESSES.items():
        put(name, bit, lambda n=name, b=bit, v=versions: _address(dissected, n, b, v))  # type: ignore[misc]
    for name, names in NAMES.items():
        put(name, ALWAYS, lambda n=name, t=names: _names(dissected[n], t))  # type: ignore[misc]
    has = 0 if datagrams is None or not datagrams.rows.size else ALWAYS
    put("datagram", has, lambda: _datagrams(datagrams, len(filled)))  # type: ignore[arg-type]
    put("datagram_fragments", has, lambda: _fragments(datagrams, len(filled)))  # type: ignore[arg-type]
    return columns


def _datagrams(datagrams: Datagrams, count: int) -> pa.Array:
    """Packets put together, in the rows that completed them."""
    bounds = np.zeros(count + 1, np.int64)
    bounds[datagrams.rows + 1] = datagrams.lens
    np.cumsum(bounds, out=bounds)
    data = np.empty(int(bounds[-1]), np.uint8)
    copy_all(datagrams.data, datagrams.offsets, datagrams.lens, data)
    lacking = np.ones(count, np.bool_)
    lacking[datagrams.rows] = False
    valid = pa.array(lacking, mask=lacking).buffers()[0]
    return pa.Array.from_buffers(pa.large_binary(), count, [valid, pa.py_buffer(bounds), pa.py_buffer(data)])


def _fragments(datagrams: Datagrams, count: int) -> pa.Array:
    fragments = np.zeros(count, np.uint16)
    fragments[datagrams.rows] = datagrams.fragments
    return pa.array(fragments, mask=fragments == 0)


def _sack_permitted(filled: np.ndarray) -> pa.Array:
    has = filled & layers.HAS_SACK_PERMITTED != 0
    return pa.array(has, mask=~has)


COLUMNS = (
    *FILLED_BY,
    "ip_id",
    "tcp_sack_permitted",
    *SACK_EDGES,
    *ADDRESSES,
    *NAMES,
    "datagram",
    "datagram_fragments",
)
_SCHEMA = {column.name: ARROW_TYPES[column.type] for column in load.capture().columns}
TYPES = {name: _SCHEMA[name] for name in COLUMNS}
