"""Filter fields of the table `packets`: Wireshark's names.

A packet within another one (a tunnel, an ICMP error) has its own addresses and ports; as in Wireshark a field
then has the values of all of them.
"""

from __future__ import annotations

import dataclasses

import polars as pl

from stratokit.filters.catalogue import FieldSpec

_c = pl.col
_TCP, _UDP, _ICMP, _ICMPV6, _SCTP = 6, 17, 1, 58, 132
_ETHERNET = 1
_TCP_FLAGS = {
    "fin": (1, "Sender has no more data."),
    "syn": (2, "Synchronise sequence numbers."),
    "reset": (4, "Connection is torn down."),
    "push": (8, "Data shall go to the application at once."),
    "ack": (16, "Acknowledgment number is valid."),
    "urg": (32, "Urgent pointer is valid."),
    "ece": (64, "ECN-Echo."),
    "cwr": (128, "Congestion window reduced."),
    "ae": (256, "Accurate ECN."),
}
_UDP_TUNNELS = ("vxlan", "geneve", "gtpu", "mplsoudp", "l2tp")
# What the IP packet around a tunnelled one says that it carries.
_TUNNEL_PROTO = {"ipip": 4, "4in6": 4, "6in4": 41, "6in6": 41, "gre": 47, "erspan": 47} | {
    "etherip": 97,
    "mplsoip": 137,
    "ethernet": 143,
    **dict.fromkeys(_UDP_TUNNELS, _UDP),
}
_UDP_HEADER_BYTES = 8
_L2TP_PORT = 1701
# A tunnel's own UDP header: nobody keeps its ports.
_UDP_AROUND = _c("tunnel").is_in(_UDP_TUNNELS).fill_null(value=False).cast(pl.Int64)
_ETHERNET_HEADER_BYTES = 14
_LEAST_TYPE = 0x600  # a smaller number is a length (IEEE 802.3 section 3.2.6)
# The packet itself, the one around it, and the one that it is an error about.
_LAYERS = ("", "outer_", "icmp_")


def _one(name: str, type_: str, column: str, doc: str) -> FieldSpec:
    return FieldSpec(name, type_, (_c(column),), doc)


def _where(test: pl.Expr, value: pl.Expr) -> pl.Expr:
    return pl.when(test).then(value)


def _any(*tests: pl.Expr) -> tuple[pl.Expr]:
    return (pl.any_horizontal(test.fill_null(value=False) for test in tests),)


def _of(proto: int, column: str) -> pl.Expr:
    """A column where the packet is of this transport protocol, else null.

    As in Wireshark fragments have no ports; the frame that completes their packet has, and one that cannot be
    put together with others.
    """
    alone = (_c("stop_reason") != "fragment").fill_null(value=True)
    whole = _c("fragment_id").is_null() | _c("datagram").is_not_null() | alone
    return _where((_c("ip_proto") == proto) & whole, _c(column))


def _bytes(start: pl.Expr, length: pl.Expr | None = None) -> pl.Expr:
    """Bytes of the frame, or of the IP packet where it came in fragments; null where `start` is."""
    return _where(start.is_not_null(), pl.coalesce("datagram", "data").bin.slice(start, length))


def _transport(name: str, proto: int) -> list[FieldSpec]:
    title, within = name.upper(), _c("icmp_ip_proto") == proto
    sources = _of(proto, "src_port"), _where(within, _c("icmp_src_port"))
    targets = _of(proto, "dst_port"), _where(within, _c("icmp_dst_port"))
    there = [source.is_not_null() for source in sources]
    payload = None
    layers, around = (sources, targets), None
    if proto == _UDP:
        around = _UDP_AROUND
        there.append(around > 0)
        payload = _bytes(_of(_UDP, "payload_offset").cast(pl.Int64) - _UDP_HEADER_BYTES)
    return [
        FieldSpec(name, "protocol", _any(*there), f"{title} packets.", payload=payload),
        FieldSpec(
            f"{name}.srcport", "number", sources, f"{title} source port.", layers=layers[:1], around=around
        ),
        FieldSpec(
            f"{name}.dstport",
            "number",
            targets,
            f"{title} destination port.",
            layers=layers[1:],
            around=around,
        ),
        FieldSpec(
            f"{name}.port",
            "number",
            sources + targets,
            f"{title} source or destination port.",
            layers=layers,
            around=around,
        ),
    ]


def _around(mark: str) -> pl.Expr:
    """How many packets of IP are around this one, whose addresses have this mark of their version."""
    return _c("outer_src_ip").str.contains(mark, literal=True).fill_null(value=False).cast(pl.Int64)


def _layered(spec: FieldSpec, around: pl.Expr | None = None) -> FieldSpec:
    """A field of which only the innermost layer is known; there are `around` more around it."""
    return dataclasses.replace(spec, layers=tuple((value,) for value in spec.values), around=around)


def _payload(name: str, proto: int) -> FieldSpec:
    value = _bytes(_where(_c("payload_len") > 0, _of(proto, "payload_offset")), _c("payload_len"))
    return FieldSpec(f"{name}.payload", "bytes", (value,), f"Payload of {name.upper()}, as far as captured.")


def _stream(name: str, proto: int) -> FieldSpec:
    number = _of(proto, "flow_id").rank("dense").cast(pl.Int64) - 1
    return FieldSpec(
        f"{name}.stream", "number", (number,), f"{name.upper()} conversation, from 0 by first packet."
    )


def _ip(name: str, type_: str, version: int) -> list[FieldSpec]:
    title = f"IPv{version}"
    mark = "." if version == 4 else ":"
    sources = tuple(_c(f"{layer}src_ip") for layer in _LAYERS)
    targets = tuple(_c(f"{layer}dst_ip") for layer in _LAYERS)
    own, outer, about = range(3)  # as in _LAYERS
    layers = tuple(
        tuple(_where(values[k].str.contains(mark, literal=True), values[k]) for k in (outer, own, about))
        for values in (sources, targets)
    )
    there = [_c("ip_version") == version]
    there += [source.str.contains(mark, literal=True) for source in sources[1:]]
    versions = [_where(test, pl.lit(version)) for test in there]
    if version == 4:  # Wireshark gives IPv6 packets an ip.version too
        versions += [_where(_c("ip_version") == 6, pl.lit(6))]
        versions += [_where(source.str.contains(":", literal=True), pl.lit(6)) for source in sources[1:]]
    return [
        FieldSpec(name, "protocol", _any(*there), f"{title} packets."),
        FieldSpec(f"{name}.version", "number", tuple(versions), f"Version of {title}."),
        FieldSpec(f"{name}.src", type_, sources, f"{title} source address.", layers=layers[:1]),
        FieldSpec(f"{name}.dst", type_, targets, f"{title} destination address.", layers=layers[1:]),
        FieldSpec(
            f"{name}.addr", type_, sources + targets, f"{title} source or destination address.", layers=layers
        ),
    ]


def _protocols() -> tuple[pl.Expr, ...]:
    around = _c("tunnel").replace_strict(_TUNNEL_PROTO, default=None, return_dtype=pl.UInt8)
    return (
        _where(_c("ip_version") == 4, _c("ip_proto")),
        _where(_c("outer_src_ip").str.contains(".", literal=True), around),
        _where(_c("icmp_src_ip").str.contains(".", literal=True), _c("icmp_ip_proto")),
    )


def _ethernet() -> list[FieldSpec]:
    frame = _where(_c("link_type") == _ETHERNET, _c("data"))
    size = frame.bin.size()
    source, target = _where(size >= 12, frame.bin.slice(6, 6)), _where(size >= 6, frame.bin.slice(0, 6))
    type_ = _where(size >= _ETHERNET_HEADER_BYTES, frame.bin.slice(12, 2))
    number = type_.bin.reinterpret(dtype=pl.UInt16, endianness="big")
    return [
        FieldSpec(
            "eth",
            "protocol",
            ((_c("link_type") == _ETHERNET) & (_c("cap_len") > 0),),
            "Ethernet frames.",
            payload=frame,
        ),
        FieldSpec("eth.src", "bytes", (source,), "Ethernet source address."),
        FieldSpec("eth.dst", "bytes", (target,), "Ethernet destination address."),
        FieldSpec("eth.addr", "bytes", (source, target), "Ethernet source or destination address."),
        FieldSpec("eth.type", "number", (_where(number >= _LEAST_TYPE, number),), "EtherType of the frame."),
    ]


def _tunnel(name: str, title: str, tunnels: tuple[str, ...], key: str = "") -> list[FieldSpec]:
    inside = _c("tunnel").is_in(tunnels)
    found = [FieldSpec(name, "protocol", _any(inside), f"Packets in {title}.")]
    if key:
        number = _where(inside, _c("tunnel_id"))
        found.append(FieldSpec(f"{name}.{key}", "number", (number,), f"Number in the header of {title}."))
    return found


def _l2tp_message() -> pl.Expr:
    """Whether UDP carries a message of L2TP, as those that control have no packet: version 2 or 3 stands in
    the last four of the first sixteen bits (RFC 2661 section 3.1, RFC 3931 section 4.1.2)."""
    on_port = pl.any_horizontal(_of(_UDP, name) == _L2TP_PORT for name in ("src_port", "dst_port"))
    head = _bytes(_where(on_port & (_c("payload_len") > 1), _c("payload_offset")), pl.lit(2))
    flags = _where(head.bin.size() == 2, head).bin.reinterpret(dtype=pl.UInt16, endianness="big")
    return (flags & 0x0F).is_in([2, 3])


def _icmp(name: str, proto: int, title: str, ident: str, seq: str) -> list[FieldSpec]:
    return [
        FieldSpec(name, "protocol", _any(_of(proto, "icmp_type").is_not_null()), f"{title} packets."),
        FieldSpec(f"{name}.type", "number", (_of(proto, "icmp_type"),), f"{title} type."),
        FieldSpec(f"{name}.code", "number", (_of(proto, "icmp_code"),), f"{title} code."),
        FieldSpec(f"{name}.{ident}", "number", (_of(proto, "icmp_id"),), f"Identifier of {title} queries."),
        FieldSpec(f"{name}.{seq}", "number", (_of(proto, "icmp_seq"),), f"Sequence number of {title}."),
    ]


_IS_V4 = _c("ip_version") == 4
_IS_ARP = _c("arp_op").is_not_null()
_FRAME = (
    FieldSpec("frame", "bytes", (_c("data"),), "The recorded bytes of the packet."),
    _one("frame.number", "number", "frame", "Number of the packet, from 1."),
    _one("frame.time", "time", "ts", "When the packet was seen."),
    _one("frame.time_epoch", "time", "ts", "When the packet was seen, in seconds since 1970."),
    FieldSpec(
        "frame.time_relative",
        "duration",
        ((_c("ts") - _c("ts").first()).dt.total_nanoseconds(),),
        "Since the first packet.",
    ),
    FieldSpec(
        "frame.time_delta",
        "duration",
        (_c("ts").diff().dt.total_nanoseconds().fill_null(0),),
        "Since the packet before; of the first one 0.",
    ),
    _one("frame.len", "number", "orig_len", "Length on the wire in bytes."),
    _one("frame.cap_len", "number", "cap_len", "Recorded bytes."),
    _one("frame.interface_name", "text", "interface", "Interface name."),
    _one("frame.comment", "text", "comment", "Comments that stood with the packet in its file."),
    _one("packet.direction", "text", "direction", "in or out, seen from the recording host."),
)
_LINK = (
    *_ethernet(),
    FieldSpec("vlan", "protocol", (_c("vlan").is_not_null(),), "Packets with a VLAN tag."),
    FieldSpec("vlan.id", "number", (_c("vlan"), _c("vlan_inner")), "VLAN id, of the first two tags."),
    FieldSpec("mpls", "protocol", (_c("mpls_label").is_not_null(),), "Packets with an MPLS label."),
    _one("mpls.label", "number", "mpls_label", "MPLS label at the top of the stack."),
    FieldSpec("pppoes", "protocol", (_c("pppoe_session").is_not_null(),), "Packets of a PPPoE session."),
    _one("pppoe.session_id", "number", "pppoe_session", "PPPoE session."),
    FieldSpec("arp", "protocol", (_IS_ARP,), "ARP packets."),
    _one("arp.opcode", "number", "arp_op", "1 request, 2 reply."),
    _one("arp.src.proto_ipv4", "ipv4", "arp_sender_ip", "IPv4 address of the sender in ARP."),
    _one("arp.dst.proto_ipv4", "ipv4", "arp_target_ip", "IPv4 address of the target in ARP."),
)
_NETWORK = (
    *_ip("ip", "ipv4", 4),
    FieldSpec("ip.proto", "number", _protocols(), "IP protocol."),
    _layered(FieldSpec("ip.ttl", "number", (_where(_IS_V4, _c("ip_ttl")),), "Time to live."), _around(".")),
    _layered(_one("ip.id", "number", "ip_id", "IPv4 identification."), _around(".")),
    *_ip("ipv6", "ipv6", 6),
    _layered(
        FieldSpec("ipv6.hlim", "number", (_where(_c("ip_version") == 6, _c("ip_ttl")),), "Hop limit."),
        _around(":"),
    ),
    *_icmp("icmp", _ICMP, "ICMP", "ident", "seq"),
    *_icmp("icmpv6", _ICMPV6, "ICMPv6", "echo.identifier", "echo.sequence_number"),
    *_tunnel("gre", "GRE", ("gre", "erspan")),
    *_tunnel("vxlan", "VXLAN", ("vxlan",), "vni"),
    *_tunnel("geneve", "GENEVE", ("geneve",), "vni"),
    *_tunnel("gtp", "GTP-U", ("gtpu",), "teid"),
    FieldSpec("l2tp", "protocol", _any(_c("tunnel") == "l2tp", _l2tp_message()), "Messages of L2TP."),
)
_TCP_FIELDS = (
    FieldSpec("tcp.flags", "number", (_of(_TCP, "tcp_flags"),), "All TCP flags as a number."),
    *(
        FieldSpec(f"tcp.flags.{name}", "bool", ((_of(_TCP, "tcp_flags") & bit) != 0,), doc)
        for name, (bit, doc) in _TCP_FLAGS.items()
    ),
    _one("tcp.seq_raw", "number", "tcp_seq", "Sequence number as sent."),
    _one("tcp.ack_raw", "number", "tcp_ack", "Acknowledgment number as sent."),
    _one("tcp.window_size_value", "number", "tcp_window", "Window as sent, not scaled."),
    FieldSpec("tcp.len", "number", (_of(_TCP, "payload_len"),), "TCP payload in bytes."),
    _one("tcp.options.mss_val", "number", "tcp_mss", "Largest segment that the sender takes."),
    _one("tcp.options.wscale.shift", "number", "tcp_window_scale", "Bits by which windows are shifted."),
    _one("tcp.options.timestamp.tsval", "number", "tcp_tsval", "Timestamp of the sender."),
    _one("tcp.options.timestamp.tsecr", "number", "tcp_tsecr", "Timestamp that the sender echoes."),
    FieldSpec(
        "tcp.options.sack_le",
        "number",
        tuple(_c(f"tcp_sack{k}_left") for k in range(1, 5)),
        "Left edges of selective acknowledgments.",
    ),
    FieldSpec(
        "tcp.options.sack_re",
        "number",
        tuple(_c(f"tcp_sack{k}_right") for k in range(1, 5)),
        "Right edges of selective acknowledgments.",
    ),
    _payload("tcp", _TCP),
)
_UDP_FIELDS = (
    FieldSpec(
        "udp.length",
        "number",
        (_of(_UDP, "payload_len") + _UDP_HEADER_BYTES,),
        "UDP length with its header.",
    ),
    _payload("udp", _UDP),
)
_TRANSPORT = (
    *_transport("tcp", _TCP),
    *map(_layered, _TCP_FIELDS),
    _stream("tcp", _TCP),
    *_transport("udp", _UDP),
    *(_layered(spec, _UDP_AROUND) for spec in _UDP_FIELDS),
    *_transport("sctp", _SCTP),
    _one("sctp.verification_tag", "number", "sctp_tag", "SCTP verification tag."),
    _one("sctp.chunk_type", "number", "sctp_chunk", "Type of the first SCTP chunk."),
    _one("flow.id", "number", "flow_id", "Conversation that the packet belongs to."),
    _one("socket.cookie", "number", "socket_cookie", "Kernel's id of the local socket."),
)

PACKET_FIELDS = (*_FRAME, *_LINK, *_NETWORK, *_TRANSPORT)
