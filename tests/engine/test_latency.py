"""Table `latency` on conversations made by hand: every part has a length of its own, in ms."""

from __future__ import annotations

import pytest
import synthetic
from synthetic import MS, T0, Network, Side

from stratokit.engine.capture import Capture
from stratokit.engine.latency import passing
from stratokit.engine.latency.table import PARTS

CLIENT, SERVER = 1, 2  # cookies
REQUEST, RESPONSE = synthetic.http_request("/a"), synthetic.http_response()
# When, after the connection's beginning: SYN, SYN-ACK, ACK out; request out, in; response out, in.
OUT_IN = {"syn": (0, 1), "answer": (2, 4), "ack": (4, 5), "request": (11, 14), "response": (50, 57)}
CALLS = {
    "write": (10, 0.5, "sendto", 10, CLIENT, len(REQUEST)),
    "read": (2, 18, "recvfrom", 20, SERVER, len(REQUEST)),  # waits first, returns at 20
    "answer": (45, 7, "write", 20, SERVER, len(RESPONSE)),
    "got": (60, 1, "read", 10, CLIENT, len(RESPONSE)),
}


def twice(rows, times):
    """The rows, each sent by the one and received by the other socket."""
    seen = []
    for row, (out, into) in zip(rows, times, strict=True):
        from_client = row["src_port"] == 40001
        for ts, direction, at_client in ((out, "out", from_client), (into, "in", not from_client)):
            end = {"pid": 10, "comm": "curl"} if at_client else {"pid": 20, "comm": "app"}
            cookie = CLIENT if at_client else SERVER
            at = {"ts": T0 + int(ts * MS), "direction": direction, "socket_cookie": cookie}
            seen.append(row | end | at | {"tid": end["pid"]})
    return sorted(seen, key=lambda row: row["ts"])


def packets():
    net = Network()
    net.tcp(Side("10.0.0.1", 40001), Side("10.0.0.2", 80), T0, [(MS, REQUEST, MS, RESPONSE)])
    return twice(net.rows[:5], OUT_IN.values())


def calls(**changed):
    rows = []
    for at, took, name, pid, cookie, size in (CALLS | changed).values():
        comm = "curl" if pid == 10 else "app"
        row = synthetic.syscall(T0 + int(at * MS), name, pid, comm, duration_ns=int(took * MS), ret=size)
        rows.append(row | {"socket_cookie": cookie, "arg3": 0})
    return rows


def latency(tmp_path, kind="http", **rows):
    capture = Capture.open(synthetic.write(tmp_path / "x.parquet", **rows))
    return capture.table("latency").filter(kind=kind).collect().to_dicts()


def in_ms(row, *more):
    return {name.removesuffix("_ns"): row[name] / MS for name in (*PARTS, *more) if row[name] is not None}


EXPECTED = {
    "connect": 4, "client": 6, "request": 1, "network_to": 3, "server_buffer": 6, "app": 25, "response": 5,
    "network_back": 7, "client_buffer": 4, "transfer": 0,
}  # fmt: skip


def test_each_part_lies_between_two_points(tmp_path):
    (row,) = latency(tmp_path, packet=packets(), syscall=calls())
    assert in_ms(row) == EXPECTED
    assert (row["total_ns"], row["rest_ns"], row["server_ns"]) == (61 * MS, 0, 36 * MS)
    assert (row["what"], row["outcome"], row["failed"]) == ("GET shop.example/a", "200", False)
    assert (row["comm"], row["server_comm"]) == ("curl", "app")
    assert row["upstream_ns"] == 0


def test_a_handshake_is_the_kernels(tmp_path):
    (row,) = latency(tmp_path, "tcp", packet=packets(), syscall=calls())
    known = in_ms(row, "server_ns", "total_ns", "rest_ns")
    assert known == {
        "request": 0, "network_to": 1, "network_back": 2, "client_buffer": 0, "transfer": 0, "server": 1,
        "total": 4, "rest": 0,
    }  # fmt: skip


def test_without_calls_the_server_is_one_part(tmp_path):
    (row,) = latency(tmp_path, packet=packets())
    assert in_ms(row) == {
        "connect": 4, "client": 7, "request": 0, "network_to": 3, "network_back": 7, "transfer": 0,
    }  # fmt: skip
    assert (row["server_ns"], row["total_ns"], row["rest_ns"]) == (36 * MS, 57 * MS, 0)


def test_a_plain_capture_knows_no_ends(tmp_path):
    rows = [row | {"direction": None, "socket_cookie": None, "pid": None} for row in packets()]
    (row,) = latency(tmp_path, packet=rows[::2])
    assert row["network_to_ns"] is row["server_ns"] is row["app_ns"] is row["upstream_ns"] is None
    assert row["rest_ns"] > 0


def test_seen_from_the_server_alone(tmp_path):
    rows = [row for row in packets() if row["pid"] == 20]
    (row,) = latency(tmp_path, packet=rows, syscall=[call for call in calls() if call["pid"] == 20])
    assert in_ms(row) == {"request": 0, "server_buffer": 6, "app": 25, "response": 5, "transfer": 0}
    assert row["total_ns"] == 36 * MS
    assert row["connect_ns"] is None


@pytest.mark.parametrize(
    ("changed", "unknown"),
    [
        # More was read than had come, or sent than was written: a call is missing somewhere.
        ({"read": (2, 18, "recvfrom", 20, SERVER, 5000)}, {"server_buffer", "app"}),
        ({"answer": (45, 7, "write", 20, SERVER, 3)}, {"app", "response"}),
        # The number of messages is not that of bytes.
        ({"got": (60, 1, "recvmmsg", 10, CLIENT, 1)}, {"client_buffer"}),
        # The response was begun before the request had been read.
        ({"answer": (19, 40, "write", 20, SERVER, len(RESPONSE))}, {"app"}),
    ],
)
def test_what_contradicts_itself_is_unknown(tmp_path, changed, unknown):
    (row,) = latency(tmp_path, packet=packets(), syscall=calls(**changed))
    known = in_ms(row)
    assert EXPECTED.keys() - known.keys() == unknown


def test_what_is_only_looked_at_has_not_been_read(tmp_path):
    peek = calls(read=(12, 3, "recvfrom", 20, SERVER, len(REQUEST)))[1] | {"arg3": 2}
    (row,) = latency(tmp_path, packet=packets(), syscall=[*calls(), peek])
    assert in_ms(row) == EXPECTED


def test_a_connection_that_is_older_than_the_recording(tmp_path):
    (row,) = latency(tmp_path, packet=[row for row in packets() if not row["tcp_flags"] & 2], syscall=calls())
    older = EXPECTED.keys() - {"connect", "client", "server_buffer", "app", "client_buffer"}
    known = in_ms(row)
    assert {name: known[name] for name in older} == {name: EXPECTED[name] for name in older}
    # Of each socket one read is known: it is taken for one that emptied the buffer.
    assert (known["server_buffer"], known["app"], known["client_buffer"]) == (6, 25, 4)


def test_a_lost_request_is_waited_for_while_sending(tmp_path):
    """The first copy never arrived: the second left at 31 and came at 34."""
    rows = packets()
    request = next(row for row in rows if row["payload_len"] and row["direction"] == "in")
    rows.remove(request)
    again = request | {"frame": 99, "ts": T0 + 34 * MS}
    sent = next(row for row in rows if row["payload_len"] == request["payload_len"])
    rows += [again, sent | {"frame": 99, "ts": T0 + 31 * MS}]
    read = (2, 36, "recvfrom", 20, SERVER, len(REQUEST))
    (row,) = latency(
        tmp_path, packet=sorted(rows, key=lambda row: row["ts"]), syscall=calls(read=read)
    )  # fmt: skip
    known = in_ms(row)
    assert (known["network_to"], known["server_buffer"], known["app"]) == (23, 4, 7)
    assert row["rest_ns"] == 0


def looked_up(at_ms, name="shop.example", address="10.0.0.2", took_ms=5, number=0):
    net = Network(frames=200 + 2 * number, flows=50 + number)
    client = Side("10.0.0.1", 50001 + number, 10, "curl")
    query, answer = synthetic.dns_query(1, name), synthetic.dns_answer(1, name, address)
    net.udp(client, Side("10.0.0.53", 53), T0 + at_ms * MS, query, took_ms * MS, answer)
    return net.rows


@pytest.mark.parametrize(
    ("rows", "name_ms"),
    [
        (looked_up(-20), 5),
        (looked_up(-20, address="10.0.0.3"), None),
        (looked_up(-2000), None),  # too long ago
        (looked_up(-4), None),  # answered too late
    ],
)
def test_a_look_up_belongs_to_the_connection_that_follows(tmp_path, rows, name_ms):
    rows = sorted([*rows, *packets()], key=lambda row: row["ts"])
    (row,) = latency(tmp_path, packet=rows, syscall=calls())
    assert in_ms(row).get("name") == name_ms
    assert row["total_ns"] == (81 if name_ms else 61) * MS
    assert row["rest_ns"] == 0
    assert in_ms(row)["client"] == (21 if name_ms else 6)


def test_who_looks_a_name_up_for_each_connection_waits_each_time(tmp_path):
    net, later = Network(frames=300, flows=60), 200
    exchange = [(MS, REQUEST, MS, RESPONSE)]
    net.tcp(Side("10.0.0.1", 40002, 10, "curl"), Side("10.0.0.2", 80), T0 + later * MS, exchange)
    rows = [*looked_up(-20), *packets(), *looked_up(later - 10, took_ms=7, number=1), *net.rows]
    found = latency(tmp_path, packet=sorted(rows, key=lambda row: row["ts"]), syscall=calls())
    assert [in_ms(row).get("name") for row in found] == [5, 7]


def test_calls_of_the_server_that_overlap_count_once(tmp_path):
    """Two calls to others, from 22 to 32 and from 30 to 38; a third after the answer was written."""
    own = []
    for number, (begin, end) in enumerate([(22, 32), (30, 38), (55, 58)]):
        net = Network(frames=300 + 10 * number, flows=60 + number)
        asking = Side("10.0.0.2", 51_000 + number, 20, "app")
        net.udp(asking, Side("10.0.0.9", 9999), T0 + begin * MS, b"?", (end - begin) * MS, b"!")
        own += net.rows
    rows = sorted([*own, *packets()], key=lambda row: row["ts"])
    (row,) = latency(tmp_path, packet=rows, syscall=calls())
    assert row["upstream_ns"] == 16 * MS
    assert in_ms(row) == EXPECTED


def test_a_question_over_udp(tmp_path):
    net = Network()
    query, answer = synthetic.dns_query(1, "a.example"), synthetic.dns_answer(1, "a.example", "10.0.0.7")
    net.udp(Side("10.0.0.1", 40001), Side("10.0.0.53", 53), T0, query, MS, answer)
    rows = twice(net.rows, [(1, 2), (9, 11)])
    made = [
        synthetic.syscall(T0, "sendto", 10, ret=len(query), socket_cookie=CLIENT),
        synthetic.syscall(
            T0, "recvfrom", 20, "app", ret=len(query), socket_cookie=SERVER, duration_ns=4 * MS
        ),
        synthetic.syscall(T0 + 8 * MS, "sendto", 20, "app", ret=len(answer), socket_cookie=SERVER),
        synthetic.syscall(T0 + 12 * MS, "recvfrom", 10, ret=len(answer), socket_cookie=CLIENT),
    ]
    (row,) = latency(tmp_path, "dns", packet=rows, syscall=made)
    assert in_ms(row, "total_ns", "rest_ns") == {
        "request": 1, "network_to": 1, "server_buffer": 2, "app": 4, "response": 1, "network_back": 2,
        "client_buffer": 2, "transfer": 0, "total": 13, "rest": 0,
    }  # fmt: skip


def test_conversations_are_looked_at_in_groups_of_any_size(monkeypatch):
    def table():
        return Capture.open("sample_captures/mixed.parquet").table("latency").collect()

    whole = table()
    monkeypatch.setattr(passing, "_AT_ONCE", 20)
    assert table().equals(whole)
    assert whole.height > 50
