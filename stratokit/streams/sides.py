"""Which side of a conversation sent a packet, and at whose end the packet was seen.

A packet between two local sockets was seen twice: out of the sender's socket and in to the receiver's. The
sightings at one end are that end's view of the conversation, and only within one view do times and sequence
numbers follow each other as one TCP saw them. A packet from a plain file has no direction: one view, the
wire's. So it is where all packets of a conversation go the same way although both ends send: the file has
each packet once, as those that are written for Wireshark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, read_only
from stratokit.streams.flows import ACK, SYN, TCP, sender_is_client

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIRE, CLIENT, SERVER = 0, 1, 2  # values of the column `view`
VIEWS = 3

# Column of `sender_is_greater`.
GREATER = "sender_is_greater"
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
        ports = i64(src_port[d]), i64(dst_port[d])
        is_client = sender_is_client(i64(ip_proto[d]), i64(tcp_flags[d]), *ports, i64(icmp_type[d]))
        out[i] = (greater[i] == greater[d]) == is_client


def sender_is_greater() -> pl.Expr:
    """Tells both ends apart: whether the sender's port, else its address, is the greater one."""
    ports = pl.col("src_port").ne_missing(pl.col("dst_port"))
    port, ip = (pl.col("src_" + name) > pl.col("dst_" + name) for name in ("port", "ip"))
    return pl.when(ports).then(port).otherwise(ip).fill_null(value=False).alias(GREATER)


def column(frame: pl.DataFrame, name: str, dtype: Any) -> NDArray[Any]:
    """A numeric column as an array to be read, nulls as 0."""
    found: NDArray[Any] = read_only(frame[name].fill_null(0).to_numpy(), dtype)
    return found


def is_client(packets: pl.DataFrame) -> NDArray[np.bool_]:
    """Whether the sender of each packet is the client, where each decides about its conversation."""
    rows: NDArray[Any] = read_only(np.arange(packets.height), np.int64)
    out = np.empty(packets.height, np.bool_)
    _from_client((rows, packets[GREATER].to_numpy(), *_headers(packets)), rows, out)
    return out


def _headers(packets: pl.DataFrame) -> tuple[NDArray[Any], ...]:
    return (
        column(packets, "src_port", np.uint16),
        column(packets, "dst_port", np.uint16),
        column(packets, "ip_proto", np.uint8),
        column(packets, "tcp_flags", np.uint16),
        column(packets, "icmp_type", np.uint8),
    )


def with_sides(packets: pl.DataFrame) -> pl.DataFrame:
    """`packets` (all with a flow) in capture order, with `from_client` and `view` added.

    Where they have `sender_is_greater` already, addresses are not looked at; it goes.
    """
    flow_id = column(packets, "flow_id", np.int64)
    if GREATER not in packets.columns:
        packets = packets.with_columns(sender_is_greater())
    greater, headers = packets[GREATER].to_numpy(), _headers(packets)
    packets = packets.drop(GREATER)
    flows = int(flow_id.max()) + 1 if flow_id.size else 0
    deciding = np.full(flows, -1, np.int64)
    _deciding_rows(flow_id, headers[2], headers[3], deciding, np.zeros(flows, np.uint8))
    deciding = read_only(deciding, np.int64)
    from_client = np.empty(flow_id.size, np.bool_)
    _from_client((flow_id, greater, *headers), deciding, from_client)
    outwards = packets.select(outwards=pl.col("direction") == "out").to_series()
    at_client = outwards.fill_null(value=False).to_numpy() == from_client
    view = np.where(at_client, np.uint8(CLIENT), np.uint8(SERVER))
    view[outwards.is_null().to_numpy() | _seen_once(flow_id, outwards, from_client, flows)] = WIRE
    lengths = packets.get_column("flow_id").chunk_lengths()
    return packets.with_columns(
        _in_chunks("from_client", from_client, lengths), _in_chunks("view", view, lengths)
    )


def _seen_once(
    flow_id: NDArray[np.int64], outwards: pl.Series, from_client: NDArray[np.bool_], flows: int
) -> NDArray[np.bool_] | bool:
    """Of each packet whether its conversation passes one place, that both ends send out to or in from."""
    if outwards.null_count() == outwards.len():
        return False
    seen = np.zeros((2, 2, flows), np.bool_)  # by way and sender
    for way in (0, 1):
        passing = (outwards == bool(way)).fill_null(value=False).to_numpy()
        for sender in (0, 1):
            seen[way, sender, flow_id[passing & (from_client == bool(sender))]] = True
    (in_server, in_client), (out_server, out_client) = seen
    all_out = out_client & out_server & ~in_client & ~in_server
    all_in = in_client & in_server & ~out_client & ~out_server
    found: NDArray[np.bool_] = (all_out | all_in)[flow_id]
    return found


def _in_chunks(name: str, values: NDArray[Any], lengths: list[int]) -> pl.Series:
    """A column in the same pieces as the others of a frame: else polars copies all of these."""
    parts = np.split(values, np.cumsum(lengths)[:-1])
    return pl.concat([pl.Series(name, part) for part in parts], rechunk=False)
