"""TLS handshakes from literal bytes: what both hellos say, how long it took, and how it failed."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from helpers.traffic import LOCAL_CLIENT, LOCAL_SERVER, MS, Connection, Packets
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols import tls

RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
TLS10, TLS12, TLS13 = 0x0301, 0x0303, 0x0304


def record(kind: int, body: bytes) -> bytes:
    return struct.pack(">BHH", kind, 0x0303, len(body)) + body


def handshake(kind: int, body: bytes) -> bytes:
    return struct.pack(">B", kind) + struct.pack(">I", len(body))[1:] + body


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, len(body)) + body


def sni(name: bytes) -> bytes:
    return extension(0, struct.pack(">HBH", len(name) + 3, 0, len(name)) + name)


def alpn(*names: bytes) -> bytes:
    packed = b"".join(bytes([len(name)]) + name for name in names)
    return extension(16, struct.pack(">H", len(packed)) + packed)


def client_hello(*extensions: bytes, version: int = TLS12) -> bytes:
    body = (
        struct.pack(">H", version) + b"r" * 32 + b"\4sess" + struct.pack(">HHH", 4, 0x1301, 0xC02F) + b"\1\0"
    )
    packed = b"".join(extensions)
    return handshake(1, body + struct.pack(">H", len(packed)) + packed)


def server_hello(
    *extensions: bytes, version: int = TLS12, cipher: int = 0xC02F, random: bytes = b"R" * 32
) -> bytes:
    body = struct.pack(">H", version) + random + b"\4sess" + struct.pack(">HB", cipher, 0)
    packed = b"".join(extensions)
    return handshake(2, body + (struct.pack(">H", len(packed)) + packed if packed else b""))


CHANGE = record(20, b"\1")
FINISHED = record(22, b"\x55" * 40)
DATA = record(23, b"\x66" * 60)
HELLO = record(22, client_hello(sni(b"shop.example"), alpn(b"h2", b"http/1.1")))
CHOSEN13 = extension(43, struct.pack(">H", TLS13))
HELLO13 = record(22, server_hello(CHOSEN13, cipher=0x1301))


def rows(packets: Packets) -> list[dict[str, Any]]:
    return tls.build(packets).collect().to_dicts()


def exchange(*turns: bytes) -> dict[str, Any]:
    packets = Packets()
    connection = Connection(packets)
    for k, turn in enumerate(turns):
        (connection.answer if k % 2 else connection.ask)(turn)
    (row,) = rows(packets)
    return row


def test_tls_1_3() -> None:
    row = exchange(HELLO, HELLO13 + CHANGE + DATA * 2, CHANGE + DATA, DATA)
    assert (row["version"], row["cipher"]) == ("TLS 1.3", "TLS_AES_128_GCM_SHA256")
    assert (row["sni"], row["alpn"], row["alpn_chosen"]) == ("shop.example", ["h2", "http/1.1"], None)
    assert (row["server_hello_ns"], row["handshake_ns"], row["resumed"]) == (MS, 2 * MS, False)
    assert (row["client_hello_frame"], row["server_hello_frame"]) == (4, 5)
    assert row["alert"] is row["alert_by"] is row["pid"] is None
    assert row["server_port"] == 8080


def test_tls_1_2_in_full() -> None:
    certificate = handshake(11, b"c" * 3000)
    first = record(22, server_hello(alpn(b"h2"))) + record(22, certificate[:2000])
    answer = first + record(22, certificate[2000:] + handshake(14, b""))
    row = exchange(
        HELLO, answer, record(22, handshake(16, b"k" * 40)) + CHANGE + FINISHED, CHANGE + FINISHED, DATA
    )
    assert (row["version"], row["alpn_chosen"]) == ("TLS 1.2", "h2")
    assert row["cipher"] == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    assert (row["server_hello_ns"], row["handshake_ns"], row["resumed"]) == (MS, 3 * MS, False)


def test_tls_1_2_resumed_ends_with_the_clients_finished() -> None:
    row = exchange(HELLO, record(22, server_hello()) + CHANGE + FINISHED, CHANGE + FINISHED, DATA)
    assert (row["handshake_ns"], row["resumed"]) == (2 * MS, True)


def test_tls_1_3_resumed_and_early_data() -> None:
    answer = record(22, server_hello(CHOSEN13, extension(41, b"\0\0")))
    assert exchange(HELLO, answer + CHANGE + DATA, DATA)["resumed"] is True
    early = record(22, client_hello(extension(42, b"")))
    assert exchange(early + DATA, answer + CHANGE + DATA, DATA)["handshake_ns"] is None


def test_a_retry_request_is_not_the_answer() -> None:
    retry = record(22, server_hello(CHOSEN13, cipher=0x1302, random=RETRY_RANDOM)) + CHANGE
    row = exchange(HELLO, retry, CHANGE + HELLO, HELLO13 + DATA, DATA)
    assert (row["version"], row["cipher"]) == ("TLS 1.3", "TLS_AES_128_GCM_SHA256")
    assert row["handshake_ns"] == 4 * MS


def test_refusals_and_silence() -> None:
    row = exchange(HELLO, record(21, b"\2\x28"))
    assert (row["alert"], row["alert_by"]) == ("handshake_failure", "server")
    assert row["version"] is row["cipher"] is row["handshake_ns"] is row["resumed"] is None
    row = exchange(HELLO, HELLO13 + DATA, record(21, b"\2\x30"))
    assert (row["alert"], row["alert_by"], row["handshake_ns"]) == ("unknown_ca", "client", None)
    row = exchange(HELLO, HELLO13 + CHANGE + DATA, DATA, record(21, b"\1\0"))
    assert row["alert"] is None
    row = exchange(HELLO)
    assert row["version"] is row["server_hello_ns"] is row["alert"] is row["ts_server_hello"] is None


def test_only_the_answer_was_captured() -> None:
    row = exchange(b"", HELLO13 + DATA)
    assert (row["version"], row["sni"], row["ts"], row["server_hello_ns"]) == ("TLS 1.3", None, None, None)


def test_hellos_of_old_versions_need_no_extensions() -> None:
    hello = client_hello(version=TLS10)
    row = exchange(record(22, hello[:-2].replace(hello[1:4], struct.pack(">I", len(hello) - 6)[1:], 1)), b"")
    assert (row["sni"], row["alpn"]) == (None, None)
    assert exchange(HELLO, record(22, server_hello(version=TLS10, cipher=0x2F)))["version"] == "TLS 1.0"


def test_both_ends_are_in_one_row() -> None:
    packets = Packets(carry_ns=1000)
    connection = Connection(packets, LOCAL_CLIENT, LOCAL_SERVER)
    connection.ask(HELLO)
    connection.answer(HELLO13)
    (row,) = rows(packets)
    assert (row["comm"], row["server_comm"]) == ("curl", "nginx")
    assert (row["server_hello_ns"], row["server_latency_ns"]) == (MS + 1000, MS - 1000)


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", HELLO[1:], record(22, b"\1\0\0\4\2\0\0\0"), record(23, b"x")]
)
def test_other_first_bytes_are_not_tls(first: bytes) -> None:
    packets = Packets()
    Connection(packets).ask(first)
    assert rows(packets) == []


WHOLE = (HELLO + CHANGE + DATA, HELLO13 + CHANGE + DATA)


def cut_row(cuts: list[int], back_cuts: list[int]) -> dict[str, Any]:
    packets = Packets(step_ns=0)
    connection = Connection(packets)
    connection.ask(WHOLE[0], cuts)
    connection.answer(WHOLE[1], back_cuts)
    (row,) = rows(packets)
    return {name: row[name] for name in row if not name.endswith("_frame")}


def test_byte_by_byte_gives_the_same_row() -> None:
    assert cut_row(list(range(500)), list(range(500))) == cut_row([], [])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 200), max_size=8), st.lists(st.integers(1, 200), max_size=8))
def test_any_cuts_give_the_same_row(cuts: list[int], back_cuts: list[int]) -> None:
    assert cut_row(cuts, back_cuts) == cut_row([], [])


def test_a_hello_spread_over_many_records() -> None:
    message = client_hello(sni(b"shop.example"))
    spread = b"".join(record(22, message[k : k + 20]) for k in range(0, len(message), 20))
    assert exchange(spread, HELLO13)["sni"] == "shop.example"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=90), st.binary(max_size=60))
def test_any_bytes_inside_a_hello_do_no_harm(body: bytes, extensions: bytes) -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(record(22, handshake(1, b"\3\3" + body)) + record(20, b"\1") + extensions)
    connection.answer(record(22, client_hello(extensions).replace(b"\1", b"\2", 1)))
    rows(packets)
