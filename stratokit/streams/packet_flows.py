"""Conversations of decoded packets: what `dissect` gives, through a `FlowTable`, as Arrow columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stratokit.dissect.columns import column
from stratokit.dissect.layers import HAS_ICMP_IP, HAS_IP, HAS_PORTS, HAS_TUNNEL, T_GENEVE, T_VXLAN
from stratokit.streams.about import About
from stratokit.streams.flows import FlowTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("flow_id", "icmp_flow_id")


def flow_columns(
    table: FlowTable, found: dict[str, np.ndarray], ts_ns: NDArray[np.int64]
) -> dict[str, pa.Array]:
    """COLUMNS of the packets of one batch; batches have to come in order."""
    filled = found["layers"]
    about = _about(found)
    flow_id, _ = table.assign(
        found["src_ip"],
        found["dst_ip"],
        found["src_port"],
        found["dst_port"],
        found["ip_proto"],
        found["vlan"],
        found["tcp_flags"],
        found["tcp_seq"],
        ts_ns,
        (filled & HAS_PORTS) != 0,
        tcp_ack=found["tcp_ack"],
        icmp_type=found["icmp_type"],
        icmp_id=found["icmp_id"],
        valid=(filled & HAS_IP) != 0,
        tunnel=_tunnels(found) if (filled & HAS_TUNNEL).any() else None,
        about=about,
    )
    icmp_flow_id = np.full(flow_id.size, -1, np.int64)
    icmp_flow_id[about.rows] = about.flow_id
    both = zip(COLUMNS, (flow_id, icmp_flow_id), strict=True)
    return {name: column(numbers.view(np.uint64), numbers >= 0) for name, numbers in both}


def _tunnels(found: dict[str, np.ndarray]) -> NDArray[np.uint32]:
    """A number for each packet's tunnel. Only networks of VXLAN and GENEVE are those of both directions."""
    kind = found["tunnel"].astype(np.uint32)
    network = np.where((kind == T_VXLAN) | (kind == T_GENEVE), found["tunnel_id"], 0)
    return kind << np.uint32(24) ^ network.astype(np.uint32)


def _about(found: dict[str, np.ndarray]) -> About:
    rows = np.flatnonzero(found["layers"] & HAS_ICMP_IP)
    names = ("src_ip", "dst_ip", "src_port", "dst_port", "ip_proto", "about_type", "about_id")
    return About(rows, *(found[f"icmp_{name}"][rows] for name in names))
