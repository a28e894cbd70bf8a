"""What `packets.dissect` gives, as Arrow columns of schemas/capture.toml: null where there is no value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stratokit.dissect import layers
from stratokit.dissect.addresses import address_column

# Which bit of `layers` says that a column was filled.
FILLED_BY = {
    "vlan": layers.HAS_VLAN,
    "ip_version": layers.HAS_IP,
    "ip_ttl": layers.HAS_IP,
    "ip_proto": layers.HAS_IP_PROTO,
    "src_port": layers.HAS_PORTS,
    "dst_port": layers.HAS_PORTS,
    "icmp_type": layers.HAS_ICMP,
    "icmp_code": layers.HAS_ICMP,
    "tcp_flags": layers.HAS_TCP,
    "tcp_seq": layers.HAS_TCP,
    "tcp_ack": layers.HAS_TCP,
    "tcp_window": layers.HAS_TCP,
    "payload_offset": layers.HAS_PAYLOAD,
    "payload_len": layers.HAS_PAYLOAD,
}


def _names(codes: np.ndarray, names: tuple[str, ...]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=codes == 0), pa.array(names))


def packet_columns(dissected: dict[str, np.ndarray]) -> dict[str, pa.Array]:
    """Arrow arrays by column name, without a copy in Python."""
    filled = dissected["layers"]
    columns = {name: pa.array(dissected[name], mask=(filled & bit) == 0) for name, bit in FILLED_BY.items()}
    columns["ip_id"] = pa.array(dissected["ip_id"], mask=dissected["ip_version"] != 4)
    for name in ("src_ip", "dst_ip"):
        columns[name] = address_column(dissected[name], dissected["ip_version"])
    columns["stop_layer"] = _names(dissected["stop_layer"], layers.LAYER_NAMES)
    columns["stop_reason"] = _names(dissected["stop_reason"], layers.REASON_NAMES)
    return columns
