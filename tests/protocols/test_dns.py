"""DNS: messages from literal bytes, and which answer belongs to which query."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import polars as pl
import pytest
from helpers.traffic import CLIENT, LOCAL_CLIENT, LOCAL_SERVER, MS, Connection, End, Packets, cut
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols import dns, dns_frames, dns_packets
from stratokit.protocols.base import Passes

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


def svcb(key: int, value: bytes) -> bytes:
    return struct.pack(">HH", key, len(value)) + value


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


def test_two_threads_may_ask_for_a_table_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has read everything, and let go of the packets, between two steps of this one."""
    packets = Packets()
    packets.passes = Passes()
    packets.datagram(CLIENT, RESOLVER, query())
    messages = dns_frames.over_tcp.messages

    def then_the_other(capture: Packets, table: str) -> list[pl.DataFrame]:
        found = messages(capture, table)
        monkeypatch.setattr(dns_frames.over_tcp, "messages", messages)
        assert dns_frames.read(capture).questions.height == 1
        return found

    monkeypatch.setattr(dns_frames.over_tcp, "messages", then_the_other)
    assert dns.build(packets).collect()["qname"].to_list() == ["www.example.com"]


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
        (
            6,
            name("ns") + b"\5admin\xc0\x10" + struct.pack(">5I", 1, 2, 3, 4, 2**32 - 1),
            "ns admin.example.com 1 2 3 4 4294967295",
        ),
        (6, name("ns") + name("admin") + bytes(19), "\\# 30 026e73000561646d696e00" + "00" * 19),
        (5, b"\0", "."),
        (5, b"\3a.b\2\\c\2d\x07\0", "a\\.b.\\\\c.d\\007"),
        (65, b"\0\1\0", "1 ."),
        (
            65,
            b"\0\1\0"
            + svcb(1, b"\2h2\2h3")
            + svcb(3, b"\x01\xbb")
            + svcb(4, b"\1\2\3\4\5\6\7\x08")
            + svcb(6, bytes(15) + b"\1")
            + svcb(5, b"abc")
            + svcb(0, b"\0\1\0\x63"),
            '1 . alpn="h2,h3" port=443 ipv4hint=1.2.3.4,5.6.7.8 ipv6hint=::1 ech=YWJj mandatory=alpn,key99',
        ),
        (
            64,
            b"\0\2" + name("svc") + svcb(7, b"/q{?dns}") + svcb(2, b"") + svcb(300, b'a"\1'),
            '2 svc dohpath="/q{?dns}" no-default-alpn key300="a\\"\\001"',
        ),
        (65, b"\0\1\0\0\4\0\3abc", "\\# 10 00010000040003616263"),
        (257, b"\x80\5issueca.example", '128 issue "ca.example"'),
        (257, b"\0\x09issue", "\\# 7 00096973737565"),
        (43, struct.pack(">HBB", 60485, 5, 1) + bytes.fromhex("2BB183AF"), "60485 5 1 2BB183AF"),
        (48, struct.pack(">HBB", 257, 3, 13) + b"key!!", "257 3 13 a2V5ISE="),
        (
            46,
            struct.pack(">HBBIIIH", 1, 13, 2, 300, 1709164799, 1709251200, 34505) + name("example") + b"sig",
            "A 13 2 300 20240228235959 20240301000000 34505 example c2ln",
        ),
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


def test_netbios_names_are_left_to_netbios() -> None:
    assert exchange(query(), server=End("10.0.0.53", 137)) == []


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


# --- over TCP ------------------------------------------------------------------------------------


def prefixed(*messages: bytes) -> bytes:
    return b"".join(struct.pack(">H", len(m)) + m for m in messages)


def over_tcp(asked: bytes, told: bytes, cuts: list[int], back_cuts: list[int], port: int = 53) -> list[Any]:
    packets = Packets(step_ns=0)
    connection = Connection(packets, server=End("10.0.0.53", port))
    for part in cut(asked, cuts):
        connection.send(connection.client, part)
    for part in cut(told, back_cuts):
        connection.send(connection.server, part)
    return [{k: v for k, v in row.items() if not k.endswith("_frame")} for row in rows(packets)]


ASKED = prefixed(query(1, "a.example"), query(2, "b.example"))
TOLD = prefixed(response(2, "b.example", rcode=3), response(1, "a.example", answers=(A, A)))


def test_pipelined_queries_over_tcp() -> None:
    found = over_tcp(ASKED, TOLD, [], [])
    assert [(r["transport"], r["id"], r["outcome"], r["answers"]) for r in found] == [
        ("tcp", 1, "answer", ["192.0.2.1"] * 2),
        ("tcp", 2, "nxdomain", []),
    ]
    assert over_tcp(ASKED, TOLD, [], [], port=5300) == [r | {"server_port": 5300} for r in found]


def test_byte_by_byte_gives_the_same_rows() -> None:
    every = list(range(300))
    assert over_tcp(ASKED, TOLD, every, every) == over_tcp(ASKED, TOLD, [], [])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 120), max_size=8), st.lists(st.integers(1, 120), max_size=8))
def test_any_cuts_give_the_same_rows(cuts: list[int], back_cuts: list[int]) -> None:
    assert over_tcp(ASKED, TOLD, cuts, back_cuts) == over_tcp(ASKED, TOLD, [], [])


def test_a_gap_costs_no_more_than_the_message_it_is_in() -> None:
    packets = Packets()
    packets.passes = Passes()
    connection = Connection(packets, server=RESOLVER)
    asked = [prefixed(query(k, f"n{k}.example")) for k in range(5)]
    connection.ask(asked[0] + asked[1][:9])
    connection.lose(connection.client, 5)
    connection.ask(asked[1][14:] + asked[2] + asked[3])
    assert [row["id"] for row in rows(packets) if row["qname"]] == [0, 2, 3]
    assert packets.passes.counters["dns_skipped_bytes"] == len(asked[1]) - 5


# --- what an outcome was -------------------------------------------------------------------------


def test_outcomes_are_told_apart() -> None:
    packets = Packets()
    said = [response(1, answers=(A,)), response(2), response(3, rcode=3), response(4, rcode=2)]
    said += [message(5, 0x8380, question(name("www.example.com")))]
    for number in range(1, 6):
        packets.datagram(CLIENT, RESOLVER, query(number))
        packets.datagram(RESOLVER, CLIENT, said[number - 1])
    packets.datagram(CLIENT, RESOLVER, query(6))
    packets.now += dns.TIMEOUT_NS
    packets.datagram(CLIENT, RESOLVER, query(7))
    packets.datagram(CLIENT, RESOLVER, query(8))
    packets.datagram(CLIENT, RESOLVER, query(8))
    assert [row["outcome"] for row in rows(packets)] == [
        *("answer", "nodata", "nxdomain", "servfail", "truncated", "timeout", "unanswered", "timeout")
    ]


def test_edns_and_extended_errors() -> None:
    def opt(ttl: int, *options: bytes) -> bytes:
        return b"\0" + struct.pack(">HHIH", 41, 1232, ttl, len(b"".join(options))) + b"".join(options)

    cookie = struct.pack(">HH", 10, 8) + bytes(8)
    blocked = struct.pack(">HHH", 15, 2 + 9, 15) + b"blocklist"
    asked = message(7, 0x0100, question(name("x")), additional=(opt(0x8000, cookie),))
    told = message(7, 0x8183, question(name("x")), additional=(opt(0, cookie, blocked),))
    (row,) = exchange(asked, told)
    assert (row["edns_size"], row["dnssec_ok"], row["additional"]) == (1232, True, [])
    assert (row["extended_error"], row["extended_error_name"]) == (15, "Blocked")
    assert (row["extended_error_text"], row["outcome"]) == ("blocklist", "nxdomain")
    (row,) = exchange(query(qname="x"), response(qname="x"))
    assert row["edns_size"] is row["dnssec_ok"] is row["extended_error"] is None


def test_all_sections() -> None:
    soa = record(6, name("ns") + name("hostmaster") + struct.pack(">5I", 1, 2, 3, 4, 5), name("example.com"))
    body = question(name("www.example.com")) + record(5, name("w.example")) + A + soa
    body += record(1, bytes(4), name("glue.example")) + record(4711, b"ab", name("x"))
    (row,) = exchange(query(), struct.pack(">HHHHHH", 7, 0x8580, 1, 2, 1, 2) + body)
    assert (row["answers"], row["answer_types"]) == (["w.example", "192.0.2.1"], ["CNAME", "A"])
    assert row["authority"] == ["example.com SOA ns hostmaster 1 2 3 4 5"]
    assert row["additional"] == ["glue.example A 0.0.0.0", "x TYPE4711 \\# 2 6162"]
    assert (row["ttl"], row["authoritative"], row["qclass"]) == (60, True, 1)


SEARCH = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"]


def asks(packets: Packets, number: int, qname: str, rcode: int | None, pause_ns: int = 0) -> None:
    packets.now += pause_ns
    packets.datagram(CLIENT, RESOLVER, query(number, qname))
    if rcode is not None:
        packets.datagram(RESOLVER, CLIENT, response(number, qname, rcode=rcode, answers=(A,) * (rcode == 0)))


def test_one_name_with_several_suffixes_is_one_search() -> None:
    packets = Packets()
    for number, suffix in enumerate(SEARCH):
        asks(packets, number, f"api.shop.{suffix}", 3)
    asks(packets, 3, "api.shop", 3)
    asks(packets, 4, "www.example.com", 0)
    asks(packets, 5, "db.prod", 3)
    asks(packets, 6, "DB.prod.ns.svc.cluster.local", 2)
    asks(packets, 7, "db.prod.svc.cluster.local", 0)
    asks(packets, 8, "db.prod.cluster.local", 3)
    found = rows(packets)
    assert [row["search_id"] for row in found] == [0, 0, 0, 0, None, 5, 5, 5, None]
    assert [row["search_name"] for row in found[::4]] == ["api.shop", None, None]
    assert {row["search_name"].lower() for row in found[5:8]} == {"db.prod"}


@pytest.mark.parametrize(
    ("first", "rcode", "second", "pause_ns"),
    [
        ("a.x.example", 3, "b.x.example", 0),
        ("a.x.example", 0, "a.example", 0),
        ("a.x.example", 3, "a.example", 2_000_000_000),
        ("a.x.example", 3, "a.y.example", 0),
        ("ab.x.example", 3, "a.x.example", 0),
        ("a.x.example", 3, "a.x.example", 0),
        ("a.x.example", 3, ".", 0),
    ],
)
def test_what_is_no_search(first: str, rcode: int, second: str, pause_ns: int) -> None:
    packets = Packets()
    asks(packets, 1, first, rcode)
    asks(packets, 2, second if second != "." else "", 0, pause_ns)
    assert [row["search_id"] for row in rows(packets)] == [None, None]


# --- multicast -----------------------------------------------------------------------------------


def test_packets_have_the_addresses_of_all_sections() -> None:
    packets = Packets()
    packets.datagram(CLIENT, RESOLVER, query())
    glue = record(28, ipaddress.ip_address("2001:db8::1").packed, name("ns.example"))
    told = message(7, 0x8180, question(name("www.example.com")), answers=(A,), additional=(glue,))
    packets.datagram(RESOLVER, CLIENT, told)
    packets.datagram(RESOLVER, CLIENT, response(8, rcode=3))
    found = dns_packets.build(packets).collect()
    assert found["addresses"].to_list() == [[], ["192.0.2.1", "2001:db8::1"], []]
    assert found["answer_count"].to_list() == [0, 1, 0]


def test_an_inverse_query_has_an_answer_for_a_question() -> None:
    asked = message(5, 0x0900, answers=(record(1, bytes([192, 0, 2, 1]), b"\0"),))
    told = message(5, 0x8900, question(name("a.example"), 12), answers=(A,))
    (row,) = exchange(asked, told)
    assert (row["opcode"], row["qname"], row["latency_ns"], row["response_frame"]) == (1, "a.example", MS, 2)
    (refused,) = exchange(asked, message(5, 0x8904))
    assert (refused["qname"], refused["qtype"], refused["outcome"]) == (None, None, "notimp")


def test_an_answer_behind_a_second_question_whose_name_is_none() -> None:
    forwards = b"\xc0\xff" + struct.pack(">HH", 1, 1)
    told = message(7, 0x8180, question(name("www.example.com")), forwards, answers=(A,))
    (row,) = exchange(query(), told)
    assert (row["answers"], row["malformed"]) == (["192.0.2.1"], False)


def test_a_query_without_question_or_records_that_fit_is_none() -> None:
    assert exchange(message(5, 0x0100)) == []
    assert exchange(struct.pack(">HHHHHH", 5, 0x0100, 0, 9, 0, 0) + bytes(40)) == []


GROUP, OTHER = End("224.0.0.251", 5353), End("10.0.0.9", 5353)
ASKER = End("10.0.0.8", 5353)


def test_multicast_answers_find_every_question_by_name_and_type() -> None:
    packets = Packets()
    asked = question(name("printer.local"), 255) + question(name("_ipp._tcp.local"), 12, 0x8001)
    packets.datagram(ASKER, GROUP, struct.pack(">HHHHHH", 0, 0, 2, 0, 0, 0) + asked, 0)
    told = record(12, name("Laser._ipp._tcp.local"), name("_ipp._TCP.local"))
    told += record(1, bytes([10, 0, 0, 9]), name("printer.local"))
    packets.datagram(OTHER, GROUP, struct.pack(">HHHHHH", 0, 0x8400, 0, 2, 0, 0) + told, 1)
    packets.datagram(OTHER, GROUP, struct.pack(">HHHHHH", 0, 0x8400, 0, 2, 0, 0) + told, 1)
    found = rows(packets)
    answers = ["Laser._ipp._tcp.local", "10.0.0.9"]
    columns = ("transport", "qname", "qtype", "attempts", "latency_ns", "answers", "response_frame")
    assert [tuple(row[name] for name in columns) for row in found] == [
        ("mdns", "printer.local", 255, 1, MS, answers, 2),
        ("mdns", "_ipp._tcp.local", 12, 1, MS, answers, 2),
        ("mdns", None, None, 0, None, answers, 3),
    ]
    assert [row["qclass"] for row in found] == [1, 1, None]


def test_a_responder_of_llmnr_answers_from_its_own_address() -> None:
    packets = Packets()
    asker = End("10.0.0.8", 50000)
    packets.datagram(asker, End("224.0.0.252", 5355), query(9, "filer"), 0)
    packets.datagram(asker, End("224.0.0.252", 5355), query(9, "filer"), 0)
    packets.datagram(End("10.0.0.9", 5355), asker, response(9, "filer", answers=(A,)), 1)
    (row,) = rows(packets)
    assert (row["transport"], row["attempts"], row["latency_ns"], row["flow_id"]) == ("llmnr", 2, 2 * MS, 0)


def test_what_is_left_out_is_counted() -> None:
    packets = Packets()
    packets.passes = Passes()
    many = message(3, 0x0100, question(name("a")), *[question(b"\xc0\x0c")] * 40)
    packets.datagram(CLIENT, RESOLVER, many)
    packets.datagram(CLIENT, RESOLVER, b"short")
    packets.datagram(CLIENT, RESOLVER, message(3, 0x0100, question(b"\xff")))
    packets.datagram(RESOLVER, CLIENT, response(4, answers=(A,) * 300))
    # two bytes stand for a text of 1000: text is kept up to a multiple of the message's size
    long = name(".".join(["\1" * 49] * 5))
    packets.datagram(
        RESOLVER, CLIENT, message(5, 0x8180, question(long), answers=(record(5, b"\xc0\x0c"),) * 200)
    )
    found = rows(packets)
    assert packets.passes.counters["dns_question_left_out"] == 41 - 32
    assert packets.passes.counters["dns_unreadable"] == 2
    kept = len(found[-1]["answers"])
    assert packets.passes.counters["dns_record_left_out"] == 300 - 256 + 200 - kept
    assert 0 < kept < 200
