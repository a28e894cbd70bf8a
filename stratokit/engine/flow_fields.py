"""Filter fields of conversations that depend on their protocol, and so are no plain columns."""

from __future__ import annotations

import polars as pl

from stratokit.filters.catalogue import FieldSpec

_ADDRESSES = (pl.col("client_ip"), pl.col("server_ip"))


def _ports(name: str) -> list[FieldSpec]:
    is_it = pl.col("proto") == name
    client, server = (pl.when(is_it).then(pl.col(column)) for column in ("client_port", "server_port"))
    title = name.upper()
    return [
        FieldSpec(name, "protocol", (is_it,), f"{title} conversations."),
        FieldSpec(f"{name}.port", "number", (client, server), f"{title} port of either side."),
        FieldSpec(f"{name}.srcport", "number", (client,), f"{title} port of the client."),
        FieldSpec(f"{name}.dstport", "number", (server,), f"{title} port of the server."),
    ]


FLOW_FIELDS = (
    FieldSpec("flow.id", "number", (pl.col("flow_id"),), "Number of the conversation."),
    FieldSpec("flow.duration", "duration", (pl.col("duration_ns"),), "From first to last packet."),
    FieldSpec("ip.src", "ipv4", _ADDRESSES[:1], "IPv4 address of the client."),
    FieldSpec("ip.dst", "ipv4", _ADDRESSES[1:], "IPv4 address of the server."),
    FieldSpec("ip.addr", "ipv4", _ADDRESSES, "IPv4 address of either side."),
    FieldSpec("ipv6.src", "ipv6", _ADDRESSES[:1], "IPv6 address of the client."),
    FieldSpec("ipv6.dst", "ipv6", _ADDRESSES[1:], "IPv6 address of the server."),
    FieldSpec("ipv6.addr", "ipv6", _ADDRESSES, "IPv6 address of either side."),
    *_ports("tcp"),
    *_ports("udp"),
    *_ports("sctp"),
    FieldSpec("icmp", "protocol", (pl.col("proto") == "icmp",), "ICMP conversations."),
    FieldSpec("icmpv6", "protocol", (pl.col("proto") == "icmpv6",), "ICMPv6 conversations."),
)
