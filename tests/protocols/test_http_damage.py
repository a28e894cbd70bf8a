"""HTTP/1 whose bytes come in any cuts and any order, or do not come at all."""

from __future__ import annotations

import random
from typing import Any

import pytest
from helpers.http_exchange import GET, OK, brief, rows
from helpers.traffic import CLIENT, SERVER, Connection, Packets
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols import http
from stratokit.protocols.base import Passes

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    b"5\r\nhello\r\nB;ext=1\r\n, and world\r\n0\r\nTrailer: x\r\n\r\n"
)


def test_a_body_of_known_length_is_stepped_over_where_it_was_not_captured() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(GET)
    connection.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
    connection.lose(SERVER, 990)
    connection.answer(b"d" * 7)
    connection.ask(GET)
    connection.answer(OK)
    first, second = rows(packets)
    assert (first["response_body_bytes"], first["response_cut"]) == (1000, True)
    assert (second["status"], second["response_cut"]) == (200, False)


def test_reading_goes_on_after_a_gap_and_the_answer_behind_it_is_the_last_requests() -> None:
    packets = Packets()
    connection = Connection(packets)
    for n in range(4):
        connection.ask(b"GET /%d HTTP/1.1\r\n\r\n" % n)
        if n in (1, 2):
            connection.lose(SERVER, 50)
        connection.answer(
            b"HTTP/1.1 20%d OK\r\nContent-Length: 3\r\n\r\nabc" % n if n != 1 else b"tail of a body"
        )
    assert brief(rows(packets)) == [
        ("GET", "/0", 200),
        ("GET", "/1", None),
        ("GET", "/2", 202),
        ("GET", "/3", 203),
    ]


def test_what_belongs_to_no_message_is_counted() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(GET)
    connection.answer(OK)
    connection.lose(SERVER, 50)
    connection.answer(b"tail of a body" + OK)
    passes = packets.passes = Passes()
    rows(packets)
    assert passes.counters["http_skipped_bytes"] == len(b"tail of a body")
    passes.forget()  # who asks again goes through the capture again, and what was skipped was counted
    assert http.build(packets).collect().height
    assert passes.counters["http_skipped_bytes"] == len(b"tail of a body")


def test_a_lost_request_leaves_its_response_alone() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"GET /0 HTTP/1.1\r\n\r\n")
    connection.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    connection.lose(CLIENT, 20)
    connection.answer(b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n")
    connection.ask(b"GET /2 HTTP/1.1\r\n\r\n")
    connection.answer(b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n")
    assert brief(rows(packets)) == [("GET", "/0", 200), (None, None, 201), ("GET", "/2", 202)]


def test_the_answer_to_an_unseen_head_has_no_body() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.lose(CLIENT, 20)
    connection.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    connection.ask(GET)
    connection.answer(OK)
    assert [row["status"] for row in rows(packets)] == [200, 200]


def test_a_head_cut_by_the_capture_gives_what_is_there() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(GET[:40])
    connection.lose(CLIENT, len(GET) - 40)
    connection.answer(OK[:30])
    connection.lose(SERVER, len(OK) - 30)
    connection.ask(GET)
    connection.answer(OK)
    first, second = rows(packets)
    assert (first["method"], first["host"], first["status"], first["content_type"]) == (
        "GET",
        None,
        200,
        None,
    )
    assert first["request_cut"]
    assert first["response_cut"]
    assert first["request_body_bytes"] is None
    assert brief([second]) == [("GET", "/a?b=c", 200)]


def test_packets_cut_short_by_the_snap_length() -> None:
    packets = Packets()
    connection = Connection(packets)
    for n in range(3):
        connection.ask(b"GET /%d HTTP/1.1\r\nHost: h\r\nCookie: %s\r\n\r\n" % (n, b"c" * 200))
        connection.answer(OK.replace(b"hello", b"h" * 500).replace(b": 5", b": 500"))
    for row in packets.added:
        row["data"] = row["data"][: 40 + 64]
    found = rows(packets)
    assert brief(found) == [("GET", f"/{n}", 200) for n in range(3)]
    assert [row["host"] for row in found] == ["h"] * 3


@pytest.mark.parametrize(
    ("kept", "path", "version", "status"),
    [
        (9, None, None, None),  # GET /0?a=
        (13, None, None, 200),
        (15, "/0?a=bcdef", None, 200),
        (18, "/0?a=bcdef", None, 200),
        (24, "/0?a=bcdef", "HTTP/1.1", 200),
    ],
)
def test_start_lines_cut_short_by_the_snap_length(kept, path, version, status) -> None:
    packets = Packets()
    connection = Connection(packets)
    for n in range(2):
        connection.ask(b"GET /%d?a=bcdef HTTP/1.1\r\nHost: h\r\n\r\n" % n)
        connection.answer(OK)
    for row in packets.added:
        row["data"] = row["data"][: 40 + kept]
    found = rows(packets)
    assert [row["path"] for row in found] == [path, path and "/1?a=bcdef"]
    columns = ("method", "version", "status", "request_cut", "response_cut")
    expected = ("GET", version, status, True, status and True)
    assert [tuple(row[name] for name in columns) for row in found] == [expected] * 2


def test_a_target_with_blanks_that_is_cut_is_not_guessed() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"GET /a b HT")
    connection.lose(CLIENT, 20)
    (row,) = rows(packets)
    assert (row["method"], row["path"]) == ("GET", None)


CONVERSATION = (
    GET + b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nT: 1\r\n\r\n" + GET,
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + CHUNKED + b"HTTP/1.1 500 X\r\n\r\nuntil the end",
)
INDEPENDENT_OF_CUTS = (
    "method", "path", "host", "version", "user_agent", "status", "content_type", "request_bytes",
    "response_bytes", "request_body_bytes", "response_body_bytes", "request_cut", "response_cut",
)  # fmt: skip


def cut_rows(cuts: list[int], back_cuts: list[int], seed: int | None = None) -> list[dict[str, Any]]:
    packets = Packets(step_ns=0)
    connection = Connection(packets)
    connection.ask(CONVERSATION[0], cuts)
    connection.answer(CONVERSATION[1], back_cuts)
    connection.close()
    if seed is not None:
        random.Random(seed).shuffle(packets.added)
    frame = http.build(packets).select(INDEPENDENT_OF_CUTS).collect()
    return frame.to_dicts()


def test_byte_by_byte_gives_the_same_rows() -> None:
    whole = cut_rows([], [])
    assert [(row["path"], row["status"]) for row in whole] == [("/a?b=c", 200), ("/x", 200), ("/a?b=c", 500)]
    assert cut_rows(list(range(1000)), list(range(1000))) == whole


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, len(CONVERSATION[0])), max_size=10),
    st.lists(st.integers(1, len(CONVERSATION[1])), max_size=10),
    st.integers(0, 2**32),
)
def test_any_cuts_in_any_order_give_the_same_rows(cuts: list[int], back_cuts: list[int], seed: int) -> None:
    assert cut_rows(cuts, back_cuts, seed) == cut_rows([], [])
