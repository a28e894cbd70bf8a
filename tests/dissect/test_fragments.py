"""Fragments put together: any order, any batches, damage, floods; the last one gets the columns."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import frames
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.datagrams import SLOTS, TIMEOUT_NS
from stratokit.dissect.fragments import Reassembler
from stratokit.dissect.packets import dissect

BODY = bytes(range(256)) * 8
DIVIDERS = [frames.fragments4, frames.fragments6]


def feed(
    reassembler: Reassembler,
    packets: list[bytes],
    times_ns: list[int] | None = None,
    orig_lens: list[int] | None = None,
    link_type: int = 101,
) -> list[dict[str, Any]]:
    """The filled columns of each packet of one batch; `payload` is what payload_offset points to."""
    data, offsets, *rest = frames.layout(packets, link_type, orig_lens, gap=b"\x45\x60")
    found = dissect(data, offsets, *rest)
    whole = reassembler.feed(found, data, offsets, np.array(times_ns or [0] * len(packets), np.int64))
    columns = packet_columns(found, datagrams=whole)
    for array in columns.values():
        array.validate(full=True)
    rows = pa.table(list(columns.values()), list(columns)).to_pylist()
    for row, packet in zip(rows, packets, strict=True):
        if row["payload_offset"] is not None:
            at = row["payload_offset"]
            row["payload"] = (row["datagram"] or packet)[at : at + row["payload_len"]]
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


@pytest.mark.parametrize("divide", DIVIDERS)
@pytest.mark.parametrize("size", [8, 64, 1480, 2048])
def test_the_completing_frame_gets_the_packet(divide: Any, size: int) -> None:
    pieces = divide(frames.udp(BODY), 17, size)
    *before, last = feed(Reassembler(), pieces)
    assert (last["src_port"], last["dst_port"], last["payload"], last["payload_len"]) == (
        40000,
        53,
        BODY,
        2048,
    )
    assert "stop_layer" not in last
    version = "ipv4" if last["ip_version"] == 4 else "ipv6"
    for number, row in enumerate(before):
        assert (row["stop_layer"], row["stop_reason"]) == (version, "fragment")
        assert "payload_offset" not in row
        assert ("src_port" in row) == (number == 0)
        assert (row["fragment_offset"], row["fragment_id"]) == (number * size, 1)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(DIVIDERS), st.randoms(use_true_random=False), st.integers(1, 40), st.integers(1, 900))
def test_any_order_in_any_batches(divide: Any, rng: random.Random, units: int, length: int) -> None:
    bodies = [rng.randbytes(length) for _ in range(3)]
    pieces = [p for k, body in enumerate(bodies) for p in divide(frames.udp(body), 17, 8 * units, k)]
    rng.shuffle(pieces)
    reassembler, payloads = Reassembler(), []
    while pieces:
        count = rng.randint(1, len(pieces))
        rows = feed(reassembler, pieces[:count])
        payloads += [row["payload"] for row in rows if "payload" in row]
        del pieces[:count]
    assert sorted(payloads) == sorted(bodies)
    assert (reassembler.lost, reassembler.waiting) == (0, 0)


def test_packets_that_are_no_fragments_stay_as_they_are() -> None:
    packets = [frames.ipv4(frames.udp(b"abcd"), 17), frames.ipv4(frames.tcp(b"abcd"))]
    data, offsets, *rest = frames.layout(packets, 101)
    found, plain = dissect(data, offsets, *rest), dissect(data, offsets, *rest)
    whole = Reassembler().feed(found, data, offsets, np.zeros(2, np.int64))
    assert whole.rows.size == 0
    for name, values in plain.items():
        assert np.array_equal(found[name], values), name


def test_datagrams_are_told_apart() -> None:
    one, two = (frames.fragments4(frames.udp(bytes([k]) * 16), 17, 16, k) for k in (1, 2))
    other = frames.ipv4(frames.udp(b"\3" * 16)[16:], 17, "10.0.0.7", fragment=2, number=1)
    rows = feed(Reassembler(), [one[0], two[0], other, one[1], two[1]])
    assert [row.get("payload") for row in rows] == [None, None, None, b"\1" * 16, b"\2" * 16]


def test_repeated_and_overlapping_bytes_stay_as_they_came_first() -> None:
    body = frames.udp(b"a" * 56)
    first, *_ = frames.fragments4(body, 17, 32)
    over = frames.ipv4(b"b" * 40, 17, fragment=3, number=1)  # 24 to 64
    row = feed(Reassembler(), [first, first, over])[2]
    assert row["payload"] == b"a" * 24 + b"b" * 32


def test_of_overlapping_fragments_the_one_that_begins_first_counts_whenever_it_came() -> None:
    body = frames.udp(b"a" * 56)
    late, *_ = frames.fragments4(body, 17, 32)
    over = frames.ipv4(b"b" * 40, 17, fragment=3, number=1)  # 24 to 64
    again = frames.ipv4(b"c" * 40, 17, fragment=3, number=1)
    row = feed(Reassembler(), [over, again, late])[2]
    assert row["payload"] == b"a" * 24 + b"b" * 32


def test_a_hole_is_not_filled_by_what_lies_behind_the_end() -> None:
    behind = frames.ipv4(b"x" * 64, 17, fragment=0x2000 | 100, number=1)
    end = frames.ipv4(b"y" * 8, 17, fragment=2, number=1)
    reassembler = Reassembler()
    assert [row["stop_reason"] for row in feed(reassembler, [behind, end])] == ["fragment"] * 2
    first = frames.ipv4(frames.udp(b"z" * 8, length=24), 17, fragment=0x2000, number=1)
    assert feed(reassembler, [first])[0]["payload"] == b"z" * 8 + b"y" * 8


def test_a_last_fragment_beyond_any_packet_is_refused() -> None:
    death = frames.ipv4(b"x" * 800, 17, fragment=8190, number=1)
    odd = frames.ipv4(b"x" * 15, 17, fragment=0x2000, number=1)
    rest = frames.ipv4(b"x" * 8, 17, fragment=1, number=1)
    assert all("payload" not in row for row in feed(Reassembler(), [death, odd, rest]))


@pytest.mark.parametrize(("divide", "header"), [(frames.fragments4, 20), (frames.fragments6, 0)])
def test_the_largest_packet_and_one_byte_more(divide: Any, header: int) -> None:
    body = bytes(65535 - header - 8)
    reassembler = Reassembler()
    assert feed(reassembler, divide(frames.udp(body), 17, 1480))[-1]["payload"] == body
    assert reassembler.lost == 0
    pieces = divide(frames.udp(body + b"x", length=0), 17, 1480)
    assert "payload" not in feed(reassembler, pieces)[-1]
    assert reassembler.lost + reassembler.waiting == len(pieces)


def test_two_ends_do_not_leave_bytes_of_other_packets() -> None:
    """Bytes behind a second, shorter end would be those of whatever used that room before."""
    reassembler = Reassembler()
    for number in range(SLOTS):
        feed(reassembler, frames.fragments4(frames.udp(b"s" * 40), 17, 24, number + 1000))
    first = frames.ipv4(frames.udp(b"a" * 32, length=48)[:8], 17, fragment=0x2000, number=1)
    end = frames.ipv4(b"a" * 24, 17, fragment=3, number=1)
    shorter = frames.ipv4(b"aaa", 17, fragment=1, number=1)
    rows = feed(reassembler, [end, shorter, first])
    assert all("payload" not in row for row in rows)
    middle = frames.ipv4(b"m" * 16, 17, fragment=0x2001, number=1)
    assert feed(reassembler, [middle])[0]["payload"] == b"m" * 16 + b"a" * 24


def test_vlans_and_tunnels_keep_fragments_apart() -> None:
    one, two = frames.fragments4(frames.udp(b"a" * 56), 17, 32)
    mirrored = [frames.eth(frames.vlan(p, vlan_id=v), 0x8100) for p in (one, two) for v in (5, 6)]
    rows = feed(Reassembler(), mirrored, link_type=1)
    assert [(row["vlan"], row.get("payload")) for row in rows] == [
        (5, None),
        (6, None),
        (5, b"a" * 56),
        (6, b"a" * 56),
    ]
    tenants = [frames.ipv4(frames.vxlan(frames.eth(p), v), 17) for p in (one, two) for v in (5, 6)]
    rows = feed(Reassembler(), tenants)
    assert [row.get("payload") for row in rows] == [None, None, b"a" * 56, b"a" * 56]
    assert [row.get("datagram_fragments") for row in rows] == [None, None, 2, 2]


def test_fragments_captured_in_part_keep_what_they_show() -> None:
    one, two = frames.fragments4(frames.udp(b"a" * 56), 17, 32)
    rows = feed(Reassembler(), [one[:30], two], orig_lens=[len(one), len(two)])
    assert (rows[0]["dst_port"], rows[0]["payload_len"]) == (53, 24)
    assert rows[1]["stop_reason"] == "fragment"


@pytest.mark.parametrize("divide", DIVIDERS)
def test_a_fragment_in_a_frame_that_is_too_short_shows_what_is_there(divide: Any) -> None:
    """Its frame ends, also on the wire, before the packet that the IP header announces."""
    one, two = divide(frames.udp(b"a" * 56), 17, 32)
    rows = feed(Reassembler(), [one[:-4], two])
    assert (rows[0]["dst_port"], rows[0]["payload_len"]) == (53, 20)
    assert rows[1]["stop_reason"] == "fragment"


def test_tcp_in_fragments_is_seen_once() -> None:
    rows = feed(Reassembler(), frames.fragments4(frames.tcp(b"a" * 64, options=bytes(4)), 6, 40))
    assert "tcp_seq" not in rows[0]
    assert "src_port" not in rows[0]
    assert (rows[-1]["tcp_seq"], rows[-1]["payload"], rows[-1]["tcp_options"]) == (1000, b"a" * 64, 1)


def test_extension_headers_before_and_within_fragments() -> None:
    pieces = frames.fragments6(frames.extension(frames.udp(BODY), 17), 60, 512)
    assert feed(Reassembler(), pieces)[-1]["payload"] == BODY


INNER = frames.ipv4(frames.udp(BODY), 17, "192.168.0.1", "192.168.0.2")


@pytest.mark.parametrize("divide", DIVIDERS)
def test_a_tunnel_in_fragments(divide: Any) -> None:
    last = feed(Reassembler(), divide(frames.vxlan(frames.eth(INNER)), 17, 600))[-1]
    assert (last["src_ip"], last["tunnel"], last["tunnel_depth"]) == ("192.168.0.1", "vxlan", 1)
    assert last["outer_src_ip"] in ("10.0.0.1", "2001:db8::1")
    assert last["payload"] == BODY


@pytest.mark.parametrize("divide", DIVIDERS)
def test_fragments_in_a_tunnel(divide: Any) -> None:
    pieces = [frames.ipv4(frames.gre(p, 0x0800 if p[0] >> 4 == 4 else 0x86DD), 47, "172.16.0.1") for p in
              divide(frames.udp(BODY), 17, 600)]  # fmt: skip
    last = feed(Reassembler(), pieces)[-1]
    assert (last["outer_src_ip"], last["tunnel"], last["tunnel_depth"]) == ("172.16.0.1", "gre", 1)
    assert last["payload"] == BODY


def test_fragments_in_a_tunnel_in_fragments() -> None:
    pieces = []
    for number, piece in enumerate(frames.fragments4(frames.udp(BODY), 17, 600)):
        pieces += frames.fragments4(frames.vxlan(frames.eth(piece)), 17, 256, number + 50)
    last = feed(Reassembler(), pieces)[-1]
    assert (last["tunnel"], last["payload"]) == ("vxlan", BODY)


def test_the_link_layer_stays_that_of_the_frame() -> None:
    pieces = [frames.eth(frames.vlan(p), 0x8100) for p in frames.fragments4(frames.udp(BODY), 17, 600)]
    assert feed(Reassembler(), pieces, link_type=1)[-1]["vlan"] == 7


def test_what_does_not_become_whole_is_given_up_and_counted() -> None:
    reassembler = Reassembler()
    one, two = frames.fragments4(frames.udp(b"a" * 56), 17, 32)
    feed(reassembler, [one], [0])
    assert (reassembler.lost, reassembler.waiting) == (0, 1)
    assert "payload" not in feed(reassembler, [two], [TIMEOUT_NS + 1])[0]
    assert (reassembler.lost, reassembler.waiting) == (1, 1)


def test_a_flood_of_first_fragments_takes_bounded_memory() -> None:
    reassembler = Reassembler()
    flood = [frames.ipv4(b"x" * 8, 17, fragment=0x2000, number=k) for k in range(4 * SLOTS)]
    feed(reassembler, flood, list(range(len(flood))))
    assert reassembler.waiting <= SLOTS
    assert reassembler.lost + reassembler.waiting == len(flood)
    assert (
        feed(reassembler, frames.fragments4(frames.udp(BODY), 17, 600, 9999), [10**6] * 4)[-1]["payload"]
        == BODY
    )


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 3), st.binary(max_size=40)), max_size=20))
def test_any_fragments(pieces: list[tuple[int, int, bytes]]) -> None:
    """Whatever offsets, flags and bytes there are: nothing raises, and a packet is only what was captured."""
    packets = [frames.ipv4(body, 17, fragment=bits & 0x3FFF, number=n) for bits, n, body in pieces]
    packets += [
        frames.ipv6(frames.ipv6_fragment(body, 60, bits & 0xFFF8, bool(bits & 1), n), 44)
        for bits, n, body in pieces
    ]
    reassembler = Reassembler()
    for part in (packets[::2], packets[1::2]):
        for row in feed(reassembler, part):
            assert row.get("payload_len", 0) <= 0xFFFF
    assert reassembler.waiting + reassembler.lost <= len(packets)
