"""Which side of a conversation sent a packet, and at whose end the packet was seen.

A packet between two local sockets was seen twice: out of the sender's socket and in to the receiver's. The
sightings at one end are that end's view of the conversation, and only within one view do times and sequence
numbers follow each other as one TCP saw them. A packet from a plain file has no direction: one view, the
wire's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.kernels import kernel, read_only
from stratokit.streams.flows import ACK, SYN, TCP, sender_is_client

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIRE, CLIENT, SERVER = 0, 1, 2  # values of the column `view`
VIEWS = 3

# What `with_sides` reads; select these besides your own columns.
SIDE_COLUMNS = (
    "flow_id", "direction", "src_ip", "src_port", "dst_ip", "dst_port", "ip_proto", "tcp_flags", "icmp_type",
)  # fmt: skip


@kernel
def _deciding_rows(
    flow_id: np.ndarray, ip_proto: np.ndarray, tcp_flags: np.ndarray, row: np.ndarray, rank: np.ndarray
) -> None:
    """Row per flow that tells the client: its first SYN, else its first SYN-ACK, else its first packet.

    `rank` begins with zeros.
    """
    for i in range(flow_id.size):
        this = 1
        if ip_proto[i] == TCP and tcp_flags[i] & SYN:
            this = 2 if tcp_flags[i] & ACK else 3
        f = flow_id[i]
        if this > rank[f]:
            rank[f] = this
            row[f] = i


@kernel
def _from_client(packets: Any, deciding: np.ndarray, out: np.ndarray) -> None:
    flow_id, greater, src_port, dst_port, ip_proto, tcp_flags, icmp_type = packets
    for i in range(flow_id.size):
        d = deciding[flow_id[i]]
        out[i] = (greater[i] == greater[d]) == sender_is_client(
            ip_proto[d], tcp_flags[d], src_port[d], dst_port[d], icmp_type[d]
        )


def sender_is_greater() -> pl.Expr:
    """Tells both ends apart: whether the sender's port, else its address, is the greater one."""
    ports = pl.col("src_port").ne_missing(pl.col("dst_port"))
    port, ip = (pl.col("src_" + name) > pl.col("dst_" + name) for name in ("port", "ip"))
    return pl.when(ports).then(port).otherwise(ip).fill_null(value=False)


def column(frame: pl.DataFrame, name: str, dtype: Any) -> NDArray[Any]:
    """A numeric column as an array to be read, nulls as 0."""
    found: NDArray[Any] = read_only(frame[name].fill_null(0).to_numpy(), dtype)
    return found


def with_sides(packets: pl.DataFrame) -> pl.DataFrame:
    """`packets` (all with a flow) in capture order, with `from_client` and `view` added."""
    flow_id = column(packets, "flow_id", np.int64)
    arrays = (
        flow_id,
        packets.select(sender_is_greater()).to_series().to_numpy(),
        column(packets, "src_port", np.int64),
        column(packets, "dst_port", np.int64),
        column(packets, "ip_proto", np.int64),
        column(packets, "tcp_flags", np.int64),
        column(packets, "icmp_type", np.int64),
    )
    flows = int(flow_id.max()) + 1 if flow_id.size else 0
    deciding = np.full(flows, -1, np.int64)
    _deciding_rows(flow_id, arrays[4], arrays[5], deciding, np.zeros(flows, np.uint8))
    from_client = np.empty(flow_id.size, np.bool_)
    _from_client(arrays, deciding, from_client)
    outwards = pl.col("direction") == "out"
    return packets.with_columns(from_client=pl.Series(from_client)).with_columns(
        view=pl.when(pl.col("direction").is_null())
        .then(WIRE)
        .when(outwards == pl.col("from_client"))
        .then(CLIENT)
        .otherwise(SERVER)
        .cast(pl.UInt8)
    )
