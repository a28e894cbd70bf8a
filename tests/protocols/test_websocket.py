"""WebSocket: messages of frames made by hand, in any cuts and with missing bytes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from helpers.corpus import files
from helpers.corpus import opened as opened_file
from helpers.traffic import CLIENT, MS, SERVER, Connection, Packets
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols import websocket
from stratokit.protocols.base import Passes

ASK = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes, mask: bytes = b"", final: bool = True, flags: int = 0) -> bytes:
    size = len(payload)
    head = bytes((final << 7 | flags | opcode,))
    if size < 126:
        head += bytes((bool(mask) << 7 | size,))
    elif size < 65536:
        head += bytes((bool(mask) << 7 | 126,)) + size.to_bytes(2, "big")
    else:
        head += bytes((bool(mask) << 7 | 127,)) + size.to_bytes(8, "big")
    return head + mask + bytes(b ^ mask[i % 4] if mask else b for i, b in enumerate(payload))


def rows(packets: Packets) -> list[dict[str, Any]]:
    return websocket.build(packets).collect().to_dicts()


def opened() -> tuple[Packets, Connection]:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(ASK)
    connection.answer(SWITCH)
    return packets, connection


def test_messages_of_both_sides() -> None:
    packets, connection = opened()
    connection.ask(frame(TEXT, b"hello", b"mask"))
    packets.now += 20 * MS
    connection.answer(frame(BINARY, bytes(70_000)), [30_000, 60_000])
    connection.ask(frame(TEXT, bytes(300), b"\1\2\3\4", flags=0x40))
    connection.answer(frame(TEXT, b"one ", final=False) + frame(PING, b"?") + frame(0, b"two"))
    connection.ask(frame(CLOSE, (1001).to_bytes(2, "big") + "göing".encode(), b"abcd"))
    connection.answer(frame(CLOSE, b""))
    found = rows(packets)
    assert [(r["sender"], r["opcode"], r["frames"], r["payload_bytes"]) for r in found] == [
        ("client", "text", 1, 5),
        ("server", "binary", 1, 70_000),
        ("client", "text", 1, 300),
        ("server", "text", 2, 7),
        ("server", "ping", 1, 1),
        ("client", "close", 1, 8),
        ("server", "close", 1, 0),
    ]
    assert [r["compressed"] for r in found] == [False, False, True, False, False, False, False]
    assert (found[5]["close_code"], found[5]["close_reason"]) == (1001, "göing")
    assert (found[6]["close_code"], found[6]["close_reason"]) == (None, None)
    assert found[1]["transfer_ns"] == 2 * MS
    assert (found[2]["gap_ns"], found[0]["gap_ns"]) == (24 * MS, None)
    assert (found[1]["first_frame"], found[1]["last_frame"]) == (7, 9)
    assert {r["client_port"] for r in found} == {40000}
    assert not any(r["cut"] for r in found)


def test_missing_bytes() -> None:
    packets, connection = opened()
    connection.answer(frame(BINARY, bytes(500))[:100])
    connection.lose(SERVER, 404 - 50)
    connection.answer(bytes(50) + frame(TEXT, b"after"))
    connection.ask(frame(TEXT, b"before", b"mask"))
    connection.lose(CLIENT, 40)
    connection.ask(b"\x03end of something")
    connection.lose(CLIENT, 1)
    connection.ask(frame(PING, b"", b"mask") + frame(TEXT, b"again", b"mask"))
    passes = packets.passes = Passes()
    found = rows(packets)
    assert [(r["opcode"], r["payload_bytes"], r["cut"]) for r in found] == [
        ("binary", 500, True),
        ("text", 5, False),
        ("text", 6, False),
        ("ping", 0, False),
        ("text", 5, False),
    ]
    assert passes.counters["websocket_skipped_bytes"] == 17


def test_a_message_that_does_not_end_is_cut() -> None:
    packets, connection = opened()
    connection.answer(frame(TEXT, b"never", final=False))
    connection.ask(frame(BINARY, bytes(100), b"mask")[:50])
    assert [(r["opcode"], r["cut"]) for r in rows(packets)] == [("text", True), ("binary", True)]


@pytest.mark.parametrize(
    "odd",
    [
        b"\x83\0",
        b"\xb1\0",
        b"\x89\x7e\0\x80" + bytes(128),
        b"\x82\x7f" + b"\xff" * 8,
        b"\x82\x7f\0\0" + b"\xff" * 6,
    ],
)
def test_odd_frames_end_the_reading(odd: bytes) -> None:
    packets, connection = opened()
    connection.answer(frame(TEXT, b"first") + odd)
    found = rows(packets)
    assert found[0]["payload_bytes"] == 5
    assert all(row["cut"] for row in found[1:])


CONVERSATION = (
    frame(TEXT, b"a" * 130, b"mask") + frame(BINARY, b"b", b"mask", final=False) + frame(0, b"c", b"mask"),
    frame(PING, b"1") + frame(TEXT, bytes(300)) + frame(CLOSE, b"\x03\xe8bye"),
)


def cut_rows(cuts: list[int], back: list[int], damage: int | None = None) -> list[Any]:
    packets = Packets(step_ns=0)
    connection = Connection(packets)
    asked, answered = CONVERSATION
    if damage is not None:
        rng = random.Random(damage)
        asked, answered = (
            bytes(b ^ (rng.random() < 0.02) * rng.randrange(256) for b in x) for x in CONVERSATION
        )
    connection.ask(ASK + asked, cuts)
    connection.answer(SWITCH + answered, back)
    wanted = ("sender", "opcode", "frames", "payload_bytes", "close_code", "close_reason", "cut")
    return sorted(websocket.build(packets).select(wanted).collect().rows(), key=str)


def test_byte_by_byte_gives_the_same_rows() -> None:
    assert cut_rows(list(range(600)), list(range(600))) == cut_rows([], [])
    assert len(cut_rows([], [])) == 5


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 400), max_size=8), st.lists(st.integers(1, 500), max_size=8), st.integers(0, 99)
)
def test_any_cuts_and_any_damage(cuts: list[int], back: list[int], seed: int) -> None:
    assert cut_rows(cuts, back) == cut_rows([], [])
    assert cut_rows(cuts, back, seed) == cut_rows([], [], seed)


@pytest.mark.corpus
@pytest.mark.parametrize("name", files("websocket"))
def test_as_many_frames_as_tshark_shows(name: str) -> None:
    capture, facts = opened_file(name)
    assert capture.table("websocket").collect()["frames"].sum() == facts["counts"]["websocket_frames"]
