"""HTTP/2: what is read from frames made by hand, and how it is joined."""

from __future__ import annotations

from helpers.http2_exchange import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
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
from helpers.traffic import MS

from stratokit.protocols.base import Passes


def test_a_request_and_its_response() -> None:
    x = Exchange()
    x.ask(x.client.headers(1, request("/a?b=c", user_agent="test/1")))
    x.packets.now += 9 * MS
    x.answer(x.server.headers(1, response(201, content_type="text/plain", content_encoding="br"), end=False))
    x.answer(frame(DATA, 0, 1, b"hello") + frame(DATA, END_STREAM, 1, b", world"))
    (row,) = x.http()
    assert (row["method"], row["path"], row["host"], row["version"]) == (
        "GET",
        "/a?b=c",
        "shop.example",
        "HTTP/2",
    )
    assert (row["user_agent"], row["content_type"], row["content_encoding"]) == ("test/1", "text/plain", "br")
    assert (row["status"], row["stream_id"]) == (201, 1)
    assert (row["latency_ns"], row["wait_ns"], row["transfer_ns"]) == (10 * MS, 10 * MS, MS)
    assert (row["request_body_bytes"], row["response_body_bytes"]) == (0, 12)
    assert (row["request_frame"], row["response_frame"], row["response_last_frame"]) == (6, 7, 8)
    assert (row["request_cut"], row["response_cut"], row["reset"]) == (False, False, None)
    assert (row["request_stall_ns"], row["response_stall_ns"]) == (0, 0)
    (connection,) = x.http2()
    assert (connection["began"], connection["streams"], connection["unknown_fields"]) == (True, 1, 0)
    assert (connection["frames_c2s"], connection["frames_s2c"]) == (2, 4)


def test_streams_that_overlap_and_interim_responses_and_trailers() -> None:
    x = Exchange()
    x.ask(x.client.headers(1, request("/1"), end=False) + x.client.headers(3, request("/3")))
    x.answer(x.server.headers(1, response(100), end=False))
    x.answer(x.server.headers(3, response(404)))
    x.ask(frame(DATA, 0, 1, b"body") + x.client.headers(1, {"checksum": "1"}))
    x.answer(x.server.headers(1, response(200), end=False) + frame(DATA, 0, 1, b"ok"))
    x.answer(x.server.headers(1, {"trailer": "x"}))
    first, third = sorted(x.http(), key=lambda row: row["stream_id"])
    assert (first["path"], first["status"], first["request_body_bytes"]) == ("/1", 200, 4)
    assert (first["request_last_frame"], first["response_frame"], first["response_last_frame"]) == (9, 10, 11)
    assert (first["request_cut"], first["response_cut"]) == (False, False)
    assert (third["path"], third["status"]) == ("/3", 404)


def test_continuation_and_padding() -> None:
    x = Exchange()
    fields = request("/long", cookie="c" * 2000)
    block = x.client.encoder.encode(list(fields.items()))
    parts = [block[:1], b"", block[1:50], block[50:]]
    x.ask(frame(HEADERS, END_STREAM | PADDED, 1, b"\x03" + parts[0] + bytes(3)))
    x.ask(b"".join(frame(CONTINUATION, 0, 1, part) for part in parts[1:3]))
    x.ask(frame(CONTINUATION, END_HEADERS, 1, parts[3]) + x.client.headers(3, request("/next")))
    x.answer(x.server.headers(1, response(200), end=False) + frame(DATA, PADDED | END_STREAM, 1, b"\x02okpp"))
    rows = x.http()
    assert [(row["path"], row["status"]) for row in rows] == [("/long", 200), ("/next", None)]
    assert rows[0]["response_body_bytes"] == 2
    assert rows[0]["request_bytes"] == len(block) + 4 + 4 * 9


def test_resets_and_goaway() -> None:
    x = Exchange()
    x.ask(x.client.headers(1, request()) + x.client.headers(3, request()))
    x.ask(frame(RST_STREAM, 0, 1, (8).to_bytes(4, "big")) + frame(PING, 0, 0, bytes(8)))
    x.answer(frame(PING, 1, 0, bytes(8)) + frame(RST_STREAM, 0, 3, (7).to_bytes(4, "big")))
    x.answer(frame(GOAWAY, 0, 0, (3).to_bytes(4, "big") + (11).to_bytes(4, "big") + b"too much"))
    rows = x.http()
    assert [(row["reset"], row["reset_by"]) for row in rows] == [
        ("CANCEL", "client"),
        ("REFUSED_STREAM", "server"),
    ]
    assert [row["status"] for row in rows] == [None, None]
    (connection,) = x.http2()
    assert (connection["goaway"], connection["goaway_by"]) == ("ENHANCE_YOUR_CALM", "server")
    assert (connection["goaway_last_stream"], connection["goaway_frame"], connection["pings"]) == (3, 9, 1)
    assert (connection["resets_by_client"], connection["resets_by_server"]) == (1, 1)


def test_a_pushed_response() -> None:
    x = Exchange()
    x.ask(x.client.headers(1, request("/page")))
    promise = x.server.encoder.encode(list(request("/style").items()))
    x.answer(frame(PUSH_PROMISE, END_HEADERS, 1, (2).to_bytes(4, "big") + promise))
    x.answer(x.server.headers(1, response(200)) + x.server.headers(2, response(206)))
    assert [(r["stream_id"], r["path"], r["status"]) for r in x.http()] == [
        (1, "/page", 200),
        (2, "/style", 206),
    ]


def test_stalls_of_a_stream_and_of_the_connection() -> None:
    x = Exchange(begin=False)
    x.ask(PREFACE + settings(window=10))
    x.answer(settings(max_streams=7))
    x.ask(x.client.headers(1, request()) + x.client.headers(3, request()))
    x.answer(x.server.headers(1, response(), end=False) + frame(DATA, 0, 1, bytes(10)))  # at 7 ms
    x.packets.now += 40 * MS
    x.ask(window(1, 70_000))  # at 48 ms
    x.packets.now += 100 * MS
    x.answer(frame(DATA, 0, 1, bytes(65_535 - 10)), range(0, 65_000, 30_000))  # empties the connection's
    x.packets.now += 20 * MS
    x.ask(window(0, 100_000) + window(3, 5))
    x.answer(frame(DATA, END_STREAM, 1, b"end") + x.server.headers(3, response()))
    first, third = x.http()
    # The last byte of the large frame comes two packets after its first.
    assert first["response_stall_ns"] == 41 * MS + 23 * MS
    assert third["response_stall_ns"] == first["request_stall_ns"] == 0
    (connection,) = x.http2()
    assert (connection["server_stall_ns"], connection["client_stall_ns"]) == (23 * MS, 0)
    assert connection["server_max_streams"] == 7


def test_a_connection_that_began_before_the_capture() -> None:
    x = Exchange(handshake=False, begin=False)
    x.client.headers(1, request("/old", cookie="secret"))
    x.server.headers(1, response(200, server="nginx"))
    x.ask(x.client.headers(3, request("/new", cookie="secret")) + window(0, 100))
    x.answer(x.server.headers(3, response(204, server="nginx")))
    x.ask(x.client.headers(5, request("/new")))
    x.answer(x.server.headers(5, response(204)))
    third, fifth = x.http()
    # What is in the static table or was sent in full is known; ":authority" was in the table before.
    assert (third["method"], third["path"], third["host"], third["status"]) == ("GET", "/new", None, 204)
    assert (fifth["method"], fifth["path"], fifth["status"]) == ("GET", "/new", 204)
    assert third["response_stall_ns"] is None
    (connection,) = x.http2()
    assert (connection["began"], connection["unknown_fields"]) == (False, 4)


def test_missing_bytes_inside_data_are_stepped_over() -> None:
    x = Exchange()
    x.ask(x.client.headers(1, request("/1")))
    large = frame(DATA, END_STREAM, 1, bytes(5000))
    x.answer(x.server.headers(1, response(200, server="nginx"), end=False) + large[:1000])
    x.lose(False, 3000)
    x.answer(large[4000:])
    x.ask(x.client.headers(3, request("/3")))
    x.answer(x.server.headers(3, response(200, server="nginx")))
    first, third = x.http()
    assert (first["status"], first["response_body_bytes"], first["response_cut"]) == (200, 5000, True)
    assert (third["status"], third["response_cut"]) == (200, False)
    (connection,) = x.http2()
    assert (connection["unknown_fields"], connection["unread_blocks"], connection["skipped_bytes"]) == (
        0,
        0,
        0,
    )


def test_missing_header_blocks_make_later_fields_unknown_and_are_counted() -> None:
    x = Exchange()
    x.ask(x.client.headers(1, request("/1")))
    x.answer(x.server.headers(1, response(200)))
    lost = x.client.headers(3, request("/3", user_agent="unseen"))
    x.lose(True, len(lost))
    again = x.client.headers(5, request("/5", user_agent="unseen"))
    x.ask(again + x.client.headers(7, request("/7", user_agent="seen")))
    x.answer(x.server.headers(3, response(200)) + x.server.headers(5, response(500)))
    passes = x.packets.passes = Passes()
    rows = {row["stream_id"]: row for row in x.http()}
    assert (rows[3]["path"], rows[3]["status"]) == (None, 200)
    assert (rows[5]["path"], rows[5]["method"], rows[5]["user_agent"]) == ("/5", "GET", None)
    assert (rows[7]["path"], rows[7]["user_agent"]) == ("/7", "seen")
    assert passes.counters["http2_unread_blocks"] == 1


def test_upgrade_from_http1() -> None:
    x = Exchange(begin=False)
    x.ask(
        b"GET /up HTTP/1.1\r\nHost: h\r\nUser-Agent: curl\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    )
    x.answer(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + settings())
    x.ask(PREFACE + settings())
    x.answer(x.server.headers(1, response(200, content_type="text/html"), end=False))
    x.answer(frame(DATA, END_STREAM, 1, b"abc"))
    x.ask(x.client.headers(3, request("/next")))
    x.answer(x.server.headers(3, response(304)))
    first, third = x.http()
    assert (first["method"], first["path"], first["host"], first["status"]) == ("GET", "/up", "h", 200)
    assert (first["version"], first["stream_id"], first["response_body_bytes"]) == ("HTTP/1.1", 1, 3)
    assert (first["request_frame"], first["response_frame"], first["response_last_frame"]) == (4, 7, 8)
    assert first["latency_ns"] == 3 * MS
    assert (third["path"], third["status"], third["version"]) == ("/next", 304, "HTTP/2")


def message(size: int, compressed: int = 0) -> bytes:
    return bytes((compressed,)) + size.to_bytes(4, "big") + bytes(size)


def test_grpc_calls() -> None:
    x = Exchange()
    call = request(
        "/demo.Echo/Chat", "POST", content_type="application/grpc+proto", grpc_timeout="250m", te="trailers"
    )
    asked = message(3) + message(0) + message(300, 1)
    x.ask(x.client.headers(1, call, end=False))
    for part in (asked[:2], asked[2:6], asked[6:]):
        x.ask(frame(DATA, 0, 1, part))
    x.ask(frame(DATA, END_STREAM, 1))
    x.answer(x.server.headers(1, response(200, content_type="application/grpc"), end=False))
    x.answer(frame(DATA, 0, 1, message(70_000)), [20_000, 40_000])
    x.answer(x.server.headers(1, {"grpc-status": "5", "grpc-message": "no such k%C3%A4se"}))
    x.ask(x.client.headers(3, call | {":path": "/demo.Echo/Nope"}))
    x.answer(x.server.headers(3, response(200, content_type="application/grpc", grpc_status="12")))
    first, third = x.grpc()
    assert (first["service"], first["method"], first["host"]) == ("demo.Echo", "Chat", "shop.example")
    assert (first["status"], first["status_name"], first["message"]) == (5, "NOT_FOUND", "no such käse")
    assert (first["http_status"], first["deadline_ns"]) == (200, 250 * MS)
    assert (first["request_messages"], first["request_message_bytes"]) == (3, 303)
    assert (first["response_messages"], first["response_message_bytes"]) == (1, 70_000)
    assert (third["method"], third["status_name"], third["response_messages"]) == ("Nope", "UNIMPLEMENTED", 0)
    assert len(x.http()) == 2


def test_grpc_messages_that_are_not_all_there_are_not_counted() -> None:
    x = Exchange()
    call = request("/demo.Echo/Chat", "POST", content_type="application/grpc")
    x.ask(x.client.headers(1, call, end=False) + frame(DATA, 0, 1, message(100))[:50])
    x.lose(True, 64)
    x.ask(frame(DATA, END_STREAM, 1, message(1)))
    x.answer(x.server.headers(1, response(200, content_type="application/grpc", grpc_status="0")))
    (row,) = x.grpc()
    assert (row["request_messages"], row["response_messages"], row["status_name"]) == (None, 0, "OK")


def test_the_client_may_be_the_one_who_was_connected_to() -> None:
    x = Exchange(begin=False)
    side = Side()
    x.answer(PREFACE + settings() + side.headers(1, request("/back")))
    x.ask(settings() + x.server.headers(1, response(200)))
    (row,) = x.http()
    assert (row["path"], row["status"], row["client_ip"]) == ("/back", 200, "10.0.0.2")
