"""Each layer: literal bytes and the columns they must give."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers import frames

from stratokit.dissect import datagrams, layers
from stratokit.dissect.columns import packet_columns
from stratokit.dissect.packets import dissect
from stratokit.schema import load
from stratokit.schema.arrow import ARROW_TYPES

IP4 = "4500002c1234400040060000 0a000001 0a000002"  # 44 bytes, id 0x1234, DF, TTL 64, TCP
IP6 = "6000000000181140 20010db8000000000000000000000001 fe800000000000000000000000000002"  # 24 bytes, UDP
TCP = "9c40 0050 000003e8 000007d0 5018 01f5 0000 0000 61626364"  # 40000 > 80, PSH ACK, payload abcd
UDP = "9c40 0035 0018 0000 00112233445566778899aabbccddeeff"  # 40000 > 53, 16 bytes
ETH = "020000000002 020000000001"

TCP4 = {
    "ip_version": 4,
    "src_ip": "10.0.0.1",
    "dst_ip": "10.0.0.2",
    "ip_ttl": 64,
    "ip_id": 0x1234,
    "ip_proto": 6,
    "src_port": 40000,
    "dst_port": 80,
    "tcp_flags": 0x18,
    "tcp_seq": 1000,
    "tcp_ack": 2000,
    "tcp_window": 501,
    "payload_len": 4,
}
UDP6 = {
    "ip_version": 6,
    "src_ip": "2001:db8::1",
    "dst_ip": "fe80::2",
    "ip_ttl": 64,
    "ip_proto": 17,
    "src_port": 40000,
    "dst_port": 53,
    "payload_len": 16,
}


def rows(*frame: bytes, link_type: int = 1, orig_lens: list[int] | None = None) -> list[dict[str, Any]]:
    """The filled columns of each frame."""
    found = packet_columns(dissect(*frames.layout(frame, link_type, orig_lens, gap=b"\x45")))
    return [
        {k: v for k, v in row.items() if v is not None}
        for row in pa.table(list(found.values()), list(found)).to_pylist()
    ]


def row(frame: str | bytes, link_type: int = 1, orig_len: int | None = None) -> dict[str, Any]:
    data = bytes.fromhex(frame) if isinstance(frame, str) else frame
    return rows(data, link_type=link_type, orig_lens=None if orig_len is None else [orig_len])[0]


LINKS = [
    (1, ETH + "0800", 14, {}),
    (1, ETH + "8100 a007 0800", 18, {"vlan": 7}),
    (1, ETH + "88a8 0064 8100 0007 0800", 22, {"vlan": 100, "vlan_inner": 7}),
    (1, ETH + "9100 0064 8100 0007 0800", 22, {"vlan": 100, "vlan_inner": 7}),
    (1, ETH + "0034 aaaa03000000 0800", 22, {}),
    (1, ETH + "0034 aaaa030000f8 0800", 22, {}),
    (1, ETH + "002f 060603", 17, {}),
    (1, ETH + "8847 00064040 000c8140", 22, {"mpls_label": 100}),
    (1, ETH + "8847 00064140 00000000" + ETH + "0800", 36, {"mpls_label": 100}),
    (1, ETH + "8864 1100 1234 002e 0021", 22, {"pppoe_session": 0x1234}),
    (1, ETH + "8864 1100 1234 002d 21", 21, {"pppoe_session": 0x1234}),
    (1, ETH + "8864 1100 1234 0032 0281 00064140", 26, {"pppoe_session": 0x1234, "mpls_label": 100}),
    (9, "0021", 2, {}),
    (9, "ff030021", 4, {}),
    (50, "ff0321", 3, {}),
    (50, "0f000800", 4, {}),
    (104, "8f000800", 4, {}),
    (107, "1841 03 cc", 4, {}),
    (107, "18400041 03 cc", 6, {}),
    (107, "1841 03 00 80 000000 0800", 10, {}),
    (107, "1841 0800", 4, {}),
    (107, "1841 03 00 cc", 5, {}),
    (107, "1841 03 cf 0021", 6, {}),
    (107, "1841 03 80 0080c2 0007" + ETH + "0800", 23, {}),
    (6, "1040" + ETH + "aaaa03000000 0800", 22, {}),
    (6, "1040 020000000001 820000000002 0670 12345678 aaaa03000000 0800", 28, {}),
    (10, "57" + ETH + "aaaa03000000 0800", 21, {}),
    (100, "aaaa03000000 0800", 8, {}),
    (123, "8205 0064 aaaa03000000 0800", 12, {}),
    (226, "01020000 00000028 00000002 00000000 00000000 00000000", 24, {}),
    (239, "02000001 0800 0100 08000300 2c00 0900", 16, {}),
    (239, "02000001 0005 000a 61000000 002c 0009", 16, {}),
    (239, "02000001 0001 0a00" + "61" * 252 + "2c00 0900", 264, {}),
    (105, "0801 0000" + "02" * 18 + "1000 aaaa03000000 0800", 32, {}),
    (105, "8803 0000" + "02" * 18 + "1000" + "02" * 6 + "0000 aaaa03000000 0800", 40, {}),
    (105, "8881 0000" + "02" * 18 + "1000 0000 00000000 aaaa03000000 0800", 38, {}),
    (127, "0000 0800 00000000 0802 0000" + "02" * 18 + "1000 aaaa03000000 0800", 40, {}),
    (
        127,  # a time, then the flag that says that the header of 26 bytes is padded
        "0000 1900 030000a0 00000000" + "00" * 4 + "00" * 8 + "20" + "8802 0000" + "02" * 18 + "1000 0000"
        "0000 aaaa03000000 0800",
        61,
        {},
    ),
    (242, "00" * 40 + "0800 0000", 44, {}),
    (1, ETH + "8903 0c20" + ETH + "8100 0007 0800", 34, {"vlan": 7}),
    (1, ETH + "d28b 0001 0010 0000000000000000 0800", 28, {}),
    (1, ETH + "d28b 0001 0120 000000000000 8100 0007 0800", 30, {"vlan": 7}),
    (1, ETH + "894f 0fc2 0201 00012305", 22, {}),
    (113, "0004 0001 0006 0200000000010000 0800", 16, {}),
    (113, "0004 0001 0006 0200000000010000 8100 0007 0800", 20, {"vlan": 7}),
    (276, "0800 0000 00000003 0001 04 06 0200000000010000", 20, {}),
    (0, "02000000", 4, {}),
    (0, "00000002", 4, {}),
    (108, "00000002", 4, {}),
    (101, "", 0, {}),
    (12, "", 0, {}),
    (228, "", 0, {}),
]


@pytest.mark.parametrize(("link_type", "header", "size", "more"), LINKS)
def test_link_layers_lead_to_ipv4(link_type: int, header: str, size: int, more: dict[str, Any]) -> None:
    assert row(header + IP4 + TCP, link_type) == {**TCP4, **more, "payload_offset": size + 40}


@pytest.mark.parametrize("family", ["0a000000", "18000000", "1c000000", "1e000000", "0000001e"])
def test_null_families_of_ipv6(family: str) -> None:
    assert row(family + IP6 + UDP, frames.NULL) == {**UDP6, "payload_offset": 52}


def test_ipv6_udp() -> None:
    assert row(ETH + "86dd" + IP6 + UDP) == {**UDP6, "payload_offset": 62}


def test_arp_is_no_ip_and_no_failure() -> None:
    found = row(ETH + "0806 0001 0800 06 04 0002 020000000001 0a000001 020000000002 0a0000fe")
    assert found == {"arp_op": 2, "arp_sender_ip": "10.0.0.1", "arp_target_ip": "10.0.0.254"}
    assert row(ETH + "0806 0001 86dd 06 10 0001" + "00" * 44) == {"arp_op": 1}
    found = row(ETH + "8035 0001 0800 06 04 0003" + "00" * 19)
    assert found == {"arp_op": 3, "stop_layer": "arp", "stop_reason": "length"}


def test_ethernet_padding_is_no_payload() -> None:
    found = row(ETH + "0800" + "45000028123440004006 0000 0a000001 0a000002" + TCP[:-8] + "00" * 6)
    assert found["payload_len"] == 0
    assert found["payload_offset"] == 54


def test_ipv4_options_are_skipped() -> None:
    found = row(frames.eth(frames.ipv4(frames.tcp(b"abcd", options=bytes(12)), options=bytes(8))))
    assert found == {**TCP4, "payload_offset": 14 + 28 + 32, "tcp_options": 1}


def test_ipv6_extension_headers_are_walked() -> None:
    chain = frames.extension(frames.extension(frames.extension(frames.udp(b"x" * 5), 17), 43, 24), 60)
    authentication = bytes.fromhex("110400000000000100000001") + bytes(12) + frames.udp(b"x" * 5)
    for payload, first in ((chain, 0), (authentication, 51)):
        found = row(frames.eth(frames.ipv6(payload, first), 0x86DD))
        assert (found["ip_proto"], found["dst_port"], found["payload_len"]) == (17, 53, 5)
    assert row(frames.eth(frames.ipv4(authentication, 51)))["dst_port"] == 53
    assert "stop_layer" not in row(frames.eth(frames.ipv6(b"", 59), 0x86DD))


def test_segmentation_offload_leaves_lengths_zero() -> None:
    big = frames.tcp(b"x" * 70_000)
    assert row(frames.ipv4(big, length=0), 101)["payload_len"] == 70_000
    assert row(frames.ipv6(big, length=0), 101)["payload_len"] == 70_000
    assert row(frames.ipv6(frames.udp(b"x" * 70_000, length=0), 17, length=0), 101)["payload_len"] == 70_000


def test_fragments() -> None:
    first = row(frames.ipv4(frames.udp(b"x" * 16, length=100), 17, fragment=0x2000), 101)
    assert (first["dst_port"], first["payload_len"], first.get("stop_layer")) == (53, 16, None)
    later = row(frames.ipv4(b"x" * 24, 17, fragment=3), 101)
    assert later["ip_proto"] == 17
    assert (later["stop_layer"], later["stop_reason"]) == ("ipv4", "fragment")
    assert "dst_port" not in later
    last6 = row(frames.ipv6(frames.ipv6_fragment(b"x" * 24, 17, 24, more=False), 44), 101)
    assert (last6["stop_layer"], last6["stop_reason"], last6["ip_proto"]) == ("ipv6", "fragment", 17)
    first6 = row(frames.ipv6(frames.ipv6_fragment(frames.udp(b"x" * 24), 17, 0, more=True), 44), 101)
    assert (first6["dst_port"], first6.get("stop_layer")) == (53, None)
    columns = dissect(
        *frames.layout([frames.ipv4(frames.udp(), 17, fragment=0x2000), frames.ipv4(frames.udp(), 17)], 101)
    )
    assert [bool(bits & layers.IS_FRAGMENT) for bits in columns["layers"]] == [True, False]


def test_icmp_and_sctp() -> None:
    found = row(frames.ipv4(frames.icmp(b"x" * 56, 3, 1), 1), 101)
    assert (found["icmp_type"], found["icmp_code"], found["payload_offset"], found["payload_len"]) == (
        3,
        1,
        28,
        56,
    )
    assert "src_port" not in found
    assert row(frames.ipv6(frames.icmp(b"x", 128), 58), 101)["icmp_type"] == 128
    found = row(frames.ipv4(frames.sctp(b"x" * 20), 132), 101)
    assert (found["src_port"], found["dst_port"], found["payload_len"]) == (5000, 6000, 20)
    assert (found["sctp_tag"], found["sctp_chunk"]) == (1, ord("x"))
    found = row(frames.ipv6(frames.udp(b"x" * 20, length=8), 136), 101)
    assert (found["ip_proto"], found["src_port"], found["payload_len"]) == (136, 40000, 20)


@pytest.mark.parametrize("tag", ["0000 00000001", "2000 00000001 0202020202020001", "0030 00000001"])
def test_macsec_that_only_signs(tag: str) -> None:
    found = row(ETH + "88e5" + tag + "0800" + IP4 + TCP + "ee" * 16 + ("00" * 9 if "0030" in tag else ""))
    assert (found["src_ip"], found["dst_port"], found["payload_len"]) == ("10.0.0.1", 80, 4)
    assert row(ETH + "88e5" + tag + "0800" + "ee" * 15)["stop_reason"] == "length"


STOPS = [
    (frames.eth(b"", 0x88CC), 1, "link", "unknown"),
    (frames.eth(frames.vlan(b"", 0x88CC), 0x8100), 1, "vlan", "unknown"),
    (b"\x02\0\0\0\0\2", 1, "link", "length"),
    (frames.eth(b"", 0x8100), 1, "vlan", "length"),
    (frames.eth(b"\x42\x42\x03", 3), 1, "link", "unknown"),
    (frames.eth(b"", 500), 1, "link", "length"),
    (b"\x00" * 40, 101, "link", "unknown"),
    (b"\x00" * 40, 0, "link", "unknown"),
    (b"\x00" * 40, 147, "link", "unknown"),
    (b"\x18\x41\x03\x81", 107, "link", "unknown"),
    (b"\x18", 107, "link", "length"),
    (b"\x18\x41\x03\0", 107, "link", "length"),
    (bytes.fromhex("1841 03 80 000001 0800") + bytes(20), 107, "link", "unknown"),
    (bytes.fromhex("1841 03 80 0080c2 000e") + bytes(20), 107, "link", "unknown"),
    (b"\2\0\0\1" + bytes(8), 239, "link", "length"),
    (b"\2\0\0\1\x08\0\1\0" + bytes(4), 239, "link", "length"),
    (bytes.fromhex("0841") + bytes(40), 105, "link", "encrypted"),
    (bytes.fromhex("0805") + bytes(40), 105, "link", "fragment"),
    (bytes.fromhex("8801") + bytes(22) + b"\x80" + bytes(20), 105, "link", "unknown"),
    (bytes.fromhex("8000") + bytes(40), 105, "link", "unknown"),
    (b"\0\0\x07\0" + bytes(40), 127, "link", "length"),
    (b"\0\0\xff\0" + bytes(40), 127, "link", "length"),
    (frames.eth(b"\x0c" + bytes(40), 0x88E5), 1, "link", "encrypted"),
    (frames.eth(bytes(20), 0x88E5), 1, "link", "length"),
    (b"\x00" * 43, 242, "link", "length"),
    (bytes.fromhex("8f008035") + bytes(18), 104, "link", "unknown"),  # SLARP, no RARP
    (frames.eth(b"\0", 0x8903), 1, "link", "length"),
    (frames.eth(b"\0\1\0\x10\0\0", 0xD28B), 1, "link", "length"),
    (frames.eth(b"\0\2\0\x10" + bytes(20), 0xD28B), 1, "link", "unknown"),
    (frames.ipv4(b"\x20\0" + bytes(20), 97), 101, "ipv4", "unknown"),
    (frames.ipv4(b"\x30", 97), 101, "ipv4", "length"),
    (frames.eth(frames.ipv6(b""), 0x0800), 1, "ipv4", "unknown"),
    (frames.eth(frames.ipv4(b""), 0x86DD), 1, "ipv6", "length"),
    (frames.ipv4(frames.tcp())[:19], 101, "ipv4", "length"),
    (b"\x41" + frames.ipv4(frames.tcp())[1:], 101, "ipv4", "length"),
    (frames.ipv4(frames.tcp(), length=19), 101, "ipv4", "length"),
    (frames.ipv4(b"\0" * 8, 99), 101, "ipv4", "unknown"),
    (frames.ipv4(b"\0" * 8, 47), 101, "gre", "unknown"),
    (frames.ipv4(b"\0\2\x08\0", 47), 101, "gre", "unknown"),
    (frames.ipv4(b"\0" * 3, 47), 101, "gre", "length"),
    (frames.ipv4(b"\0" * 8, 50), 101, "esp", "encrypted"),
    (frames.ipv6(b"\0" * 7, 50), 101, "esp", "length"),
    (frames.ipv4(frames.udp()[:7], 136), 101, "udplite", "length"),
    (frames.ipv4(frames.tcp(options=b"\2\5\5\5")), 101, "tcp", "length"),
    (frames.eth(b"\0\0\1", 0x8847), 1, "mpls", "length"),
    (frames.eth(b"\0\0\1\0\x11", 0x8847), 1, "mpls", "unknown"),
    (frames.eth(b"\x11\0\0\1\0", 0x8864), 1, "pppoe", "length"),
    (frames.eth(b"\x11\7\0\1\0\0", 0x8864), 1, "pppoe", "unknown"),
    (frames.eth(b"\x11\0\0\1\0\2\xc0\x21", 0x8864), 1, "ppp", "unknown"),
    (b"\xff\x03", 9, "ppp", "length"),
    (frames.ipv6(b"\0" * 7, 0), 101, "ipv6", "length"),
    (frames.ipv4(frames.tcp()[:19]), 101, "tcp", "length"),
    (frames.ipv4(frames.tcp()[:12] + b"\x40" + frames.tcp()[13:]), 101, "tcp", "length"),
    (frames.ipv4(frames.udp(length=7), 17), 101, "udp", "length"),
    (frames.ipv4(frames.udp(b"x" * 60, length=0), 17), 101, "udp", "length"),
    (frames.ipv4(b"\1", 1), 101, "icmp", "length"),
    (frames.ipv6(b"", 58), 101, "icmpv6", "length"),
    (frames.ipv4(b"\0" * 11, 132), 101, "sctp", "length"),
]


@pytest.mark.parametrize(("frame", "link_type", "layer", "reason"), STOPS)
def test_where_and_why_decoding_stops(frame: bytes, link_type: int, layer: str, reason: str) -> None:
    found = row(frame, link_type)
    assert (found["stop_layer"], found["stop_reason"]) == (layer, reason)


def test_snaplen_cuts_keep_what_is_there() -> None:
    whole = frames.eth(frames.ipv4(frames.tcp(b"abcd", options=bytes(12))))
    found = row(whole[:54], orig_len=len(whole))  # the options are cut off
    assert (found["tcp_seq"], found["payload_len"], found["payload_offset"]) == (1000, 4, 54)
    assert (found["stop_layer"], found["stop_reason"]) == ("tcp", "snaplen")
    found = row(whole[:38], orig_len=len(whole))  # the ports are left
    assert (found["src_port"], found["dst_port"]) == (40000, 80)
    assert "tcp_seq" not in found
    found = row(whole[:30], orig_len=len(whole))
    assert (found["stop_layer"], found["stop_reason"]) == ("ipv4", "snaplen")
    found = row(whole[:66], orig_len=len(whole))  # only the payload is cut: nothing stopped
    assert (found["payload_offset"], found["payload_len"], found.get("stop_layer")) == (66, 4, None)


def test_columns_have_the_types_of_the_schema() -> None:
    types = {column.name: ARROW_TYPES[column.type] for column in load.capture().columns}
    found = packet_columns(dissect(*frames.layout([frames.eth(frames.ipv4(frames.tcp()))])))
    assert {name: array.type for name, array in found.items()} == {name: types[name] for name in found}


def test_no_frames() -> None:
    assert all(len(array) == 0 for array in packet_columns(dissect(*frames.layout([]))).values())


def test_the_page_lists_every_layer_and_reason_in_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dissect.md").read_text()
    tables = [re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) for part in re.split(r"\| --- \|.*\n", page)]
    for names in (layers.LAYER_NAMES, layers.REASON_NAMES, layers.TUNNEL_NAMES):
        assert any(table[: len(names) - 1] == list(names[1:]) for table in tables), names


def test_the_page_states_the_bounds_that_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dissect.md").read_text()
    bytes_ = datagrams.SLOTS * (datagrams.ROOM_BYTES + datagrams.UNITS + datagrams.SLOT.itemsize)
    for bound in (
        f"{layers.MAX_TUNNELS} tunnels",
        f"{datagrams.SLOTS} packets wait",
        f"{bytes_ / 2**20:.0f} MiB",
        f"{datagrams.TIMEOUT_NS // 10**9} seconds",
        f"{layers.SACK_BLOCKS} blocks",
    ):
        assert bound in page, bound
