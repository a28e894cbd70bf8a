"""What tshark says of each frame: values of fields, and where among them the layers stand that count."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from helpers import tshark

FIELDS = [
    *("frame.protocols", "frame.len", "frame.cap_len", "_ws.malformed", "communityid"),
    *("vlan.id", "ieee8021ad.id", "mpls.label", "pppoe.session_id"),
    *("arp.opcode", "arp.src.proto_ipv4", "arp.dst.proto_ipv4"),
    *("ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "ip.ttl", "ipv6.hlim", "ip.id", "ip.proto"),
    *("ip.frag_offset", "ip.flags.mf", "ip.reassembled.length"),
    *("ipv6.fraghdr.offset", "ipv6.fraghdr.more", "ipv6.fraghdr.ident", "ipv6.reassembled.length"),
    *("tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport", "sctp.srcport", "sctp.dstport"),
    *("udp.length", "sctp.verification_tag", "sctp.chunk_type"),
    *("tcp.flags", "tcp.seq_raw", "tcp.ack_raw", "tcp.window_size_value", "tcp.len", "tcp.option_kind"),
    *("tcp.options.mss_val", "tcp.options.wscale.shift", "tcp.options.sack_perm"),
    *("tcp.options.sack_le", "tcp.options.sack_re"),
    *("tcp.options.timestamp.tsval", "tcp.options.timestamp.tsecr"),
    *("icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code", "icmp.ident", "icmpv6.echo.identifier"),
    *("icmp.seq", "icmpv6.echo.sequence_number"),
    *("vxlan.vni", "geneve.vni", "gtp.teid", "gre.key", "gre.proto", "gre.flags_and_version"),
    "erspan.spanid",
]
# Each frame alone, but for IP fragments.
OPTIONS = (
    *("-n", "-o", "tcp.desegment_tcp_streams:FALSE", "-o", "tcp.relative_sequence_numbers:FALSE"),
    *("-d", "udp.port==8472,vxlan", "--enable-protocol", "communityid"),
)

NETWORKS = {"ip", "ipv6"}
# Between the layers that are compared these are ours to pass.
PASSED = {
    *("eth", "sll", "raw", "null", "loop", "chdlc", "ppp", "pppoes", "mpls", "llc", "ethertype", "vlan"),
    *("cfp", "avsp", "ipoib", "nsh", "fr", "nflog", "macsec", "radiotap", "wlan_radio", "wlan"),
    *("ieee8021ad", "pwethheuristic", "pwethcw", "pkt_comment", "frame", "ethtrailer"),
    *("ipv6.hopopts", "ipv6.routing", "ipv6.fraghdr", "ipv6.dstopts", "ah", "mipv6", "hip", "shim6"),
}
TUNNELS = {
    "gre": "gre",
    "erspan": "erspan",
    "vxlan": "vxlan",
    "geneve": "geneve",
    "gtp": "gtpu",
    "l2tp": "l2tp",
}
TRANSPORTS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}
# Layers that are a tunnel right within these.
IN_IP = {
    "mpls": {"udp": "mplsoudp", "ip": "mplsoip", "ipv6": "mplsoip"},
    "etherip": {"ip": "etherip", "ipv6": "etherip"},
    "eth": {"ip": "ethernet", "ipv6": "ethernet"},
}
PLAIN = {("ip", "ip"): "ipip", ("ip", "ipv6"): "6in4", ("ipv6", "ip"): "4in6", ("ipv6", "ipv6"): "6in6"}

Values = dict[str, list[str]]


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
    # Packets within packets of which we know nothing, as in samples of sFlow.
    more: bool = False


def said(path: Path) -> list[Values]:
    """All values of all fields for each frame of a file."""
    names = [part for name in FIELDS for part in ("-e", name)]
    command = ("tshark", *OPTIONS, "-r", str(path), "-T", "fields", "-E", "occurrence=a", *names)
    out, complaints = tshark.run(*command)
    assert not complaints
    return [
        {name: text.split(",") if text else [] for name, text in zip(FIELDS, line.split("\t"), strict=True)}
        for line in out.splitlines()
    ]


def protocols(values: Values) -> list[str]:
    return values["frame.protocols"][0].split(":") if values["frame.protocols"] else []


def layers(values: Values) -> Frame:
    """Walk the layers that tshark found as far as we go."""
    names = protocols(values)
    frame, seen, tunnel, last = Frame(), dict.fromkeys(names, 0), None, ""
    for at, proto in enumerate(names):
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
        elif proto == "nsh" and last == "udp":  # it has no name for the extension of VXLAN that this is in
            tunnel, last = Place("vxlan", 0), proto
        elif proto in IN_IP and last in IN_IP[proto]:
            tunnel, last = Place(IN_IP[proto][last], 0), proto
        elif proto not in PASSED or (proto == "wlan" and frame.ip):  # Wi-Fi in GRE is not ours
            frame.more = bool(NETWORKS & set(names[at:]))
            break
    return frame
