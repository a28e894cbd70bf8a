"""Which packets have which fields of HTTP/2: the one that completes a frame, or a header block."""

from __future__ import annotations

from helpers.http2_exchange import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    Exchange,
    frame,
    request,
    response,
    settings,
)

from stratokit.protocols import http2_packets
from stratokit.protocols.base import Passes


def rows(x: Exchange) -> list[dict]:
    x.packets.passes = Passes()
    return http2_packets.build(x.packets).collect().to_dicts()


def of_frames(x: Exchange) -> list[tuple]:
    """(packet, type, flags, stream, length) of each, in order of packets."""
    names = ("frame", "type", "flags", "streamid", "length")
    found = [tuple(row[name] for name in names) for row in rows(x) if row["type"] is not None]
    return sorted(found)


def test_frames_stand_in_the_packets_that_complete_them():
    x = Exchange()
    x.ask(x.client.headers(1, request("/a")))
    before = len(of_frames(x))
    data = frame(DATA, END_STREAM, 1, b"d" * 2000)
    x.answer(x.server.headers(1, response(200), end=False) + data[:1000])
    x.answer(data[1000:] + frame(6, 0, 0, bytes(8)))
    added = of_frames(x)[before:]
    assert [row[1:4] for row in added] == [(HEADERS, END_HEADERS, 1), (DATA, END_STREAM, 1), (6, 0, 0)]
    assert added[1][4] == 2000
    assert added[1][0] == added[2][0] == added[0][0] + 1


def test_fields_of_a_header_block_stand_where_it_is_complete():
    x = Exchange()
    block = x.client.encoder.encode(list(request("/long").items()))
    x.ask(frame(HEADERS, END_STREAM, 1, block[:5]))
    x.ask(frame(CONTINUATION, 0, 1, block[5:9]))
    x.ask(frame(CONTINUATION, END_HEADERS, 1, block[9:]))
    x.answer(x.server.headers(1, response(100), end=False))
    x.answer(x.server.headers(1, response(204, content_type="text/x")))
    parts = [row[0] for row in of_frames(x) if row[1] in (HEADERS, CONTINUATION) and row[3] == 1]
    told = [row for row in rows(x) if row["header.name"]]
    asked = [row for row in told if row["frame"] == parts[2]]
    assert [(row["header.name"], row["header.value"]) for row in asked] == list(request("/long").items())
    assert [row["headers.path"] for row in asked if row["headers.path"]] == ["/long"]
    assert all(row["header.value.length"] == len(row["header.value"]) for row in asked)
    # Each header block has its own fields, an interim response too.
    answered = [
        (row["frame"], row["headers.status"], row["headers.content_type"]) for row in told[len(asked) :]
    ]
    assert answered == [(parts[3], 100, None), (parts[4], 204, None), (parts[4], None, "text/x")]


def test_what_cannot_be_read_is_left_out_and_what_follows_is_not():
    """A name that stood in a table before the capture began; a block that is none."""
    x = Exchange()
    x.ask(x.client.headers(1, request("/a")))
    x.ask(frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x80"))
    x.ask(frame(HEADERS, END_HEADERS | END_STREAM, 5, b"\xfe\x40\x01a\x01b"))
    told = [(row["header.name"], row["header.value"]) for row in rows(x) if row["header.value"]]
    assert told == [*request("/a").items(), ("a", "b")]


def test_messages_of_grpc_stand_where_their_last_frame_is_complete():
    def message(size: int, compressed: int = 0) -> bytes:
        return bytes([compressed]) + size.to_bytes(4, "big") + bytes(size)

    x = Exchange()
    x.ask(x.client.headers(1, request("/a", "POST", content_type="application/grpc"), end=False))
    x.ask(frame(DATA, 0, 1, message(3) + message(0, 1) + message(70_000)[:16_000]))
    x.ask(frame(DATA, 0, 1, message(70_000)[16_000:32_000]))
    x.ask(frame(DATA, END_STREAM, 1, message(70_000)[32_000:] + message(5)[:4]))
    x.ask(x.client.headers(3, request("/b", "POST"), end=False))
    x.ask(frame(DATA, END_STREAM, 3, message(3)))
    data = [row[0] for row in of_frames(x) if row[1] == DATA]
    found = http2_packets.build_grpc(x.packets).collect().rows()
    assert found == [(data[0], 0, 3), (data[0], 1, 0), (data[2], 0, 70_000)]


def test_a_frame_that_was_not_captured_to_its_end_is_none():
    x = Exchange()
    x.ask(x.client.headers(1, request("/a")))
    whole = of_frames(x)
    x.answer(x.server.headers(1, response(200), end=False) + frame(DATA, 0, 1, b"d" * 500)[:100])
    assert [row[1] for row in of_frames(x)[len(whole) :]] == [HEADERS]


def test_what_a_server_says_first_counts_though_what_follows_is_cut():
    x = Exchange(begin=False)
    x.ask(PREFACE + settings())
    x.answer(settings() + frame(6, 0, 0, bytes(8))[:5])
    assert [row[1:4] for row in of_frames(x)] == [(4, 0, 0), (4, 0, 0)]


def test_the_preface_is_a_row_without_a_frame():
    x = Exchange()
    x.ask(settings())
    (preface,) = [row for row in rows(x) if row["type"] is None]
    assert preface["frame"] is not None
    assert preface["streamid"] is None
