"""Damaged traffic: no table raises or hangs, or counts less than nothing."""

from __future__ import annotations

import random
import struct

import pytest
from helpers.traffic import ACK, FIN, PSH, RST, SYN, Connection, End, Packets, cut

from stratokit.engine.tables import packet_fields
from stratokit.protocols.registry import protocols
from stratokit.streams import conversations, tcp

PARTS = [
    b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n",
    b"HTTP/1.0 304 Not Modified\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"HEAD / HTTP/1.0\n\n",
    b"HTTP/1.1 101 X\r\nUpgrade: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"\r\n",
    b"HTTP/1.",
    b"GET ",
    b" HTTP/1.1\r\n",
    b"ffffffffffffffff\r\n",
    b"\x16\3\1\0\x46\1\0\0\x42\3\3" + bytes(32) + b"\0\0\2\x13\1\1\0\0\x17\0\0\0\6\0\4\0\0\1a"
    b"\0\x10\0\5\0\3\2h2\0\x2b\0\0",
    b"\x16\3\3\0\x32\2\0\0\x2e\3\3" + bytes(32) + b"\0\x13\1\0\0\6\0\x2b\0\2\3\4",
    b"\x14\3\3\0\1\1",
    b"\x15\3\3\0\2\2\x28",
    b"\x17\3\3\0\5abcde",
]
DATAGRAMS = [
    struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 0) + b"\3www\7example\3com\0\0\1\0\1",
    struct.pack(">HHHHHH", 1, 0x8180, 1, 2, 0, 1)
    + b"\3www\7example\3com\0\0\1\0\1\xc0\x0c\0\5\0\1\0\0\0\1\0\4\1a\xc0\x10"
    + b"\xc0\x0c\0\x1c\0\1\0\0\0\1\0\x10"
    + bytes(16)
    + b"\0\0\x29\x10\0\0\0\0\0\0\0",
]
PARTS += [struct.pack(">H", len(d)) + d for d in DATAGRAMS]
FLAGS = [ACK, PSH | ACK, FIN | ACK, RST, SYN, 0]


def damaged(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0:
                out[at : at + 1] = rng.randbytes(rng.randint(1, 6))
            case 1:
                del out[at : at + rng.randint(1, 8)]
            case 2:
                out[at:at] = rng.choice(PARTS)[: rng.randint(1, 30)]
            case _:
                del out[at:]
    return bytes(out)


def say(rng: random.Random, connection: Connection) -> None:
    side = rng.choice([connection.client, connection.server])
    data = b"".join(damaged(rng, rng.choice(PARTS)) for _ in range(rng.randint(1, 4)))
    for part in cut(data, [rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 5))]):
        match rng.randrange(30):
            case 0 | 1:
                connection.lose(side, len(part))
                continue
            case 2:
                connection.next[side] -= rng.randint(0, 40)
            case 3:
                connection.next[side] += rng.randrange(1 << 32)
        connection.send(side, part, rng.choice(FLAGS) if rng.random() < 0.1 else ACK)


def traffic(seed: int) -> Packets:
    rng = random.Random(seed)
    packets = Packets()
    for flow in range(rng.randint(1, 40)):
        server = End("10.0.0.2", rng.choice([8080, 53]))
        connection = Connection(packets, server=server, flow=flow, handshake=rng.random() < 0.8)
        for _ in range(rng.randint(0, 6)):
            say(rng, connection)
    for flow in range(100, 108):
        for _ in range(rng.randint(1, 4)):
            ports = rng.choice([53, 999, 5353]), rng.choice([53, 1000, 7, 5353, 5355])
            ends = End("10.0.0.1", ports[0]), End("10.0.0.3", ports[1])
            packets.datagram(*ends, damaged(rng, rng.choice(DATAGRAMS)), flow)
    if rng.random() < 0.3:
        rng.shuffle(packets.added)
    for row in packets.added:
        if rng.random() < 0.05:
            row["data"] = row["data"][: rng.randint(0, len(row["data"]))]
    return packets


def check(seed: int) -> None:
    packets = traffic(seed)
    of_packets = (fields.build for fields in packet_fields().values())
    of_protocols = (protocol.build for protocol in protocols().values())
    for build in (conversations.build, tcp.build, *of_protocols, *of_packets):
        rows = build(packets).collect()
        for column in rows.columns:
            if column.endswith(("_bytes", "transfer_ns")):
                assert (rows[column].drop_nulls() >= 0).all(), (seed, column)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_traffic(seed: int) -> None:
    check(seed)
