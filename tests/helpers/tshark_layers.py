"""What tshark says of each frame, by our names: the last IP packet that we know how to reach."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from helpers import tshark

FIELDS = [
    *("frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "ip.ttl", "ipv6.hlim", "ip.id"),
    *("tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport", "sctp.srcport", "sctp.dstport"),
    *("tcp.flags", "tcp.seq_raw", "tcp.ack_raw", "tcp.window_size_value", "tcp.len"),
    *("tcp.options.mss_val", "tcp.options.wscale.shift", "tcp.options.sack_perm"),
    *("tcp.options.sack_le", "tcp.options.sack_re", "tcp.options.timestamp.tsval"),
    *("tcp.options.timestamp.tsecr", "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code"),
    *("icmp.ident", "icmpv6.echo.identifier", "sctp.verification_tag", "sctp.chunk_type"),
    *("vlan.id", "ieee8021ad.id", "mpls.label", "pppoe.session_id", "arp.opcode"),
    *("arp.src.proto_ipv4", "arp.dst.proto_ipv4", "vxlan.vni", "geneve.vni", "gtp.teid", "gre.key"),
    *("gre.flags_and_version", "_ws.malformed"),
]
# Each frame alone, but for IP fragments.
OPTIONS = (
    *("-n", "-o", "tcp.desegment_tcp_streams:FALSE", "-o", "tcp.relative_sequence_numbers:FALSE"),
    *("-d", "udp.port==8472,vxlan"),
)

NETWORKS = {"ip", "ipv6"}
# Between the layers that are compared these are ours to pass.
PASSED = {
    *("eth", "sll", "raw", "null", "loop", "chdlc", "ppp", "pppoes", "mpls", "llc", "ethertype", "vlan"),
    *("ieee8021ad", "pwethheuristic", "pwethcw", "pkt_comment", "frame", "ethtrailer"),
    *("ipv6.hopopts", "ipv6.routing", "ipv6.fraghdr", "ipv6.dstopts", "ah", "mipv6", "hip", "shim6"),
}
TUNNELS = {"gre": "gre", "erspan": "erspan", "vxlan": "vxlan", "geneve": "geneve", "gtp": "gtpu"}
NUMBERS = {"vxlan": "vxlan.vni", "geneve": "geneve.vni", "gtp": "gtp.teid", "gre": "gre.key"}
TRANSPORTS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}
PLAIN = {("ip", "ip"): "ipip", ("ip", "ipv6"): "6in4", ("ipv6", "ip"): "4in6", ("ipv6", "ipv6"): "6in6"}


@dataclasses.dataclass
class Place:
    """Which occurrence of which protocol; all fields of a protocol are lists in the order of occurrence."""

    proto: str
    number: int


@dataclasses.dataclass
class Frame:
    """The layers of a frame that we reach, by tshark's account."""

    ip: Place | None = None
    outer: Place | None = None
    transport: Place | None = None
    embedded: Place | None = None
    embedded_transport: Place | None = None
    tunnel: Place | None = None


def said(path: Path) -> list[dict[str, list[str]]]:
    """All values of all fields for each frame of a file."""
    names = [part for name in FIELDS for part in ("-e", name)]
    command = ("tshark", *OPTIONS, "-r", str(path), "-T", "fields", "-E", "occurrence=a", *names)
    out, complaints = tshark.run(*command)
    assert not complaints
    return [
        {name: text.split(",") if text else [] for name, text in zip(FIELDS, line.split("\t"), strict=True)}
        for line in out.splitlines()
    ]


def layers(protocols: list[str], values: dict[str, list[str]]) -> Frame:
    """Walk the layers that tshark found as far as we go."""
    frame, seen, tunnel, last = Frame(), dict.fromkeys(protocols, 0), None, ""
    for proto in protocols:
        place = Place(proto, seen[proto])
        seen[proto] += 1
        if proto in NETWORKS:
            # tshark names a layer before it finds that its addresses are not there.
            if place.number >= len(values[f"{proto}.dst"]):
                break
            if frame.transport and frame.transport.proto in ("icmp", "icmpv6"):
                frame.embedded = place
            else:
                if frame.ip and last in NETWORKS:
                    tunnel = Place(PLAIN[frame.ip.proto, proto], 0)
                frame.ip, frame.outer, frame.transport = place, frame.ip, None
                frame.tunnel = tunnel
            last = proto
        elif proto in TRANSPORTS:
            if frame.embedded:
                frame.embedded_transport = place
                break
            frame.transport = place if frame.ip else None
            last = proto
        elif proto in TUNNELS and last in ("ip", "ipv6", "udp", "gre"):
            # The key of GRE is that of ERSPAN's, too, but for ERSPAN the session counts.
            tunnel, last = place, proto
        elif proto not in PASSED:
            break
    return frame


def number(text: str) -> int:
    return int(text, 0)


class Said:
    """Values of one frame by our names; those that tshark does not say are left out."""

    def __init__(self, values: dict[str, list[str]]) -> None:
        self.values = values
        self.row: dict[str, Any] = {}

    def put(self, name: str, field: str, place: int, convert: Any = number) -> None:
        found = self.values[field]
        if 0 <= place < len(found):
            self.row[name] = convert(found[place])

    def addresses(self, prefix: str, place: Place) -> None:
        for side in ("src", "dst"):
            self.put(f"{prefix}{side}_ip", f"{place.proto}.{side}", place.number, str)


def expected(values: dict[str, list[str]]) -> dict[str, Any]:
    """What tshark says, by our names; only what it is sure of."""
    protocols = values["frame.protocols"][0].split(":") if values["frame.protocols"] else []
    frame, say = layers(protocols, values), Said(values)
    # The tags of 802.1ad have a field of their own; they stand before those of 802.1Q.
    tags = values["ieee8021ad.id"] + values["vlan.id"]
    say.row |= {name: number(tag) for name, tag in zip(("vlan", "vlan_inner"), tags, strict=False)}
    if "mpls" in protocols:
        say.put("mpls_label", "mpls.label", 0)
    if "pppoes" in protocols:
        say.put("pppoe_session", "pppoe.session_id", 0)
    if "arp" in protocols[:6] and not frame.ip:
        say.put("arp_op", "arp.opcode", 0)
        say.put("arp_sender_ip", "arp.src.proto_ipv4", 0, str)
        say.put("arp_target_ip", "arp.dst.proto_ipv4", 0, str)
    if not frame.ip:
        return say.row
    six, place = frame.ip.proto == "ipv6", frame.ip.number
    say.row["ip_version"] = 6 if six else 4
    say.addresses("", frame.ip)
    say.put("ip_ttl", "ipv6.hlim" if six else "ip.ttl", place)
    if not six:
        say.put("ip_id", "ip.id", place)
    if frame.outer:
        say.addresses("outer_", frame.outer)
    if frame.tunnel:
        say.row["tunnel"] = TUNNELS.get(frame.tunnel.proto, frame.tunnel.proto)
        if frame.tunnel.proto in NUMBERS:
            say.put("tunnel_id", NUMBERS[frame.tunnel.proto], frame.tunnel.number)
        # In version 1 of GRE the key is two numbers, of which tshark makes one.
        if frame.tunnel.proto == "gre" and any(
            int(flags, 16) & 7 for flags in values["gre.flags_and_version"]
        ):
            say.row.pop("tunnel_id", None)
    if frame.transport and not values["_ws.malformed"]:
        _transport(say, frame.transport, frame)
    return say.row


def _transport(say: Said, place: Place, frame: Frame) -> None:
    say.row["ip_proto"] = TRANSPORTS[place.proto]
    if place.proto in ("tcp", "udp", "sctp"):
        say.put("src_port", f"{place.proto}.srcport", place.number)
        say.put("dst_port", f"{place.proto}.dstport", place.number)
    if place.proto == "tcp":
        _tcp(say, place.number)
    if place.proto == "sctp":
        say.put("sctp_tag", "sctp.verification_tag", place.number)
        say.put("sctp_chunk", "sctp.chunk_type", 0)
    if place.proto in ("icmp", "icmpv6"):
        say.put("icmp_type", f"{place.proto}.type", place.number)
        say.put("icmp_code", f"{place.proto}.code", place.number)
        if not frame.embedded:
            say.put("icmp_id", "icmp.ident" if place.proto == "icmp" else "icmpv6.echo.identifier", 0)
        else:
            say.addresses("icmp_", frame.embedded)
        if frame.embedded_transport and frame.embedded_transport.proto in ("tcp", "udp", "sctp"):
            proto = frame.embedded_transport.proto
            say.put("icmp_src_port", f"{proto}.srcport", frame.embedded_transport.number)
            say.put("icmp_dst_port", f"{proto}.dstport", frame.embedded_transport.number)


def _tcp(say: Said, place: int) -> None:
    say.put("tcp_flags", "tcp.flags", place, lambda text: number(text) & 0x1FF)
    say.put("tcp_seq", "tcp.seq_raw", place)
    say.put("tcp_ack", "tcp.ack_raw", place)
    say.put("tcp_window", "tcp.window_size_value", place)
    say.put("payload_len", "tcp.len", place)
    if len(say.values["tcp.srcport"]) > 1:
        return  # options of which one?
    # Of options that stand twice the last one counts.
    say.put("tcp_mss", "tcp.options.mss_val", len(say.values["tcp.options.mss_val"]) - 1)
    say.put("tcp_window_scale", "tcp.options.wscale.shift", len(say.values["tcp.options.wscale.shift"]) - 1)
    say.row["tcp_sack_permitted"] = True if say.values["tcp.options.sack_perm"] else None
    say.put("tcp_tsval", "tcp.options.timestamp.tsval", 0)
    say.put("tcp_tsecr", "tcp.options.timestamp.tsecr", 0)
    for k in range(4):
        say.put(f"tcp_sack{k + 1}_left", "tcp.options.sack_le", k)
        say.put(f"tcp_sack{k + 1}_right", "tcp.options.sack_re", k)
