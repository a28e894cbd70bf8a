"""What the packets of each conversation add up to, a block of packets after the other.

Only a few rows for each conversation are kept between blocks, so memory grows with the conversations, not
with the packets. Until all is read it is not known who the client is: sums are kept for the sender whose port
or address is the greater one, and for the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from stratokit.streams.flows import ACK, SYN, TCP
from stratokit.streams.sides import GREATER, SIDE_COLUMNS, is_client, sender_is_greater

# Who a socket belongs to, as packets have it.
OWNER = ("pid", "comm", "pod", "namespace", "container_id")
COLUMNS = sorted({*SIDE_COLUMNS, "frame", "ts", "orig_len", "dst_ip", "icmp_code", *OWNER})
# What a Community ID is made of.
FIRST_PACKET = pl.Schema(
    {
        "src_ip": pl.String,
        "dst_ip": pl.String,
        "src_port": pl.UInt16,
        "dst_port": pl.UInt16,
        "ip_proto": pl.UInt8,
        "icmp_type": pl.UInt8,
        "icmp_code": pl.UInt8,
    }
)
BLOCK_ROWS = 1 << 19
_RANK, _SOCKET = "rank", "socket_is_greater"
_DECIDING = (_RANK, GREATER, "tcp_flags", "ip_proto", "src_port", "dst_port", "icmp_type")
_SUMS = ("packets", "bytes")


def blocks(packets: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Rows in order, about BLOCK_ROWS at a time: grouping small pieces takes longer than reading them.

    The last block may be empty.
    """
    held: list[pl.DataFrame] = []
    for batch in packets.collect_batches(maintain_order=True):
        held.append(batch)
        if sum(part.height for part in held) >= BLOCK_ROWS:
            yield pl.concat(held)
            held = []
    yield pl.concat(held) if held else pl.DataFrame(schema=packets.collect_schema())


def _deciding(packets: pl.DataFrame) -> pl.DataFrame:
    """Of each conversation the packet that tells the client: its first SYN, else SYN-ACK, else the first."""
    ranks = [packets.filter(pl.col(_RANK) == rank).select("flow_id", *_DECIDING) for rank in (3, 2, 1)]
    return pl.concat(ranks).unique("flow_id", keep="first", maintain_order=True)


def _owners(packets: pl.DataFrame) -> pl.DataFrame:
    """The last known owner of the socket at either end: an accepted socket may go to a worker."""
    socket = (pl.col("direction") == "out") == pl.col(GREATER)
    seen = packets.filter(pl.col("direction").is_not_null() & pl.col("pid").is_not_null())
    return seen.group_by("flow_id", socket.alias(_SOCKET)).agg(pl.col(OWNER).last())


class Sums:
    """Takes packets with a flow in capture order; `flows` tells of all of them at the end."""

    def __init__(self) -> None:
        self._frame = 0  # the highest so far: a packet that was seen at both ends comes again with its number
        self._first: list[pl.DataFrame] = []
        self._deciding: list[pl.DataFrame] = []
        self._sums: list[pl.DataFrame] = []
        self._owners: list[pl.DataFrame] = []

    def add(self, packets: pl.DataFrame) -> None:
        """Add up one block."""
        syn, ack = (pl.col("tcp_flags") & flag != 0 for flag in (SYN, ACK))
        rank = (
            pl.when(pl.col("ip_proto") != TCP).then(1).when(syn & ~ack).then(3).when(syn).then(2).otherwise(1)
        )
        packets = packets.with_columns(sender_is_greater(), rank.fill_null(1).cast(pl.UInt8).alias(_RANK))
        seen = pl.col("frame").cum_max().shift(1, fill_value=self._frame).clip(self._frame)
        once = packets.filter(pl.col("frame") > seen)
        self._frame = max(self._frame, int(packets["frame"].max() or 0))  # type: ignore[arg-type]
        flow = packets.group_by("flow_id")
        self._first.append(
            flow.agg(
                pl.col(GREATER).first().alias("sender"),
                pl.col(FIRST_PACKET.names()).first(),
                first_ts=pl.col("ts").min(),
                last_ts=pl.col("ts").max(),
            )
        )
        self._deciding.append(_deciding(packets))
        length = pl.col("orig_len").cast(pl.UInt64).sum()
        self._sums.append(
            once.group_by("flow_id", GREATER).agg(packets=pl.len().cast(pl.UInt64), bytes=length)
        )
        self._owners.append(_owners(packets))
        if sum(part.height for part in self._sums) > 2 * BLOCK_ROWS:
            self._merge()

    def _merge(self) -> None:
        """One part of each kind, in which every conversation stands once."""
        first = pl.concat(self._first).group_by("flow_id", maintain_order=True)
        times = {"first_ts": pl.col("first_ts").min(), "last_ts": pl.col("last_ts").max()}
        self._first = [first.agg(pl.col("sender", *FIRST_PACKET.names()).first(), **times)]
        self._deciding = [_deciding(pl.concat(self._deciding))]
        self._sums = [pl.concat(self._sums).group_by("flow_id", GREATER).agg(pl.col(_SUMS).sum())]
        last = pl.concat(self._owners).group_by("flow_id", _SOCKET, maintain_order=True)
        self._owners = [last.agg(pl.col(OWNER).last())]

    def flows(self) -> pl.DataFrame:
        """A row a conversation: its first packet, whether that is from the client, times, sums, owners.

        At least one block, if an empty one, was added.
        """
        self._merge()
        (first,), (deciding,), (sums,), (owners,) = self._first, self._deciding, self._sums, self._owners
        client = deciding.select("flow_id", client=pl.Series(is_client(deciding)) == pl.col(GREATER))
        flows = first.join(client, on="flow_id").with_columns(
            from_client=pl.col("sender") == pl.col("client")
        )
        for end, greater in (("c2s", pl.col("client")), ("s2c", ~pl.col("client"))):
            names = {name: f"{name}_{end}" for name in _SUMS}
            flows = flows.with_columns(greater.alias(GREATER))
            flows = flows.join(sums.rename(names), on=["flow_id", GREATER], how="left")
            flows = flows.with_columns(pl.col(names.values()).fill_null(0))
        for end, greater in (("", pl.col("client")), ("server_", ~pl.col("client"))):
            names = {name: end + name for name in OWNER}
            flows = flows.with_columns(greater.alias(_SOCKET))
            flows = flows.join(owners.rename(names), on=["flow_id", _SOCKET], how="left")
        return flows.sort("flow_id")
