"""Builds frames and small captures with nothing but struct: the decoders' tests share no code with them."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

import numpy as np

ETHERNET, RAW, NULL, LOOP, SLL, SLL2 = 1, 101, 0, 108, 113, 276


def eth(payload: bytes, ether_type: int = 0x0800, source: str = "020000000001") -> bytes:
    return bytes.fromhex("020000000002" + source) + struct.pack(">H", ether_type) + payload


def vlan(payload: bytes, ether_type: int = 0x0800, vlan_id: int = 7, priority: int = 0) -> bytes:
    return struct.pack(">HH", priority << 13 | vlan_id, ether_type) + payload


def sll(payload: bytes, ether_type: int = 0x0800) -> bytes:
    return struct.pack(">HHH8sH", 4, 1, 6, bytes(8), ether_type) + payload


def sll2(payload: bytes, ether_type: int = 0x0800) -> bytes:
    return struct.pack(">HHIHBB8s", ether_type, 0, 3, 1, 4, 6, bytes(8)) + payload


def nsh(payload: bytes, following: int, metadata: bytes = b"") -> bytes:
    return struct.pack(">HBBI", 0x0FC0 | 2 + len(metadata) // 4, 2, following, 0x123FF) + metadata + payload


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    payload: bytes,
    proto: int = 6,
    source: str = "10.0.0.1",
    destination: str = "10.0.0.2",
    options: bytes = b"",
    fragment: int = 0,
    length: int | None = None,
    number: int = 0x1234,
) -> bytes:
    size = 20 + len(options)
    header = struct.pack(
        ">BBHHHBBH4s4s",
        0x40 | size // 4,
        0,
        size + len(payload) if length is None else length,
        number,
        fragment,
        64,
        proto,
        0,
        ipaddress.ip_address(source).packed,
        ipaddress.ip_address(destination).packed,
    )
    header += options
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload


def ipv6(
    payload: bytes,
    proto: int = 6,
    source: str = "2001:db8::1",
    destination: str = "2001:db8::2",
    length: int | None = None,
) -> bytes:
    size = len(payload) if length is None else length
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return struct.pack(">IHBB", 6 << 28, size, proto, 61) + packed + payload


def extension(payload: bytes, following: int, size: int = 8) -> bytes:
    """An IPv6 hop-by-hop, destination options or routing header filled with PadN."""
    return struct.pack(">BBBB", following, size // 8 - 1, 1, size - 4) + bytes(size - 4) + payload


def ipv6_fragment(payload: bytes, following: int, offset: int, more: bool, number: int = 99) -> bytes:
    return struct.pack(">BBHI", following, 0, offset | more, number) + payload


def fragments4(payload: bytes, proto: int, size: int, number: int = 1) -> list[bytes]:
    """An IPv4 packet in fragments of `size` bytes."""
    starts = range(0, len(payload), size)
    return [
        ipv4(
            payload[at : at + size],
            proto,
            fragment=at // 8 | (0x2000 if at + size < len(payload) else 0),
            number=number,
        )
        for at in starts
    ]


def fragments6(payload: bytes, proto: int, size: int, number: int = 1) -> list[bytes]:
    """An IPv6 packet in fragments of `size` bytes."""
    return [
        ipv6(ipv6_fragment(payload[at : at + size], proto, at, at + size < len(payload), number), 44)
        for at in range(0, len(payload), size)
    ]


def vxlan(frame: bytes, network: int = 42, port: int = 4789) -> bytes:
    return udp(struct.pack(">II", 0x08000000, network << 8) + frame, destination=port)


def gpe(payload: bytes, protocol: int, network: int = 42) -> bytes:
    return udp(struct.pack(">II", 0x0C000000 | protocol, network << 8) + payload, destination=4790)


def geneve(payload: bytes, ether_type: int = 0x6558, network: int = 42, options: bytes = b"") -> bytes:
    header = struct.pack(">BBHI", len(options) // 4, 0, ether_type, network << 8)
    return udp(header + options + payload, destination=6081)


def gtpu(payload: bytes, endpoint: int = 42, flags: int = 0x30, more: bytes = b"") -> bytes:
    header = struct.pack(">BBHI", flags, 255, len(more) + len(payload), endpoint)
    return udp(header + more + payload, source=2152, destination=2152)


def gre(payload: bytes, ether_type: int = 0x0800, flags: int = 0, more: bytes = b"") -> bytes:
    return struct.pack(">HH", flags, ether_type) + more + payload


def tcp(
    payload: bytes = b"",
    source: int = 40000,
    destination: int = 80,
    seq: int = 1000,
    ack: int = 2000,
    flags: int = 0x18,
    options: bytes = b"",
) -> bytes:
    words = 5 + len(options) // 4
    return (
        struct.pack(">HHIIHHHH", source, destination, seq, ack, words << 12 | flags, 501, 0, 0)
        + options
        + payload
    )


def udp(payload: bytes = b"", source: int = 40000, destination: int = 53, length: int | None = None) -> bytes:
    return (
        struct.pack(">HHHH", source, destination, 8 + len(payload) if length is None else length, 0) + payload
    )


def icmp(payload: bytes = b"", kind: int = 8, code: int = 0) -> bytes:
    return struct.pack(">BBHHH", kind, code, 0, 1, 1) + payload


def sctp(payload: bytes = b"", source: int = 5000, destination: int = 6000) -> bytes:
    return struct.pack(">HHII", source, destination, 1, 0) + payload


def pcap(
    frames: Sequence[bytes],
    link_type: int = ETHERNET,
    times_ns: Sequence[int] | None = None,
    orig_lens: Sequence[int] | None = None,
    order: str = "<",
    nanoseconds: bool = True,
    snaplen: int = 262144,
) -> bytes:
    """A classic pcap file."""
    unit = 1 if nanoseconds else 1000
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)]
    for i, frame in enumerate(frames):
        time = times_ns[i] if times_ns else 1_700_000_000_000_000_000 + i * 1_000_000
        size = orig_lens[i] if orig_lens else len(frame)
        parts.append(
            struct.pack(order + "IIII", time // 10**9, time % 10**9 // unit, len(frame), size) + frame
        )
    return b"".join(parts)


def layout(
    frames: Sequence[bytes],
    link_type: int = ETHERNET,
    orig_lens: Sequence[int] | None = None,
    gap: bytes = b"",
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Arguments for `dissect`: the frames in one buffer, with `gap` before, between and behind them."""
    data = gap + b"".join(frame + gap for frame in frames)
    lens = np.array([len(frame) for frame in frames], np.uint32)
    starts = len(gap) + np.concatenate([[0], np.cumsum(lens.astype(np.int64) + len(gap))])[: len(frames)]
    origs = lens if orig_lens is None else np.array(orig_lens, np.uint32)
    return np.frombuffer(data, np.uint8), starts, lens, origs, np.full(len(frames), link_type, np.uint16)
