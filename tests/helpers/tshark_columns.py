"""What our columns of a frame must hold by tshark's account of it, and what of that they do not."""

from __future__ import annotations

from typing import Any

from helpers.tshark_layers import TRANSPORTS, TUNNELS, Frame, Place, Values, layers, protocols

NUMBERS = {
    "vxlan": "vxlan.vni",
    "geneve": "geneve.vni",
    "gtp": "gtp.teid",
    "gre": "gre.key",
    "erspan": "erspan.spanid",
}
PORTED = ("tcp", "udp", "sctp")
# The columns of a layer, null where tshark does not know the layer at all.
OF_LAYER = (
    (("vlan", "ieee8021ad"), ("vlan", "vlan_inner")),
    (("mpls",), ("mpls_label",)),
    (("pppoes",), ("pppoe_session",)),
    (("arp",), ("arp_op", "arp_sender_ip", "arp_target_ip")),
    (("tcp",), ("tcp_flags", "tcp_seq", "tcp_ack", "tcp_window", "tcp_options")),
    (("sctp",), ("sctp_tag", "sctp_chunk")),
    (("icmp", "icmpv6"), ("icmp_type", "icmp_code", "icmp_id", "icmp_seq", "icmp_src_ip", "icmp_src_port")),
)
# What tshark makes of a header that is cut.
GUESSED = ("payload_len", "tcp_options", "community_id")
# tshark holds lengths in 31 bits.
LENGTH_MAX = 2**31 - 1


def number(text: str) -> int:
    return int(text, 0)


class Said:
    """Values of one frame by our names; those of which tshark says nothing sure are left out."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.row: dict[str, Any] = {}

    def put(self, name: str, field: str, place: int, convert: Any = number) -> None:
        found = self.values[field]
        if 0 <= place < len(found):
            self.row[name] = convert(found[place])

    def last(self, name: str, field: str) -> None:
        """Of options that stand twice the last one counts; null where there is none."""
        self.row[name] = None
        self.put(name, field, len(self.values[field]) - 1)

    def addresses(self, prefix: str, place: Place) -> None:
        for side in ("src", "dst"):
            self.put(f"{prefix}{side}_ip", f"{place.proto}.{side}", place.number, str)

    def ports(self, prefix: str, place: Place) -> None:
        for side in ("src", "dst"):
            self.put(f"{prefix}{side}_port", f"{place.proto}.{side}port", place.number)


def expected(values: Values) -> dict[str, Any]:
    """What tshark says, by our names; only what it is sure of."""
    names, frame, say = protocols(values), layers(values), Said(values)
    if not values["_ws.malformed"]:  # otherwise tshark has given up somewhere
        for any_of, columns in OF_LAYER:
            if not set(any_of) & set(names):
                say.row |= dict.fromkeys(columns)
    say.put("orig_len", "frame.len", 0)
    say.put("cap_len", "frame.cap_len", 0)
    # The tags of 802.1ad have a field of their own; they stand before those of 802.1Q.
    tags = values["ieee8021ad.id"] + values["vlan.id"]
    say.row |= {name: number(tag) for name, tag in zip(("vlan", "vlan_inner"), tags, strict=False)}
    if "mpls" in names:
        say.put("mpls_label", "mpls.label", 0)
    if "pppoes" in names:
        say.put("pppoe_session", "pppoe.session_id", 0)
    if "arp" in names and not frame.ip:
        say.put("arp_op", "arp.opcode", 0)
        say.put("arp_sender_ip", "arp.src.proto_ipv4", 0, str)
        say.put("arp_target_ip", "arp.dst.proto_ipv4", 0, str)
    if frame.ip:
        _network(say, frame.ip, frame)
    if frame.transport and not values["_ws.malformed"]:
        _transport(say, frame.transport, frame)
    return say.row


def _network(say: Said, ip: Place, frame: Frame) -> None:
    six, place, values = ip.proto == "ipv6", ip.number, say.values
    say.row["ip_version"] = 6 if six else 4
    say.addresses("", ip)
    say.put("ip_ttl", "ipv6.hlim" if six else "ip.ttl", place)
    if not six:
        say.put("ip_id", "ip.id", place)
        if "ah" not in protocols(values):
            say.put("ip_proto", "ip.proto", place)
    if frame.outer:
        say.addresses("outer_", frame.outer)
    _tunnel(say, frame)
    if not frame.outer:
        _fragment(say, six)


def _tunnel(say: Said, frame: Frame) -> None:
    tunnel = frame.tunnel
    if not tunnel:
        if not frame.outer and not set(protocols(say.values)) & set(TUNNELS):
            say.row |= dict.fromkeys(("tunnel", "tunnel_id", "tunnel_depth", "outer_src_ip", "outer_dst_ip"))
        return
    say.row["tunnel"] = TUNNELS.get(tunnel.proto, tunnel.proto)
    # In version 1 of GRE the key is two numbers, of which tshark makes one.
    odd = tunnel.proto == "gre" and any(int(bits, 16) & 7 for bits in say.values["gre.flags_and_version"])
    if tunnel.proto in NUMBERS and not odd:
        say.put("tunnel_id", NUMBERS[tunnel.proto], tunnel.number)


def _fragment(say: Said, six: bool) -> None:
    """Of packets that are in no tunnel: of others the fields could be those of any IP header."""
    values = say.values
    field, unit = ("ipv6.fraghdr.offset", 8) if six else ("ip.frag_offset", 8)
    offset = unit * number(values[field][0]) if values[field] else 0
    more = (values["ipv6.fraghdr.more"] if six else values["ip.flags.mf"]) or ["0"]
    if not offset and more[0] in ("0", "False"):
        say.row |= dict.fromkeys(("fragment_id", "fragment_offset", "datagram"))
        return
    say.put("fragment_id", "ipv6.fraghdr.ident" if six else "ip.id", 0)
    say.row["fragment_offset"] = offset
    whole = values["ipv6.reassembled.length" if six else "ip.reassembled.length"]
    say.row["datagram"] = number(whole[0]) if whole else None


def _transport(say: Said, place: Place, frame: Frame) -> None:
    say.row["ip_proto"] = TRANSPORTS[place.proto]
    if not frame.more:
        say.put("community_id", "communityid", 0, str)
    if place.proto in PORTED:
        say.ports("", place)
    if place.proto == "tcp":
        _tcp(say, place.number)
    if place.proto == "udp":
        say.put("payload_len", "udp.length", place.number, lambda text: max(number(text) - 8, 0) or None)
        if say.row.get("payload_len", 0) is None:
            del say.row["payload_len"]
    if place.proto == "sctp":
        say.put("sctp_tag", "sctp.verification_tag", place.number)
        say.put("sctp_chunk", "sctp.chunk_type", 0)
    if place.proto in ("icmp", "icmpv6"):
        _icmp(say, place, frame)


def _icmp(say: Said, place: Place, frame: Frame) -> None:
    say.put("icmp_type", f"{place.proto}.type", place.number)
    say.put("icmp_code", f"{place.proto}.code", place.number)
    if not frame.embedded:
        four = place.proto == "icmp"
        say.put("icmp_id", "icmp.ident" if four else "icmpv6.echo.identifier", 0)
        say.put("icmp_seq", "icmp.seq" if four else "icmpv6.echo.sequence_number", 0)
        return
    say.addresses("icmp_", frame.embedded)
    within = frame.embedded_transport
    if within:
        say.row["icmp_ip_proto"] = TRANSPORTS[within.proto]
        if within.proto in PORTED:
            say.ports("icmp_", within)


def _tcp(say: Said, place: int) -> None:
    say.put("tcp_flags", "tcp.flags", place, lambda text: number(text) & 0x1FF)
    say.put("tcp_seq", "tcp.seq_raw", place)
    say.put("tcp_ack", "tcp.ack_raw", place)
    say.put("tcp_window", "tcp.window_size_value", place)
    say.put("payload_len", "tcp.len", place)
    if len(say.values["tcp.srcport"]) > 1:
        return  # options of which one?
    kinds = {min(number(kind), 63) for kind in say.values["tcp.option_kind"]}
    say.row["tcp_options"] = sum(1 << kind for kind in kinds) or None
    say.last("tcp_mss", "tcp.options.mss_val")
    say.last("tcp_window_scale", "tcp.options.wscale.shift")
    say.row["tcp_sack_permitted"] = True if say.values["tcp.options.sack_perm"] else None
    say.last("tcp_tsval", "tcp.options.timestamp.tsval")
    say.last("tcp_tsecr", "tcp.options.timestamp.tsecr")
    say.row["tcp_sack_count"] = min(len(say.values["tcp.options.sack_re"]), 4) or None
    for k in range(4):
        say.put(f"tcp_sack{k + 1}_left", "tcp.options.sack_le", k)
        say.put(f"tcp_sack{k + 1}_right", "tcp.options.sack_re", k)


def differences(row: dict[str, Any], values: Values) -> list[str]:
    """What differs between our row of a frame and tshark's values, by the rules of docs/dissect.md."""
    return [
        f"({values['frame.protocols'][0]}): {name} is {row[name]!r}, tshark says {value!r}"
        for name, value in expected(values).items()
        if row[name] != value and not _excused(name, row, value)
    ]


def _excused(name: str, row: dict[str, Any], value: Any) -> bool:
    """Whether a rule says why our value is another one."""
    if name in ("orig_len", "payload_len") and (row[name] or 0) > LENGTH_MAX:
        return True
    # Of a header that is cut or whose length cannot be, tshark shows less than the bytes that are there, and
    # takes a payload to follow it; of options those that stand before the one that is wrong.
    cut = row["stop_reason"] in ("length", "snaplen")
    if cut and (not value or name in GUESSED or row["stop_layer"] == "vlan"):
        return True
    # A fragment that cannot be put together shows the length that the whole datagram has, and tshark leaves
    # out the ports that it shows.
    fragment = row["fragment_id"] is not None and row["datagram"] is None
    return fragment and name in ("payload_len", "community_id")
