"""DNS: messages from literal bytes, and which answer belongs to which query."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import polars as pl
import pytest
from helpers.traffic import CLIENT, LOCAL_CLIENT, LOCAL_SERVER, MS, End, Packets
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols import dns

RESOLVER = End("10.0.0.53", 53)


def name(text: str) -> bytes:
    labels = text.split(".") if text else []
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def question(qname: bytes, qtype: int = 1, qclass: int = 1) -> bytes:
    return qname + struct.pack(">HH", qtype, qclass)


def message(
    number: int,
    flags: int,
    *questions: bytes,
    answers: tuple[bytes, ...] = (),
    additional: tuple[bytes, ...] = (),
) -> bytes:
    head = struct.pack(">HHHHHH", number, flags, len(questions), len(answers), 0, len(additional))
    return head + b"".join((*questions, *answers, *additional))


def record(kind: int, data: bytes, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


def query(number: int = 7, qname: str = "www.example.com", qtype: int = 1) -> bytes:
    return message(number, 0x0100, question(name(qname), qtype))


def response(
    number: int = 7,
    qname: str = "www.example.com",
    qtype: int = 1,
    rcode: int = 0,
    answers: tuple[bytes, ...] = (),
) -> bytes:
    return message(number, 0x8180 | rcode, question(name(qname), qtype), answers=answers)


A = record(1, bytes([192, 0, 2, 1]))


def rows(packets: Packets) -> list[dict[str, Any]]:
    frame = dns.build(packets).collect()
    return frame.with_columns(pl.col("ts_query", "ts_response").to_physical()).to_dicts()


def exchange(*datagrams: bytes, client: End = CLIENT, server: End = RESOLVER) -> list[dict[str, Any]]:
    """Rows of one conversation; which way a datagram goes follows from its own response bit."""
    packets = Packets()
    for datagram in datagrams:
        back = len(datagram) > 2 and datagram[2] & 0x80
        packets.datagram(*((server, client) if back else (client, server)), datagram)
    return rows(packets)


def test_a_query_and_its_answer() -> None:
    (row,) = exchange(query(), response(answers=(record(5, name("w.example.com")), A)))
    assert (row["id"], row["qname"], row["qtype"], row["qtype_name"]) == (7, "www.example.com", 1, "A")
    assert (row["rcode"], row["rcode_name"], row["truncated"]) == (0, "NOERROR", False)
    assert row["answers"] == ["w.example.com", "192.0.2.1"]
    assert (row["latency_ns"], row["attempts"]) == (MS, 1)
    assert (row["query_frame"], row["response_frame"], row["transport"]) == (1, 2, "udp")
    assert (row["client_ip"], row["server_ip"], row["server_port"]) == ("10.0.0.1", "10.0.0.53", 53)


def test_failures_are_told_apart_and_silence_is_null() -> None:
    found = exchange(query(1), response(1, rcode=3), query(2), response(2, rcode=2), query(3))
    assert [row["rcode_name"] for row in found] == ["NXDOMAIN", "SERVFAIL", None]
    assert found[2]["answers"] is found[2]["latency_ns"] is found[2]["ts_response"] is None
    assert found[0]["answers"] == []


def test_a_query_sent_again_is_one_row_from_the_first_attempt() -> None:
    (row,) = exchange(query(), query(), query(), response(answers=(A,)), response(answers=(A,)))
    assert (row["attempts"], row["latency_ns"], row["response_frame"]) == (3, 3 * MS, 4)


def test_the_same_number_and_name_asked_after_the_answer_is_a_new_row() -> None:
    found = exchange(query(), response(), query(), response())
    assert [(row["attempts"], row["latency_ns"]) for row in found] == [(1, MS), (1, MS)]


def test_answers_find_their_query_by_number_and_name_in_any_order() -> None:
    found = exchange(
        query(1, "a.example"),
        query(2, "a.example"),
        query(1, "a.example", 28),
        response(1, "a.example", 28, rcode=3),
        response(2, "a.example", rcode=5),
        response(1, "A.EXAMPLE", rcode=0),
    )
    assert [(row["id"], row["qtype"], row["rcode_name"]) for row in found] == [
        (1, 1, "NOERROR"),
        (2, 1, "REFUSED"),
        (1, 28, "NXDOMAIN"),
    ]


def test_a_response_alone_stays() -> None:
    (row,) = exchange(response(answers=(A,)))
    assert row["ts_query"] is row["query_frame"] is row["latency_ns"] is None
    assert (row["attempts"], row["qname"], row["client_ip"]) == (0, "www.example.com", "10.0.0.1")


def test_a_response_without_question_answers_the_query_before_it() -> None:
    (row,) = exchange(query(), message(7, 0x8184))
    assert (row["qname"], row["rcode_name"]) == ("www.example.com", "NOTIMP")


def test_both_ends_of_a_local_query_are_in_one_row() -> None:
    server = End("10.0.0.2", 53, LOCAL_SERVER.pid, "dnsmasq", "dns-1")
    packets = Packets(carry_ns=100_000)
    packets.datagram(LOCAL_CLIENT, server, query())
    packets.datagram(server, LOCAL_CLIENT, response())
    (row,) = rows(packets)
    assert (row["attempts"], row["latency_ns"], row["server_latency_ns"]) == (1, MS + 100_000, MS - 100_000)
    assert (row["pid"], row["comm"], row["server_pid"], row["server_comm"]) == (10, "curl", 20, "dnsmasq")
    packets.added = [r for r in packets.added if r["pid"] == 20]
    (row,) = rows(packets)
    assert (row["attempts"], row["latency_ns"], row["pid"]) == (1, MS - 100_000, None)


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        (1, bytes([10, 0, 0, 255]), "10.0.0.255"),
        (28, bytes(15) + b"\1", "::1"),
        (28, bytes.fromhex("20010db8000000010000000000000001"), "2001:db8:0:1::1"),
        (2, name("ns.example"), "ns.example"),
        (12, b"\4host\xc0\x10", "host.example.com"),
        (15, b"\0\x0a\4mail\xc0\x10", "10 mail.example.com"),
        (16, b"\5hello\6 world", "hello world"),
        (33, b"\0\1\0\2\x1f\x90" + name("srv"), "1 2 8080 srv"),
        (6, name("ns") + name("admin") + bytes(20), "ns"),
        (5, b"\0", "."),
        (5, b"\3a.b\2\\c\2d\x07\0", "a\\.b.\\\\c.d\\007"),
        (65, b"\0\1\0", "\\# 3 000100"),
        (1, b"\1\2\3", "\\# 3 010203"),
        (99, b"", "\\# 0"),
        (5, b"\xc0\xff", "\\# 2 c0ff"),
    ],
)
def test_record_data_as_text(kind: int, data: bytes, text: str) -> None:
    (row,) = exchange(query(qtype=kind), response(qtype=kind, answers=(record(kind, data),)))
    assert row["answers"] == [text]


GROUPS = st.lists(st.sampled_from([b"\0\0", b"\0\1", b"\xff\0"]), min_size=8, max_size=8).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(min_size=16, max_size=16), GROUPS))
def test_ipv6_text_is_what_everybody_writes(packed: bytes) -> None:
    (row,) = exchange(response(qtype=28, answers=(record(28, packed),)))
    expected = ipaddress.IPv6Address(packed)
    assert ipaddress.IPv6Address(row["answers"][0]) == expected
    if expected.ipv4_mapped is None:
        assert row["answers"] == [str(expected)]


def test_extended_codes_and_truncation() -> None:
    opt = b"\0" + struct.pack(">HHIH", 41, 4096, 0x01000000, 0)
    bad = message(7, 0x8380, question(name("x")), additional=(opt,))
    (row,) = exchange(query(qname="x"), bad)
    assert (row["rcode"], row["rcode_name"], row["truncated"]) == (16, "BADVERS", True)


def test_unknown_numbers_get_their_number_as_name() -> None:
    (row,) = exchange(query(qtype=4711), response(qtype=4711, rcode=14))
    assert (row["qtype_name"], row["rcode_name"]) == ("TYPE4711", "RCODE14")


@pytest.mark.parametrize(
    "qname",
    [
        b"\xc0\x0c",
        b"\1a\xc0\x0c",
        b"\xc0\x0e\xc0\x0c",
        b"\xff",
        b"\x40a",
        b"\1a" * 128 + b"\0",
        b"\5abc",
        b"",
    ],
)
def test_names_that_loop_or_overrun_are_no_message(qname: bytes) -> None:
    assert exchange(message(7, 0x0100, question(qname))) == []


def test_a_pointer_chain_costs_no_more_than_the_message() -> None:
    chain = b"".join(struct.pack(">H", 0xC000 | 12 + 2 * k) for k in range(8000))
    answers = message(7, 0x8180, question(name("a")), answers=(record(5, chain),) * 3)
    (row,) = exchange(query(qname="a"), answers)
    assert len(row["answers"]) == 3


def test_on_other_ports_only_a_message_beyond_doubt_counts() -> None:
    server = End("10.0.0.53", 5300)
    assert len(exchange(query(), response(answers=(A,)), server=server)) == 1
    assert exchange(query() + b"more", server=server) == []
    assert exchange(query()[:-1], server=server) == []
    assert exchange(query(qtype=0), server=server) == []
    assert exchange(b"\0" * 40, server=server) == []
    # once known to be DNS, a conversation stays so
    assert len(exchange(query(1), query(2) + b"trailing", server=server)) == 2


@pytest.mark.parametrize("port", dns.OTHER_PORTS)
def test_names_of_other_protocols_are_left_to_them(port: int) -> None:
    assert exchange(query(), server=End("10.0.0.53", port)) == []


def test_a_message_cut_by_the_capture_gives_what_is_there() -> None:
    packets = Packets()
    packets.datagram(CLIENT, RESOLVER, query())
    packets.datagram(RESOLVER, CLIENT, response(answers=(A, A)))
    packets.added[1]["data"] = packets.added[1]["data"][:-6]
    (row,) = rows(packets)
    assert (row["rcode_name"], row["answers"]) == ("NOERROR", ["192.0.2.1"])


def test_many_answers_are_kept_up_to_the_limit() -> None:
    (row,) = exchange(query(), response(answers=(A,) * 400))
    assert len(row["answers"]) == 256


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 2**16 - 1), st.integers(0, 3), st.integers(0, 5))
def test_any_bytes_behind_a_header_do_no_harm(body: bytes, flags: int, questions: int, answers: int) -> None:
    exchange(struct.pack(">HHHHHH", 1, flags, questions, answers, 1, 1) + body)
