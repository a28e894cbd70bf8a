"""TCP options and what ICMP errors say about other packets."""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pytest
from helpers import frames

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.packets import dissect

PADDED = bytes.fromhex("0101080a 00000064 000000c8")


def row(frame: bytes, orig_len: int | None = None) -> dict[str, Any]:
    """The filled columns of a raw IP packet."""
    found = packet_columns(
        dissect(*frames.layout([frame], 101, None if orig_len is None else [orig_len], gap=b"\2\4\5\xb4"))
    )
    table = pa.table(list(found.values()), list(found)).to_pylist()
    return {k: v for k, v in table[0].items() if v is not None}


def options(data: bytes) -> dict[str, Any]:
    found = row(frames.ipv4(frames.tcp(b"abcd", options=data)))
    assert found["payload_len"] == 4
    return {k: v for k, v in found.items() if k.startswith(("tcp_", "stop_")) and k not in PLAIN}


PLAIN = {"tcp_flags", "tcp_seq", "tcp_ack", "tcp_window"}
TIMES = {"tcp_tsval": 100, "tcp_tsecr": 200}


def kinds(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


OPTIONS = [
    (b"", {}),
    (PADDED, {"tcp_options": kinds(1, 8), **TIMES}),
    (PADDED + b"\1\1\1\1", {"tcp_options": kinds(1, 8), **TIMES}),
    (
        bytes.fromhex("020405b4 0402 080a 00000064 000000c8 01 030307"),
        {
            "tcp_options": kinds(1, 2, 3, 4, 8),
            "tcp_mss": 1460,
            "tcp_window_scale": 7,
            "tcp_sack_permitted": True,
            **TIMES,
        },
    ),
    (
        bytes.fromhex("0101050a 00000001 00000002"),
        {"tcp_options": kinds(1, 5), "tcp_sack_count": 1, "tcp_sack1_left": 1, "tcp_sack1_right": 2},
    ),
    (
        b"\1\1\5\x22" + struct.pack(">8I", *range(8)),
        {
            "tcp_options": kinds(1, 5),
            "tcp_sack_count": 4,
            **{f"tcp_sack{k // 2 + 1}_{('left', 'right')[k % 2]}": k for k in range(8)},
        },
    ),
    (b"\0\xff\xff\xff", {"tcp_options": 1}),
    (b"\x1e\4\0\0\xfe\4\0\0\x22\2\1\1", {"tcp_options": kinds(1, 30, 34, 63)}),
    (b"\2\3\5\3\4\0\0\1", {"tcp_options": kinds(1, 2, 3)}),  # lengths that those kinds do not have
    (b"\5\4\0\0", {"tcp_options": kinds(5)}),
    (b"\1\1\1\2", {"stop_layer": "tcp", "stop_reason": "length"}),
    (b"\2\4\5\xb4\x08\0\1\1", {"tcp_mss": 1460, "stop_layer": "tcp", "stop_reason": "length"}),
    (b"\2\4\5\xb4\x08\x0a\1\1", {"tcp_mss": 1460, "stop_layer": "tcp", "stop_reason": "length"}),
]


@pytest.mark.parametrize(("data", "expected"), OPTIONS)
def test_options(data: bytes, expected: dict[str, Any]) -> None:
    assert options(data) == expected


def test_a_cut_keeps_the_options_before_it() -> None:
    data = bytes.fromhex("020405b4 0402 080a 00000064 000000c8 01 030307")
    whole = frames.ipv4(frames.tcp(b"abcd", options=data))
    for size in range(40, len(whole)):
        found = row(whole[:size], len(whole))
        assert found.get("tcp_mss") == (1460 if size >= 44 else None)
        assert found.get("tcp_tsval") == (100 if size >= 56 else None)
        assert found.get("tcp_window_scale") == (7 if size >= 60 else None)
        assert found.get("stop_reason") == ("snaplen" if size < 60 else None)
    whole = frames.ipv4(frames.tcp(b"abcd", options=PADDED))
    for size in range(40, len(whole)):
        found = row(whole[:size], len(whole))
        assert found.get("tcp_tsecr") == (200 if size >= 52 else None)
        assert found.get("stop_reason") == ("snaplen" if size < 52 else None)


ABOUT = {"icmp_src_ip": "10.0.0.2", "icmp_dst_ip": "10.0.0.9", "icmp_ip_proto": 17}
ABOUT6 = {"icmp_src_ip": "fd00::2", "icmp_dst_ip": "fd00::9", "icmp_ip_proto": 17}
PORTS = {"icmp_src_port": 40000, "icmp_dst_port": 53}
EMBEDDED = frames.ipv4(frames.udp(b"query"), 17, "10.0.0.2", "10.0.0.9", options=bytes(4))
EMBEDDED6 = frames.ipv6(frames.extension(frames.udp(b"query"), 17), 0, "fd00::2", "fd00::9")


def about(found: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in found.items() if k.startswith("icmp_") and k not in ("icmp_type", "icmp_code")}


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_icmp_errors_name_the_packet(kind: int) -> None:
    found = row(frames.ipv4(frames.icmp(EMBEDDED, kind, 1), 1))
    assert about(found) == {**ABOUT, **PORTS}
    assert (found["src_ip"], found["icmp_type"], found["icmp_code"]) == ("10.0.0.1", kind, 1)
    assert "src_port" not in found
    assert about(row(frames.ipv4(frames.icmp(EMBEDDED[:27], kind), 1))) == ABOUT
    assert about(row(frames.ipv4(frames.icmp(EMBEDDED[:19], kind), 1))) == {}
    later = frames.ipv4(frames.udp(), 17, "10.0.0.2", "10.0.0.9", fragment=3)
    assert about(row(frames.ipv4(frames.icmp(later, kind), 1))) == ABOUT


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_icmpv6_errors_name_the_packet(kind: int) -> None:
    assert about(row(frames.ipv6(frames.icmp(EMBEDDED6, kind), 58))) == {**ABOUT6, **PORTS}
    assert about(row(frames.ipv6(frames.icmp(EMBEDDED6[:44], kind), 58))) == {**ABOUT6, "icmp_ip_proto": 0}
    later = frames.ipv6(frames.ipv6_fragment(frames.udp(), 17, 8, more=True), 44, "fd00::2", "fd00::9")
    assert about(row(frames.ipv6(frames.icmp(later, kind), 58))) == ABOUT6


def test_icmpv6_redirects_name_the_packet() -> None:
    options = b"\2\1" + bytes(6) + b"\4\x0b" + bytes(6) + EMBEDDED6
    assert about(row(frames.ipv6(frames.icmp(bytes(32) + options, 137), 58))) == {**ABOUT6, **PORTS}
    for broken in (b"", b"\2\0" + bytes(6), b"\2\xff" + bytes(6), b"\4\1" + bytes(6)):
        assert about(row(frames.ipv6(frames.icmp(bytes(32) + broken, 137), 58))) == {}


def test_icmp_queries_have_a_number() -> None:
    assert about(row(frames.ipv4(frames.icmp(b"x", 8), 1))) == {"icmp_id": 1, "icmp_seq": 1}
    assert about(row(frames.ipv6(frames.icmp(b"x", 129), 58))) == {"icmp_id": 1, "icmp_seq": 1}
    assert about(row(frames.ipv6(frames.icmp(b"x", 8), 58))) == {}
