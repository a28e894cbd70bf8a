"""Tunnels: the inner packet is the packet, the one right around it is kept."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from helpers import frames

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.packets import dissect

INNER = frames.ipv4(frames.tcp(b"abcd"), source="192.168.0.1", destination="192.168.0.2")
INNER6 = frames.ipv6(frames.tcp(b"abcd"), source="fd00::1", destination="fd00::2")
FRAME = frames.eth(INNER)
FRAME6 = frames.eth(INNER6, 0x86DD)
LABELS = bytes.fromhex("00064040 00065140")
QINQ = frames.eth(frames.vlan(frames.vlan(INNER, vlan_id=9), 0x8100), 0x88A8)


def row(frame: bytes, link_type: int = 101, orig_len: int | None = None) -> dict[str, Any]:
    """The filled columns of a frame."""
    found = packet_columns(
        dissect(*frames.layout([frame], link_type, None if orig_len is None else [orig_len], gap=b"\x45"))
    )
    table = pa.table(list(found.values()), list(found)).to_pylist()
    return {k: v for k, v in table[0].items() if v is not None}


TUNNELS = [
    ("ipip", None, frames.ipv4(INNER, 4)),
    ("6in4", None, frames.ipv4(INNER6, 41)),
    ("4in6", None, frames.ipv6(INNER, 4)),
    ("6in6", None, frames.ipv6(INNER6, 41)),
    ("gre", None, frames.ipv4(frames.gre(INNER), 47)),
    ("gre", None, frames.ipv6(frames.gre(INNER6, 0x86DD), 47)),
    ("gre", None, frames.ipv4(frames.gre(INNER, flags=0x8000, more=bytes(4)), 47)),
    ("gre", 42, frames.ipv4(frames.gre(INNER, flags=0x2000, more=b"\0\0\0\x2a"), 47)),
    ("gre", 42, frames.ipv4(frames.gre(INNER, flags=0xB000, more=bytes(7) + b"\x2a" + bytes(4)), 47)),
    ("gre", None, frames.ipv4(frames.gre(INNER, flags=0x1000, more=bytes(4)), 47)),
    (
        "gre",
        None,
        frames.ipv4(frames.gre(INNER, flags=0x4000, more=bytes(4) + b"\0\2\0\4abcd" + bytes(4)), 47),
    ),
    ("gre", 42, frames.ipv4(frames.gre(FRAME, 0x6558, flags=0x2000, more=b"\0\0\0\x2a"), 47)),
    ("gre", None, frames.ipv4(frames.gre(frames.eth(QINQ[14:], 0x88A8), 0x6558), 47)),
    ("gre", None, frames.ipv4(frames.gre(bytes.fromhex("00064140") + INNER, 0x8847), 47)),
    ("gre", None, frames.ipv4(frames.gre(INNER, 0x883E), 47)),
    ("gre", None, frames.ipv4(frames.gre(bytes(4) + INNER, 0x883E), 47)),
    # Version 1 (PPTP): key, sequence and acknowledgment numbers.
    (
        "gre",
        42,
        frames.ipv4(frames.gre(b"\xff\3\0\x21" + INNER, 0x880B, 0x3081, b"\0\x40\0\x2a" + bytes(8)), 47),
    ),
    ("erspan", None, frames.ipv4(frames.gre(FRAME, 0x88BE), 47)),
    (
        "erspan",
        42,
        frames.ipv4(frames.gre(b"\x10\0\0\x2a" + bytes(4) + FRAME, 0x88BE, 0x1000, bytes(4)), 47),
    ),
    (
        "erspan",
        42,
        frames.ipv4(frames.gre(b"\x20\0\0\x2a" + bytes(8) + FRAME, 0x22EB, 0x1000, bytes(4)), 47),
    ),
    (
        "erspan",
        42,
        frames.ipv4(
            frames.gre(b"\x20\0\0\x2a" + bytes(7) + b"\1" + bytes(8) + FRAME, 0x22EB, 0x1000, bytes(4)), 47
        ),
    ),
    ("vxlan", 42, frames.ipv4(frames.vxlan(FRAME), 17)),
    ("vxlan", 42, frames.ipv6(frames.vxlan(FRAME6), 17)),
    ("vxlan", 42, frames.ipv4(frames.vxlan(FRAME, port=8472), 17)),
    ("vxlan", 42, frames.ipv4(frames.vxlan(QINQ), 17)),
    ("vxlan", 42, frames.ipv4(frames.gpe(FRAME, 3), 17)),
    ("vxlan", 42, frames.ipv4(frames.gpe(INNER, 1), 17)),
    ("vxlan", 42, frames.ipv4(frames.gpe(INNER6, 2), 17)),
    ("vxlan", 42, frames.ipv4(frames.gpe(bytes.fromhex("00064140") + INNER, 5), 17)),
    ("gre", 42, frames.ipv4(frames.gre(FRAME, 0x6400, 0x2001, b"\0\x40\x2a\0"), 47)),
    ("gre", None, frames.ipv4(frames.udp(frames.gre(INNER), destination=4754), 17)),
    ("geneve", 42, frames.ipv4(frames.geneve(FRAME), 17)),
    ("geneve", 42, frames.ipv4(frames.geneve(INNER, 0x0800, options=bytes(8)), 17)),
    ("geneve", 42, frames.ipv6(frames.geneve(INNER6, 0x86DD), 17)),
    ("gtpu", 42, frames.ipv4(frames.gtpu(INNER), 17)),
    ("gtpu", 42, frames.ipv4(frames.gtpu(INNER6), 17)),
    ("gtpu", 42, frames.ipv4(frames.gtpu(INNER, flags=0x32, more=bytes(4)), 17)),
    ("gtpu", 42, frames.ipv4(frames.gtpu(INNER, flags=0x34, more=b"\0\0\0\x85\1\0\0\x85\1\0\0\0"), 17)),
    ("mplsoudp", None, frames.ipv4(frames.udp(LABELS + INNER, destination=6635), 17)),
    ("mplsoudp", None, frames.ipv4(frames.udp(LABELS + bytes(4) + FRAME, destination=6635), 17)),
    ("mplsoip", None, frames.ipv6(LABELS + INNER6, 137)),
    ("l2tp", 42, frames.ipv4(frames.udp(bytes.fromhex("0002 0000 002a 0021") + INNER, destination=1701), 17)),
    (
        "l2tp",
        1 << 16 | 42,
        frames.ipv4(
            frames.udp(
                bytes.fromhex("4a02 0040 0001 002a 0007 0008 0002 eeee ff03 0057") + INNER6, source=1701
            ),
            17,
        ),
    ),
    ("etherip", None, frames.ipv4(b"\x30\0" + FRAME, 97)),
    ("ethernet", None, frames.ipv6(FRAME6, 143)),
    ("vxlan", 42, frames.ipv4(frames.gpe(frames.nsh(INNER, 1), 4), 17)),
    ("vxlan", 42, frames.ipv4(frames.gpe(frames.nsh(frames.nsh(FRAME, 3), 4), 4), 17)),
    ("gre", None, frames.ipv4(frames.gre(frames.nsh(INNER6, 2, metadata=bytes(16)), 0x894F), 47)),
    ("gre", None, frames.ipv4(frames.gre(frames.nsh(LABELS + INNER, 5), 0x894F), 47)),
]


@pytest.mark.parametrize(("tunnel", "number", "frame"), TUNNELS)
def test_the_inner_packet_is_the_packet(tunnel: str, number: int | None, frame: bytes) -> None:
    found = row(frame)
    six = b"\xfd\0\0\0" in frame
    assert (found["src_ip"], found["dst_ip"]) == (
        ("fd00::1", "fd00::2") if six else ("192.168.0.1", "192.168.0.2")
    )
    outer = ("10.0.0.1", "10.0.0.2") if frame[0] >> 4 == 4 else ("2001:db8::1", "2001:db8::2")
    assert (found["outer_src_ip"], found["outer_dst_ip"]) == outer
    assert (found["tunnel"], found.get("tunnel_id"), found["tunnel_depth"]) == (tunnel, number, 1)
    assert (found["src_port"], found["dst_port"], found["tcp_seq"]) == (40000, 80, 1000)
    assert (found["payload_offset"], found["payload_len"]) == (len(frame) - 4, 4)
    assert "stop_layer" not in found


@pytest.mark.parametrize(("tunnel", "number", "frame"), TUNNELS)
def test_a_cut_leaves_one_packet_or_the_other(tunnel: str, number: int | None, frame: bytes) -> None:
    del tunnel, number
    header = 20 if frame[0] >> 4 == 4 else 40
    for size in range(header, len(frame)):
        found = row(frame[:size], orig_len=len(frame))
        outer = found["src_ip"] in ("10.0.0.1", "2001:db8::1")
        assert outer != ("outer_src_ip" in found)
        if outer:
            assert "tcp_seq" not in found
        if size < len(frame) - 4:
            assert found.get("stop_reason") == "snaplen" or (outer and found["ip_proto"] == 17)


def test_tunnels_within_tunnels() -> None:
    packet = frames.ipv4(frames.vxlan(frames.eth(INNER), 7), 17, source="10.1.0.1")
    found = row(frames.ipv4(frames.gre(packet, flags=0x2000, more=bytes(4)), 47))
    assert (found["src_ip"], found["outer_src_ip"]) == ("192.168.0.1", "10.1.0.1")
    assert (found["tunnel"], found["tunnel_id"], found["tunnel_depth"]) == ("vxlan", 7, 2)
    found = row(frames.ipv4(frames.ipv4(frames.vxlan(frames.eth(INNER), 7), 17), 4))
    assert (found["tunnel"], found["tunnel_depth"]) == ("vxlan", 2)
    found = row(frames.ipv4(frames.vxlan(frames.eth(frames.ipv4(INNER, 4)), 7), 17))
    assert (found["tunnel"], found.get("tunnel_id")) == ("ipip", None)


def test_tunnels_without_end_stop() -> None:
    packet = INNER
    for _ in range(4):
        packet = frames.ipv4(packet, 4)
    assert "stop_layer" not in row(packet)
    found = row(frames.ipv4(packet, 4))
    assert (found["stop_layer"], found["stop_reason"], found["src_ip"]) == ("ipv4", "depth", "10.0.0.1")
    assert found["tunnel_depth"] == 5


NO_PACKETS = [
    # frame, what it stops at, tunnel
    (frames.ipv4(frames.vxlan(frames.eth(b"\0\1\x08\0\6\4\0\1" + bytes(20), 0x0806)), 17), None, "vxlan"),
    (frames.ipv4(frames.vxlan(frames.eth(b"", 0x88CC)), 17), ("link", "unknown"), "vxlan"),
    (frames.ipv4(frames.vxlan(b"short"), 17), ("link", "length"), "vxlan"),
    (frames.ipv4(frames.udp(bytes(60), destination=4789), 17), None, None),
    (frames.ipv4(frames.udp(b"\x08", destination=4789), 17), None, None),
    (frames.ipv4(frames.udp(b"\xff" * 60, destination=6081), 17), None, None),
    (frames.ipv4(frames.udp(b"\0\1\1\0\0\1\0\0" + bytes(20), source=6081), 17), None, None),
    (frames.ipv4(frames.gpe(b"", 6), 17), ("vxlan", "unknown"), "vxlan"),
    (frames.ipv4(frames.gpe(b"", 4), 17), ("vxlan", "length"), "vxlan"),
    (frames.ipv4(frames.gpe(frames.nsh(b"", 9), 4), 17), ("vxlan", "unknown"), "vxlan"),
    (frames.ipv4(frames.gpe(b"\0\1" + bytes(20), 4), 17), ("vxlan", "length"), "vxlan"),
    (frames.ipv4(frames.udp(LABELS + b"\xff" * 20, destination=6635), 17), None, None),
    (frames.ipv4(frames.udp(b"\0\1", destination=6635), 17), None, None),
    *(
        (frames.ipv4(frames.udp(payload, source=53, destination=6635), 17), None, None)
        for payload in (
            bytes.fromhex("1234 8180 0001 0001 00000000") + b"\7example\3com\0\0\1\0\1",  # DNS
            LABELS + INNER[:-1],
            LABELS + INNER6[:-1],
            LABELS + b"E\0\0\x13" + INNER[4:],
            LABELS + bytes(4) + FRAME[:13],
            LABELS + b"\0\1\0\0" + FRAME,
        )
    ),
    (frames.ipv4(frames.udp(bytes.fromhex("c802") + bytes(20), destination=1701), 17), None, None),  # control
    (frames.ipv4(frames.udp(bytes.fromhex("0003") + bytes(20), destination=1701), 17), None, None),
    (
        frames.ipv4(frames.udp(bytes.fromhex("0002") + bytes(4), destination=1701), 17),
        ("l2tp", "length"),
        "l2tp",
    ),
    (frames.ipv4(frames.geneve(b"", 0x88CC), 17), ("geneve", "unknown"), "geneve"),
    (frames.ipv4(frames.udp(b"\x32\1\0\4" + bytes(8), destination=2152), 17), None, None),  # echo request
    (frames.ipv4(frames.gtpu(b"\x90"), 17), ("gtpu", "unknown"), "gtpu"),
    (
        frames.ipv4(frames.gtpu(b"", flags=0x34, more=b"\0\0\0\x85" + bytes(8)), 17),
        ("gtpu", "length"),
        "gtpu",
    ),
]


@pytest.mark.parametrize(("frame", "stop", "tunnel"), NO_PACKETS)
def test_what_carries_no_ip_packet_stays_itself(
    frame: bytes, stop: tuple[str, str] | None, tunnel: str | None
) -> None:
    found = row(frame)
    assert (found["src_ip"], found["ip_proto"], found["payload_offset"]) == ("10.0.0.1", 17, 28)
    assert "outer_src_ip" not in found
    assert found.get("tunnel") == tunnel
    assert (found.get("stop_layer"), found.get("stop_reason")) == (stop or (None, None))


def test_what_is_no_tunnel_leaves_the_one_around_it() -> None:
    packet = frames.ipv4(frames.udp(b"\xff" * 60, destination=6635), 17)
    found = row(frames.ipv4(frames.vxlan(frames.eth(packet)), 17))
    assert (found["tunnel"], found["tunnel_id"], found["dst_port"]) == ("vxlan", 42, 6635)


def test_numbers_that_were_not_captured_are_not_told() -> None:
    frame = frames.ipv4(frames.udp(bytes.fromhex("4002 0040 0001 002a 0021") + INNER, destination=1701), 17)
    assert "tunnel_id" not in row(frame[:35], orig_len=len(frame))
    assert row(frame[:36], orig_len=len(frame))["tunnel_id"] == 1 << 16 | 42


def test_the_first_fragment_of_a_tunnel_is_left_to_reassembly() -> None:
    found = row(frames.fragments4(frames.vxlan(FRAME), 17, 64)[0])
    assert (found["src_ip"], found["dst_port"], "tunnel" in found) == ("10.0.0.1", 4789, False)
    found = row(frames.fragments4(frames.gre(INNER), 47, 40)[0])
    assert (found["stop_layer"], found["stop_reason"]) == ("ipv4", "fragment")
