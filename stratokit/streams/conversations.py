"""Table `flows`: one row a conversation, whatever it carried.

A packet between two local sockets was seen at both ends and counts once. `bytes_*` are frame lengths as
Wireshark's conversations count them: the packet as long as it was on the wire, from the recorded layer on.
Left out: conversations inside tunnels, fragments after the first (they belong to no flow).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.community_id import community_ids
from stratokit.streams.conversation_sums import COLUMNS, FIRST_PACKET, Sums, blocks
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from stratokit.streams.source import PacketSource

PROTO_NAMES = {
    1: "icmp",
    2: "igmp",
    6: "tcp",
    17: "udp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    89: "ospf",
    103: "pim",
    112: "vrrp",
    132: "sctp",
}  # IANA protocol numbers; any other is shown as its number

TABLE = Table(
    "flows",
    "a conversation: a TCP connection, or the packets between two ends with no long pause",
    (
        Column("flow_id", "u64", "Number of the conversation, from 0 in order of first packets."),
        Column("proto", "text", "Protocol over IP: tcp, udp, icmp, icmpv6, sctp, ...; else its number."),
        Column("client_ip", "text", "Address that began it: by SYN, else by the ports (docs: flows)."),
        Column("client_port", "u16", "Port of the client; null where the protocol has none."),
        Column("server_ip", "text", "Address of the other side."),
        Column("server_port", "u16", "Port of the server."),
        Column("first_ts", "time", "First packet."),
        Column("last_ts", "time", "Last packet."),
        Column("duration_ns", "s64", "From first to last packet.", "ns"),
        Column("packets_c2s", "u64", "Packets from client to server, each counted once."),
        Column("packets_s2c", "u64", "Packets from server to client, each counted once."),
        Column("bytes_c2s", "u64", "Sum of their frame lengths on the wire.", "bytes"),
        Column("bytes_s2c", "u64", "Sum of their frame lengths on the wire.", "bytes"),
        Column("community_id", "text", "Community ID v1, as Zeek, Suricata and Wireshark compute it."),
        Column("pid", "u32", "Process that last owned the client's socket; null unless recorded there."),
        Column("comm", "text", "Its thread name."),
        Column("pod", "text", "Its pod."),
        Column("namespace", "text", "Kubernetes namespace of that pod."),
        Column("container_id", "text", "Its container."),
        Column(
            "server_pid", "u32", "Process that last owned the server's socket; null unless recorded there."
        ),
        Column("server_comm", "text", "Its thread name."),
        Column("server_pod", "text", "Its pod."),
        Column("server_namespace", "text", "Kubernetes namespace of that pod."),
        Column("server_container_id", "text", "Its container."),
    ),
    (
        FilterField("ip.addr", ("client_ip", "server_ip"), "Address of either side."),
        FilterField("communityid", ("community_id",), "Community ID v1."),
        FilterField("proc.pid", ("pid", "server_pid"), "Process id at either end."),
        FilterField("proc.name", ("comm", "server_comm"), "Thread name at either end."),
        FilterField("k8s.pod.name", ("pod", "server_pod"), "Pod at either end."),
        FilterField("k8s.ns.name", ("namespace", "server_namespace"), "Kubernetes namespace at either end."),
        FilterField("container.id", ("container_id", "server_container_id"), "Container at either end."),
    ),
)


def _conversations(capture: PacketSource) -> pl.DataFrame:
    sums = Sums()
    packets = capture.rows("packet").filter(pl.col("flow_id").is_not_null()).select(COLUMNS)
    for batch in blocks(packets):
        sums.add(batch)
    flows = sums.flows()
    for name in ("ip", "port"):
        src, dst = pl.col("src_" + name), pl.col("dst_" + name)
        flows = flows.with_columns(
            pl.when("from_client").then(src).otherwise(dst).alias("client_" + name),
            pl.when("from_client").then(dst).otherwise(src).alias("server_" + name),
        )
    return flows.with_columns(
        duration_ns=(pl.col("last_ts") - pl.col("first_ts")).dt.total_nanoseconds(),
        proto=pl.col("ip_proto").cast(pl.String).replace({str(k): v for k, v in PROTO_NAMES.items()}),
    )


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `flows`, in order of flow_id. The hashes are only computed where community_id is selected."""
    schema = frame_schema(TABLE)
    first_packet = pl.struct(FIRST_PACKET.names())
    inner = pl.Schema({k: v for k, v in schema.items() if k != "community_id"} | dict(FIRST_PACKET))
    frame = deferred(inner, lambda: _conversations(capture))
    ids = first_packet.map_batches(lambda s: community_ids(s.struct.unnest()), return_dtype=pl.String)
    return frame.with_columns(community_id=ids).select(schema.names())
