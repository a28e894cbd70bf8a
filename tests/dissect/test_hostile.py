"""Whatever a frame holds: decoding does not raise, and bytes outside the frame change nothing."""

from __future__ import annotations

import numpy as np
from helpers import frames
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.packets import dissect

INNER = frames.ipv4(frames.udp(b"abcd"), 17, "192.168.0.1", "192.168.0.2")
SAMPLES = [
    (1, frames.eth(frames.ipv4(frames.tcp(b"abcd", options=bytes(12)), options=bytes(8)))),
    (1, frames.eth(frames.vlan(frames.vlan(frames.ipv4(frames.udp(b"abcd"), 17)), 0x8100), 0x88A8)),
    (1, frames.eth(bytes.fromhex("aaaa030000000800") + frames.ipv4(frames.udp(b"abcd"), 17), 44)),
    (1, frames.eth(frames.ipv6(frames.extension(frames.extension(frames.tcp(b"ab"), 6), 43, 24), 0), 0x86DD)),
    (1, frames.eth(frames.ipv6(frames.ipv6_fragment(frames.icmp(b"ab"), 58, 0, more=True), 44), 0x86DD)),
    (113, frames.sll(frames.ipv4(frames.sctp(b"abcd"), 132))),
    (276, frames.sll2(frames.ipv4(frames.icmp(b"abcd"), 1))),
    (0, b"\x02\0\0\0" + frames.ipv4(frames.tcp(b"abcd"))),
    (101, frames.ipv6(frames.tcp(b"abcd"))),
    (1, frames.eth(frames.ipv4(frames.tcp(b"ab", options=b"\2\4\5\xb4\4\2\1\1\5\x12" + bytes(18))))),
    (1, frames.eth(frames.ipv4(frames.vxlan(frames.eth(frames.vlan(INNER), 0x8100)), 17))),
    (101, frames.ipv6(frames.geneve(frames.eth(INNER), options=bytes(8)), 17)),
    (101, frames.ipv4(frames.gtpu(INNER, flags=0x34, more=b"\0\0\0\x85\1\0\0\0"), 17)),
    (101, frames.ipv4(frames.gre(frames.eth(INNER), 0x6558, 0xB000, bytes(12)), 47)),
    (
        101,
        frames.ipv4(frames.gre(b"\x10\0\0\x2a" + bytes(4) + frames.eth(INNER), 0x88BE, 0x1000, bytes(4)), 47),
    ),
    (101, frames.ipv6(frames.ipv4(frames.ipv6(frames.icmp(b"ab", 128), 58), 41), 4)),
    (101, frames.ipv4(frames.icmp(INNER, 3), 1)),
    (101, frames.ipv6(frames.icmp(bytes(32) + b"\4\x08" + bytes(6) + frames.ipv6(INNER, 17), 137), 58)),
    (1, frames.eth(bytes.fromhex("00064040 000c8140") + INNER, 0x8847)),
    (1, frames.eth(bytes.fromhex("1100 1234 00ff 0021") + INNER, 0x8864)),
    (9, b"\xff\3\0\x21" + INNER),
    (1, frames.eth(bytes.fromhex("0001 0800 06 04 0002") + bytes(20), 0x0806)),
    (105, bytes.fromhex("8883 0000") + bytes(32) + bytes.fromhex("aaaa03000000 0800") + INNER),
    (
        127,  # two words of fields, a time, flags that say that the header of 26 bytes is padded
        bytes.fromhex("0000 1900 030000a0 00000000 00000000")
        + bytes.fromhex("0000000000000000 20 8802 0000")
        + bytes(22)
        + bytes.fromhex("0000 aaaa03000000 0800")
        + INNER,
    ),
    (107, bytes.fromhex("18400041 03 00 80 000000 0800") + INNER),
    (6, bytes.fromhex("1040 020000000001 820000000002 0670 12345678 aaaa03000000 0800") + INNER),
    (10, bytes.fromhex("57 020000000001 020000000002 aaaa03000000 0800") + INNER),
    (123, bytes.fromhex("8205 0064 aaaa03000000 0800") + INNER),
    (226, bytes.fromhex("01020000 00000028 00000002") + bytes(12) + INNER),
    (239, bytes.fromhex("02000001 0500 0a00 61000000 0800 0100 00000000 2400 0900") + INNER),
    (242, bytes(40) + bytes.fromhex("86dd 0000") + frames.ipv6(frames.udp(b"abcd"), 17)),
    (1, frames.eth(bytes.fromhex("202a 00000001 0202020202020001 0800") + INNER + bytes(20), 0x88E5)),
    (1, frames.eth(bytes.fromhex("0c20") + frames.eth(frames.nsh(INNER, 1, bytes(8)), 0x894F), 0x8903)),
    (1, frames.eth(bytes.fromhex("0001 0120 000000000000 0800") + INNER, 0xD28B)),
    (101, frames.ipv4(frames.udp(bytes.fromhex("00065140 00000000") + frames.eth(INNER), 1, 6635), 17)),
    (
        101,
        frames.ipv6(
            frames.udp(bytes.fromhex("4a02 0040 0001 002a 0007 0008 0002 eeee ff03 0021") + INNER, 1, 1701),
            17,
        ),
    ),
    (101, frames.ipv4(b"\x30\0" + frames.eth(INNER), 97)),
]


def decode_between(frame: bytes, link_type: int, orig_len: int, outside: bytes) -> dict[str, list[object]]:
    """Columns of `frame` in a buffer that holds `outside` before and behind it."""
    data, offsets, cap_lens, orig_lens, link_types = frames.layout(
        [frame], link_type, [orig_len], gap=outside
    )
    found = dissect(data, offsets, cap_lens, orig_lens, link_types)
    for array in packet_columns(found).values():
        array.validate(full=True)
    assert found["payload_offset"][0] <= len(frame)
    return {name: array.tolist() for name, array in found.items()}


def check(frame: bytes, link_type: int, orig_len: int) -> None:
    zeros = decode_between(frame, link_type, orig_len, bytes(80))
    for outside in (b"\xff" * 80, b"\x45" * 80, b"\x06" * 80):
        assert decode_between(frame, link_type, orig_len, outside) == zeros


def test_every_length_of_every_sample() -> None:
    for link_type, whole in SAMPLES:
        for size in range(len(whole) + 1):
            check(whole[:size], link_type, len(whole))
            check(whole[:size], link_type, size)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [
            0,
            1,
            6,
            9,
            10,
            12,
            14,
            50,
            100,
            101,
            104,
            105,
            107,
            108,
            113,
            123,
            127,
            147,
            226,
            228,
            229,
            239,
            242,
            276,
            65535,
        ]
    ),
    st.binary(max_size=120),
    st.integers(0, 2**32 - 1),
)
def test_random_bytes(link_type: int, frame: bytes, orig_len: int) -> None:
    check(frame, link_type, orig_len)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_samples(sample: tuple[int, bytes], data: st.DataObject) -> None:
    link_type, whole = sample
    frame = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(frame[: data.draw(st.integers(0, len(frame)))]), link_type, data.draw(st.integers(0, 200)))


def test_frames_that_lie_outside_the_buffer_are_empty() -> None:
    data = np.frombuffer(frames.ipv4(frames.tcp(b"abcd")), np.uint8)
    offsets = np.array([-1, 0, 30, len(data), len(data) + 1, 2**62, -(2**62)])
    lens = np.full(len(offsets), 2**32 - 1, np.uint32)
    found = dissect(data, offsets, lens, lens, np.full(len(offsets), 101, np.uint16))
    assert found["ip_version"].tolist() == [0, 4, 0, 0, 0, 0, 0]
