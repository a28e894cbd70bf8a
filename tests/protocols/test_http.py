"""HTTP/1: what is read from literal bytes, and which answer belongs to which request."""

from __future__ import annotations

import pytest
from helpers.http_exchange import GET, OK, brief, exchange, rows
from helpers.traffic import CLIENT, FIN, ISN, LOCAL_CLIENT, LOCAL_SERVER, MS, SERVER, Connection, End, Packets


def test_a_request_and_its_response() -> None:
    packets = Packets()
    connection = Connection(packets)
    packets.now = 100 * MS
    connection.ask(GET, [10])
    packets.now = 150 * MS
    connection.answer(OK, [20, 60])
    (row,) = rows(packets)
    assert row["ts_request"] == 100 * MS
    assert row["ts_response"] == 150 * MS
    assert (row["latency_ns"], row["wait_ns"], row["transfer_ns"]) == (50 * MS, 49 * MS, 2 * MS)
    assert (row["method"], row["path"], row["version"]) == ("GET", "/a?b=c", "HTTP/1.1")
    assert (row["host"], row["user_agent"]) == ("shop.example", "test/1")
    assert (row["status"], row["content_type"]) == (200, "text/plain")
    assert (row["request_bytes"], row["response_bytes"]) == (len(GET), len(OK))
    assert (row["request_body_bytes"], row["response_body_bytes"]) == (0, 5)
    assert (row["request_frame"], row["request_last_frame"]) == (4, 5)
    assert (row["response_frame"], row["response_last_frame"]) == (6, 8)
    assert (row["client_ip"], row["client_port"], row["server_port"]) == ("10.0.0.1", 40000, 8080)
    assert not row["request_cut"]
    assert not row["response_cut"]
    assert row["stream_id"] is row["pid"] is row["server_latency_ns"] is None


def test_both_ends_of_a_local_request_are_in_one_row() -> None:
    packets = Packets(carry_ns=250_000)
    connection = Connection(packets, LOCAL_CLIENT, LOCAL_SERVER)
    connection.ask(GET)
    packets.now += 9 * MS
    connection.answer(OK)
    (row,) = rows(packets)
    assert row["latency_ns"] == 10 * MS + 250_000
    assert row["server_latency_ns"] == 10 * MS - 250_000
    assert (row["pid"], row["comm"], row["pod"]) == (10, "curl", "shop-1")
    assert (row["server_pid"], row["server_comm"], row["server_pod"]) == (20, "nginx", "web-1")


def test_only_the_servers_end_was_recorded() -> None:
    packets = Packets()
    connection = Connection(packets, CLIENT, LOCAL_SERVER)
    connection.ask(GET)
    connection.answer(OK)
    (row,) = rows(packets)
    assert (row["pid"], row["server_pid"]) == (None, 20)
    assert row["server_latency_ns"] == row["latency_ns"]


def test_keep_alive_and_pipelining_answer_in_order() -> None:
    def get(n: int) -> bytes:
        return b"GET /%d HTTP/1.1\r\n\r\n" % n

    def status(n: int) -> bytes:
        return b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % n

    found = exchange(
        get(1), status(201), get(2) + get(3) + get(4), status(202) + status(203), b"", status(404)
    )
    assert brief(found) == [("GET", f"/{n}", 200 + n) for n in (1, 2, 3)] + [("GET", "/4", 404)]


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    b"5\r\nhello\r\nB;ext=1\r\n, and world\r\n0\r\nTrailer: x\r\n\r\n"
)


@pytest.mark.parametrize(
    ("request_", "response", "body"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, 5),
        (b"GET / HTTP/1.1\r\n\r\n", CHUNKED, 16),
        (b"GET / HTTP/1.1\n\n", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab", 2),
        (b"\r\nGET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200\r\ncontent-length:  2 \r\n\r\nab", 2),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\n0\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 1\r\n\r\nx", 1),
    ],
)
def test_where_a_response_ends(request_: bytes, response: bytes, body: int) -> None:
    first, second = exchange(request_, response, GET, OK)
    assert first["response_body_bytes"] == body
    assert first["request_body_bytes"] == 0
    assert first["status"] in (200, 204, 304)
    assert brief([second]) == [("GET", "/a?b=c", 200)]


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET ", 4),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 3),
        (b"PATCH / HTTP/1.1\r\n\r\n", 0),
    ],
)
def test_where_a_request_ends(request_: bytes, body: int) -> None:
    first, second = exchange(request_ + GET, OK + OK)
    assert first["request_body_bytes"] == body
    assert first["request_bytes"] == len(request_)
    assert brief([second]) == [("GET", "/a?b=c", 200)]


def test_a_response_may_end_with_the_connection() -> None:
    response = b"HTTP/1.0 200 OK\r\n\r\nall that follows HTTP/1.1 500 is body"
    (row,) = exchange(b"GET / HTTP/1.0\r\n\r\n", response, close=True)
    assert (row["version"], row["response_body_bytes"], row["response_cut"]) == ("HTTP/1.0", 37, False)


def test_what_follows_connect_and_upgrade_is_another_protocol() -> None:
    tunnel = b"\x16\x03\x01 GET / HTTP/1.1\r\n\r\n"
    connect = b"CONNECT a:443 HTTP/1.1\r\n\r\n"
    connected = exchange(connect, b"HTTP/1.1 200 OK\r\n\r\n", tunnel, b"\x16\x03\x03")
    assert brief(connected) == [("CONNECT", "a:443", 200)]
    upgrade = b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    assert brief(exchange(upgrade, switched, b"\x81\x05GET /", b"\x81\x04HTTP")) == [("GET", "/chat", 101)]
    assert brief(exchange(upgrade, OK, GET, OK)) == [("GET", "/chat", 200), ("GET", "/a?b=c", 200)]
    refused = b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n"
    assert brief(exchange(connect, refused, connect, b"HTTP/1.1 200 OK\r\n\r\n")) == [
        ("CONNECT", "a:443", 407),
        ("CONNECT", "a:443", 200),
    ]


def test_http_inside_a_tunnel_is_read_with_the_times_of_the_packets_outside() -> None:
    asked = b"CONNECT a:80 HTTP/1.1\r\n\r\n" + GET
    first, second = exchange(asked, b"HTTP/1.1 200 OK\r\n\r\n" + OK, GET, b"")[:2]
    assert brief([first, second]) == [("CONNECT", "a:80", 200), ("GET", "/a?b=c", 200)]
    assert (second["request_frame"], second["response_frame"]) == (4, 5)
    assert (second["request_bytes"], second["response_bytes"]) == (len(GET), len(OK))


def test_a_continued_value_is_one() -> None:
    folded = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: one\r\n\t two \r\n three\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"
    (row,) = exchange(folded, answer)
    assert (row["host"], row["user_agent"], row["content_encoding"]) == ("a", "one two three", "gzip")


def test_unanswered_and_unasked_stay_with_nulls() -> None:
    (row,) = exchange(GET)
    assert row["status"] is row["ts_response"] is row["latency_ns"] is row["response_cut"] is None
    (row,) = exchange(b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    assert row["method"] is row["path"] is row["ts_request"] is row["latency_ns"] is None
    assert row["status"] == 408
    assert row["client_ip"] == "10.0.0.1"


def test_the_one_who_connected_may_be_the_server() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.answer(GET)
    connection.ask(OK)
    (row,) = rows(packets)
    assert brief([row]) == [("GET", "/a?b=c", 200)]
    assert (row["client_ip"], row["server_ip"]) == ("10.0.0.2", "10.0.0.1")


def test_a_connection_that_began_before_the_capture() -> None:
    packets = Packets()
    connection = Connection(packets, handshake=False)
    connection.answer(b"middle of a body")
    connection.ask(GET)
    connection.answer(OK)
    assert brief(rows(packets)) == [("GET", "/a?b=c", 200)]


@pytest.mark.parametrize(
    "prefix",
    [b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01\0\x50", b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 80\r\n"],
)
def test_what_proxies_put_before_is_skipped(prefix: bytes) -> None:
    assert brief(exchange(prefix + GET, OK)) == [("GET", "/a?b=c", 200)]


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\x03\x01\x02\x00",
        b"EHLO mail.example\r\n",
        b"GET key\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS rtsp://example RTSP/1.0\r\n\r\n",
        b"INVITE sip:a@example SIP/2.0\r\n\r\n",
        b"HTTP/2 200\r\n",
        b"",
    ],
)
def test_other_protocols_are_not_http(first: bytes) -> None:
    assert exchange(first, b"220 hello\r\n") == []


def test_long_and_odd_request_lines() -> None:
    long = b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n"
    assert [len(row["path"]) for row in exchange(long, OK)] == [5001]
    odd = b"GET /a b\xff  HTTP/1.1\r\n\r\nPOST /no-version\r\nHost: x\r\n\r\nM-SEARCH * HTTP/1.1\r\n\r\n"
    found = exchange(odd, OK + OK + OK)
    assert [(row["method"], row["path"], row["version"]) for row in found] == [
        ("GET", "/a bÿ", "HTTP/1.1"),
        ("POST", "/no-version", None),
        ("M-SEARCH", "*", "HTTP/1.1"),
    ]


def test_absurd_lengths_do_no_harm() -> None:
    for head in (b"Content-Length: 9223372036854775807", b"Content-Length: -1", b"Content-Length: x"):
        found = exchange(GET, b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\nabc", GET, OK)
        assert found[0]["status"] == 200
    for size in (b"ffffffffffffffff", b"-1", b"", b"7fffffffffffff", b"z"):
        found = exchange(
            GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nabc\r\n"
        )
        assert (found[0]["status"], found[0]["response_cut"]) == (200, True)


def test_a_head_without_end_is_no_head() -> None:
    bomb = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300_000
    assert exchange(bomb + GET) == []
    many = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000 + b"\r\n"
    assert brief(exchange(many, OK)) == [("GET", "/", 200)]


def test_flows_do_not_mix() -> None:
    packets = Packets()
    connections = [Connection(packets, End("10.0.0.9", 1000 + n), SERVER, n) for n in range(5)]
    for connection in connections:
        connection.ask(b"GET /%d HTTP/1.1\r\n\r\n" % connection.flow)
    for connection in reversed(connections):
        connection.answer(b"HTTP/1.1 30%d X\r\n\r\n" % connection.flow)
        connection.send(SERVER, b"", FIN)
    found = rows(packets)
    assert [(row["flow_id"], row["path"], row["status"]) for row in found] == [
        (n, f"/{n}", 300 + n) for n in range(5)
    ]


def test_a_retransmission_that_fills_a_hole_is_when_the_rest_could_be_read() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(GET)
    start = connection.next[SERVER]
    packets.segment(SERVER, CLIENT, start + 20, OK[20:])
    packets.now += 200 * MS
    packets.segment(SERVER, CLIENT, start, OK[:20])
    (row,) = rows(packets)
    assert row["latency_ns"] == 202 * MS
    assert row["response_frame"] == row["response_last_frame"] == 6
    assert ISN < 2**32
