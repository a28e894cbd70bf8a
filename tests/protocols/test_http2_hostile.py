"""HTTP/2 in any cuts, in any damage, and in numbers that want to do harm."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pytest
from helpers.http2_exchange import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    Exchange,
    Side,
    frame,
    request,
    response,
    settings,
    window,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stratokit.protocols import grpc, http, http2, http2_packets
from stratokit.protocols.base import Passes


def conversation() -> tuple[bytes, bytes]:
    """Both directions of a connection with some of everything."""
    client, server = Side(), Side()
    block = client.encoder.encode(list(request("/long", cookie="c" * 90).items()))
    call = request("/a.B/C", "POST", content_type="application/grpc", grpc_timeout="1S")
    asked = [
        PREFACE + settings(window=100),
        client.headers(1, request("/1")),
        frame(HEADERS, END_STREAM, 3, block[:7]) + frame(CONTINUATION, END_HEADERS, 3, block[7:]),
        client.headers(5, call, end=False) + frame(DATA, 0, 5, b"\0\0\0\0\x03abc\0\0"),
        frame(DATA, END_STREAM | PADDED, 5, b"\x02\0\0\x01x\0\0") + window(0, 7) + window(1, 70),
        frame(RST_STREAM, 0, 7, bytes(4)),
    ]
    promise = server.encoder.encode(list(request("/push").items()))
    answered = [
        settings(max_streams=9),
        server.headers(1, response(103), end=False) + server.headers(1, response(200), end=False),
        frame(DATA, 0, 1, bytes(100)) + frame(PUSH_PROMISE, END_HEADERS, 1, bytes((0, 0, 0, 2)) + promise),
        frame(DATA, END_STREAM, 1, bytes(70)) + server.headers(3, response(404)),
        server.headers(5, response(200, content_type="application/grpc"), end=False),
        server.headers(5, {"grpc-status": "0", "grpc-message": "a%20b"}) + server.headers(2, response(200)),
        frame(GOAWAY, 0, 0, bytes(8)),
    ]
    return b"".join(asked), b"".join(answered)


CONVERSATION = conversation()
INDEPENDENT = (
    "stream_id", "method", "path", "host", "status", "request_bytes", "response_bytes", "request_body_bytes",
    "response_body_bytes", "request_cut", "response_cut", "reset", "reset_by", "content_type",
)  # fmt: skip
OF_CALLS = ("service", "method", "status", "message", "request_messages", "request_message_bytes")


def rows(cuts: list[int], back: list[int]) -> list[Any]:
    x = Exchange(begin=False, step_ns=0)
    x.ask(CONVERSATION[0], cuts)
    x.answer(CONVERSATION[1], back)
    calls = grpc.build(x.packets).select(OF_CALLS).collect().to_dicts()
    found = http.build(x.packets).select(INDEPENDENT).sort("stream_id").collect().to_dicts()
    return [
        found,
        calls,
        *http2.build(x.packets).select("streams", "frames_c2s", "frames_s2c").collect().rows(),
    ]


def test_byte_by_byte_gives_the_same_rows() -> None:
    whole = rows([], [])
    assert [(r["path"], r["status"]) for r in whole[0]] == [
        ("/1", 200),
        ("/push", 200),
        ("/long", 404),
        ("/a.B/C", 200),
    ]
    assert whole[1] == [dict(zip(OF_CALLS, ("a.B", "C", 0, "a b", 2, 4), strict=True))]
    assert rows(list(range(2000)), list(range(2000))) == whole


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=8), st.lists(st.integers(1, 700), max_size=8))
def test_any_cuts_give_the_same_rows(cuts: list[int], back: list[int]) -> None:
    assert rows(cuts, back) == rows([], [])


def test_a_million_streams_and_fields_and_a_block_without_end() -> None:
    x = Exchange()
    x.ask(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, b"\x82") for n in range(100_000)))
    x.answer(x.server.headers(1, response(200)))
    assert len(x.http()) == 100_000
    x = Exchange()
    million = b"\x82" * 1_000_000
    first = frame(HEADERS, END_STREAM, 1, million[:16_000])
    rest = [frame(CONTINUATION, 0, 1, million[n : n + 16_000]) for n in range(16_000, 1_000_000, 16_000)]
    x.ask(first + b"".join(rest) + frame(CONTINUATION, END_HEADERS, 1, b"\x84"))
    assert [(row["method"], row["path"]) for row in x.http()] == [("GET", "/")]
    x = Exchange()
    x.ask(first + b"".join(rest) * 2 + frame(CONTINUATION, END_HEADERS, 1, b"\x84"))
    x.ask(x.client.headers(3, request("/next")))
    assert [row["path"] for row in x.http()] == [None, "/next"]
    assert x.http2()[0]["unread_blocks"] == 1


@pytest.mark.parametrize(
    "odd",
    [
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        frame(HEADERS, PADDED | END_HEADERS, 9, b"\xff"),
        frame(HEADERS, PADDED, 9),
        frame(DATA, PADDED, 1, b"\x09"),
        frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0"),
        frame(CONTINUATION, END_HEADERS, 1, b"\x82"),
        frame(RST_STREAM, 0, 1, b"\0"),
        frame(GOAWAY, 0, 0, b"\0"),
        frame(4, 0, 0, b"\0\4\xff\xff\xff\xff"),
        window(0, 0x7FFFFFFF) * 3,
        frame(0xBE, 0xFF, 0x7FFFFFFF, b"an extension"),
        frame(HEADERS, END_HEADERS, 9, b"\x40\x85\xff\xff\xff\xff\xff"),
    ],
)
def test_odd_frames_do_no_harm(odd: bytes) -> None:
    x = Exchange()
    x.ask(x.client.headers(1, request("/1")) + odd)
    x.answer(x.server.headers(1, response(200)))
    assert [row["status"] for row in x.http() if row["stream_id"] == 1] == [200]


def damaged(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0:
                out[at : at + 1] = rng.randbytes(rng.randint(1, 4))
            case 1:
                del out[at : at + rng.randint(1, 30)]
            case 2:
                other = rng.choice(CONVERSATION)
                begin = rng.randrange(len(other))
                out[at:at] = other[begin : begin + rng.randint(1, 60)]
            case 3:
                out[at : at + 3] = rng.choice([b"\xff\xff\xff", b"\0\0\0", b"\0\x40\0"])
            case _:
                del out[max(at, 40) :]
    return bytes(out)


def check(seed: int) -> None:
    rng = random.Random(seed)
    x = Exchange(begin=False, handshake=rng.random() < 0.6)
    for client in (True, False):
        data = damaged(rng, CONVERSATION[not client]) if rng.random() < 0.8 else CONVERSATION[not client]
        data = data[rng.randint(24, 60) :] if rng.random() < 0.3 else data
        while data:
            part = data[: rng.randint(1, 200)]
            data = data[len(part) :]
            if rng.random() < 0.1:
                x.lose(client, len(part))
            else:
                (x.ask if client else x.answer)(part)
    for build in (http.build, http2.build, grpc.build, http2_packets.build):
        found = build(x.packets).collect()
        for column in found.columns:
            if column.endswith(("_bytes", "_stall_ns", "transfer_ns", "_messages", "_fields")):
                assert (found[column].drop_nulls() >= 0).all(), (seed, column)


def walked(data: bytes) -> list[tuple[int, int, int, int]]:
    """(type, flags, stream, length) of the frames of a direction, one after the other."""
    at, found = len(PREFACE) * data.startswith(PREFACE), []
    while at < len(data):
        length = int.from_bytes(data[at : at + 3])
        stream = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFFFFFF
        found.append((data[at + 3], data[at + 4], stream, length))
        at += 9 + length
    return found


def frames(asked: bytes, answered: bytes, cuts: list[int], back: list[int]) -> pl.DataFrame:
    x = Exchange(begin=False, step_ns=0)
    x.packets.passes = Passes()
    x.ask(asked, cuts)
    x.answer(answered, back)
    found = http2_packets.build(x.packets).collect()
    assert set(found["frame"]) <= {row["frame"] for row in x.packets.added}
    return found.drop("frame")


OF_A_FRAME = ("type", "flags", "streamid", "length")


def test_frames_are_those_that_a_simple_walk_finds() -> None:
    found = frames(*CONVERSATION, [], []).select(OF_A_FRAME).drop_nulls().rows()
    assert found == [row for data in CONVERSATION for row in walked(data)]


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), *[st.lists(st.integers(1, 700), max_size=8)] * 2)
def test_any_cuts_of_damaged_frames_give_the_same_frames(seed: int, cuts: list[int], back: list[int]) -> None:
    rng = random.Random(seed)
    both = [damaged(rng, data) for data in CONVERSATION]
    assert frames(*both, cuts, back).equals(frames(*both, [], []))


@pytest.mark.parametrize("seed", range(40))
def test_damaged_connections(seed: int) -> None:
    check(seed)
