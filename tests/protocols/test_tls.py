"""TLS handshakes from literal bytes: what both hellos say, how long it took, and how it failed."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import struct
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from helpers.traffic import LOCAL_CLIENT, LOCAL_SERVER, MS, Connection, End, Packets
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols import tls, tls_certificates

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
    assert (row["handshake_ns"], row["retried"]) == (4 * MS, True)


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


def number_list(*numbers: int) -> bytes:
    return b"".join(struct.pack(">H", number) for number in numbers)


def sized(body: bytes, size: int = 2) -> bytes:
    return len(body).to_bytes(size, "big") + body


GREASE = 0x1A1A
MODERN = client_hello(
    extension(GREASE, b""),
    sni(b"shop.example"),
    alpn(b"h2"),
    extension(10, sized(number_list(GREASE, 29, 23))),
    extension(11, sized(b"\0\1", 1)),
    extension(13, sized(number_list(0x0403, 0x0804))),
    extension(43, sized(number_list(GREASE, TLS13, TLS12), 1)),
    extension(0xFE0D, b"\0"),
)


def test_what_was_offered_and_its_fingerprints() -> None:
    row = exchange(record(22, MODERN), record(22, server_hello(extension(51, number_list(29, 0)), CHOSEN13)))
    assert row["offered_versions"] == ["TLS 1.3", "TLS 1.2"]
    assert row["offered_ciphers"] == [
        "TLS_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ]
    assert (row["offered_groups"], row["group"]) == (["x25519", "secp256r1"], "x25519")
    assert (row["ech"], row["early_data"], row["retried"]) == (True, False, False)
    ja3 = f"771,{0x1301}-{0xC02F},0-16-10-11-13-43-{0xFE0D},29-23,0-1"
    assert row["ja3"] == hashlib.md5(ja3.encode()).hexdigest()
    assert row["ja3s"] == hashlib.md5(f"771,{0xC02F},51-43".encode()).hexdigest()
    suites, extensions = b"1301,c02f", b"000a,000b,000d,002b,fe0d_0403,0804"
    parts = [hashlib.sha256(text).hexdigest()[:12] for text in (suites, extensions)]
    assert row["ja4"] == f"t13d0207h2_{parts[0]}_{parts[1]}"


@pytest.mark.parametrize(
    ("extensions", "version", "start"),
    [
        ((), 0x0302, "t11i020000"),
        ((alpn(b"\xabx\xcd"),), TLS12, "t12i0201ad"),
        ((alpn(b"h"),), TLS10, "t10i0201hh"),
        ((alpn(b""),), 0x0300, "ts3i020100"),
        ((sni(b"a"), *[extension(200 + k, b"") for k in range(120)]), TLS12, "t12d029900"),
    ],
)
def test_ja4_begins_with(extensions: tuple[bytes, ...], version: int, start: str) -> None:
    ja4 = exchange(record(22, client_hello(*extensions, version=version)))["ja4"]
    assert ja4[:10] == start
    assert (ja4[-12:] == "0" * 12) == (len(extensions) < 2)


def test_behind_what_another_protocol_said() -> None:
    packets = Packets()
    connection = Connection(packets, server=End("10.0.0.2", 25))
    connection.answer(b"220 mail.example\r\n")
    connection.ask(b"EHLO a\r\n")
    connection.answer(b"250-SIZE 1\x16\x03\x01\r\n" * 40 + b"250 STARTTLS\r\n")
    connection.ask(b"STARTTLS\r\n")
    connection.answer(b"220 go\r\n")
    connection.ask(HELLO)
    connection.answer(HELLO13 + DATA)
    (row,) = rows(packets)
    assert (row["sni"], row["version"], row["server_hello_ns"]) == ("shop.example", "TLS 1.3", MS)


@functools.cache
def certificate(common: str, issuer: str = "CA", *names: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    built = x509.CertificateBuilder(name(issuer), name(common), key.public_key(), 7)
    built = built.not_valid_before(dt.datetime(2026, 1, 2, tzinfo=dt.UTC)).not_valid_after(
        dt.datetime(2027, 1, 2, tzinfo=dt.UTC)
    )
    if names:
        built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def certificates(*ders: bytes) -> bytes:
    return handshake(11, sized(b"".join(sized(der, 3) for der in ders), 3))


def test_certificates() -> None:
    leaf, ca = (
        certificate("shop.example", "Café CA", "shop.example", "www.shop.example"),
        certificate("Café CA"),
    )
    exchange_curve = handshake(12, b"\3\0\x17rest")
    flight = server_hello() + certificates(leaf, ca) + exchange_curve + handshake(14, b"")
    answer = b"".join(record(22, flight[k : k + 900]) for k in range(0, len(flight), 900))
    client = record(22, certificates(certificate("alice"))) + CHANGE + FINISHED
    row = exchange(HELLO, answer, client, CHANGE + FINISHED, DATA)
    assert (row["cert_subject"], row["cert_issuer"]) == ("CN=shop.example", "CN=Café CA")
    assert row["cert_names"] == ["shop.example", "www.shop.example"]
    assert (row["cert_not_before"].year, row["cert_not_after"].year) == (2026, 2027)
    assert row["cert_sha256"] == hashlib.sha256(leaf).hexdigest()
    assert row["cert_chain"] == ["CN=shop.example", "CN=Café CA"]
    assert (row["client_cert_subject"], row["group"]) == ("CN=alice", "secp256r1")
    assert (row["resumed"], row["first_data_ns"]) == (False, 4 * MS)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_certificates_do_no_harm(data: st.DataObject) -> None:
    der = bytearray(certificate("shop.example", "CA", "shop.example"))
    for place in data.draw(st.lists(st.integers(0, len(der) - 1), max_size=4)):
        der[place] = data.draw(st.integers(0, 255))
    found = tls_certificates.read(bytes(der[: data.draw(st.integers(0, len(der)))]))
    assert found.keys() == tls_certificates.FIELDS.keys()


def test_long_chains_are_cut() -> None:
    row = exchange(HELLO, record(22, server_hello() + certificates(*[b"\x30\0"] * 40)))
    assert row["cert_chain"] == [None] * tls_certificates.CHAIN_LIMIT
    assert row["cert_subject"] is None


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
