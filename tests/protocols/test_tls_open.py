"""TLS opened with a key log: OpenSSL talks to itself in memory, and its own key log has the secrets."""

from __future__ import annotations

import datetime as dt
import functools
import ssl
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from helpers.traffic import Connection, Packets, cut
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols import http, tls
from stratokit.protocols.base import Passes
from stratokit.protocols.tls_keys import expand_label, read_keylog

ASKED = b"GET /a?%d HTTP/1.1\r\nHost: shop.example\r\n\r\n"
TOLD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
SIZES = (5, 40_000, 0)
SUITES12 = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]
SUITES12 += ["ECDHE-ECDSA-AES128-CCM8", "ECDHE-ECDSA-AES256-CCM"]


@functools.cache
def certificate() -> str:
    """A file with a key and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    built = x509.CertificateBuilder(name, name, key.public_key(), 7)
    built = built.not_valid_before(dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    signed = built.not_valid_after(dt.datetime(2126, 1, 2, tzinfo=dt.UTC)).sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.NamedTemporaryFile("wb", suffix=".pem", delete=False) as file:
        file.write(secret + signed.public_bytes(serialization.Encoding.PEM))
    return file.name


@functools.cache
def talk(suite: str | None, alpn: str = "http/1.1") -> tuple[list[tuple[int, bytes]], bytes]:
    """What both sides sent (0 client, 1 server), and the key log; TLS 1.3 where no suite is named."""
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)]
    contexts[0].check_hostname, contexts[0].verify_mode = False, ssl.CERT_NONE
    contexts[1].load_cert_chain(certificate())
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "keys"
        contexts[0].keylog_filename = str(log)
        for context in contexts:
            context.set_alpn_protocols([alpn])
            if suite:
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                context.set_ciphers(suite + ":@SECLEVEL=0")
        pipes = [ssl.MemoryBIO(), ssl.MemoryBIO()]  # what each side reads
        ends = [
            contexts[0].wrap_bio(pipes[0], pipes[1], server_hostname="shop.example"),
            contexts[1].wrap_bio(pipes[1], pipes[0], server_side=True),
        ]
        sent: list[tuple[int, bytes]] = []

        def step(side: int, what: Any) -> bool:
            """Do something on one side; what it wrote lies in the other's pipe and is noted."""
            pipe = pipes[1 - side]
            before = pipe.read()
            try:
                what()
                done = True
            except ssl.SSLWantReadError:
                done = False
            wrote = pipe.read()
            pipe.write(before + wrote)
            if wrote:
                sent.append((side, wrote))
            return done

        done = [False, False]
        while not all(done):
            for side in (0, 1):
                done[side] = done[side] or step(side, ends[side].do_handshake)
        for number, size in enumerate(SIZES):
            step(0, lambda number=number: ends[0].write(ASKED % number))
            step(1, lambda: ends[1].read(1 << 16))
            step(1, lambda size=size: ends[1].write(TOLD % size + b"x" * size))
            step(0, lambda: [ends[0].read(1 << 16) for _ in range(9)])
        return sent, log.read_bytes()


def packets_of(sent: list[tuple[int, bytes]], keylog: bytes, cuts: list[int] | None = None) -> Packets:
    packets = Packets(step_ns=0)
    packets.secrets = read_keylog(keylog)  # type: ignore[attr-defined] # as a capture has it
    packets.passes = Passes()
    connection = Connection(packets)
    for side, data in sent:
        for part in cut(data, cuts or []):
            connection.send(connection.server if side else connection.client, part)
    connection.close()
    return packets


def requests(packets: Packets) -> list[tuple[Any, ...]]:
    rows = http.build(packets).collect().select("method", "path", "host", "status", "response_body_bytes")
    return rows.rows()


EXPECTED = [("GET", f"/a?{k}", "shop.example", 200, size) for k, size in enumerate(SIZES)]


@pytest.mark.parametrize("suite", [None, *SUITES12])
def test_requests_inside_are_rows(suite: str | None) -> None:
    packets = packets_of(*talk(suite))
    assert requests(packets) == EXPECTED
    (row,) = tls.build(packets).collect().to_dicts()
    assert (row["decrypted"], row["alpn_chosen"]) == (True, "http/1.1")
    assert row["version"] == ("TLS 1.2" if suite else "TLS 1.3")
    assert packets.passes is not None
    assert packets.passes.counters["tls_unopened_bytes"] == 0


@pytest.mark.parametrize("keylog", [b"", b"CLIENT_RANDOM 00 00\nrubbish\n\xff\xfe \x00 \n"])
def test_without_its_secrets_nothing_is_inside(keylog: bytes) -> None:
    packets = packets_of(talk(None)[0], keylog)
    assert requests(packets) == []
    assert tls.build(packets).collect()["decrypted"].to_list() == [False]


@pytest.mark.parametrize("suite", [None, SUITES12[0]])
def test_wrong_secrets_open_nothing_and_are_counted(suite: str | None) -> None:
    sent, keylog = talk(suite)
    wrong = b"\n".join(line[:-4] + b"0000" for line in keylog.splitlines())
    packets = packets_of(sent, wrong)
    assert requests(packets) == []
    assert packets.passes is not None
    assert packets.passes.counters["tls_unopened_bytes"] > sum(SIZES)


def test_up_to_a_gap() -> None:
    sent, keylog = talk(None)
    packets = packets_of(sent, keylog)
    large = max(packets.added, key=lambda row: row["payload_len"])
    packets.added.remove(large)
    assert requests(packets)[0] == EXPECTED[0]
    assert packets.passes is not None
    assert packets.passes.counters["tls_unopened_bytes"] > 0


def test_byte_by_byte_gives_the_same_rows() -> None:
    sent, keylog = talk(SUITES12[0])
    short = [(side, data) for side, data in sent if len(data) < 5000][:-1]
    every = list(range(5000))
    assert requests(packets_of(short, keylog, every)) == requests(packets_of(short, keylog))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 45_000), max_size=6))
def test_any_cuts_give_the_same_rows(cuts: list[int]) -> None:
    assert requests(packets_of(*talk(None), cuts)) == EXPECTED


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_records_do_no_harm(data: st.DataObject) -> None:
    sent, keylog = talk(None)
    turn = data.draw(st.integers(0, len(sent) - 1))
    damaged = bytearray(sent[turn][1])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    requests(packets_of([*sent[:turn], (sent[turn][0], bytes(damaged)), *sent[turn + 1 :]], keylog))


def test_expand_label_is_that_of_the_standard() -> None:
    # RFC 8448 section 3: the server's handshake traffic secret and the key and IV that follow from it.
    secret = bytes.fromhex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
    assert expand_label(secret, "key", 16).hex() == "3fce516009c21727d0f2e4e86ee403bc"
    assert expand_label(secret, "iv", 12).hex() == "5d313eb2671276ee13000b30"


def test_key_logs() -> None:
    random = bytes(range(32))
    text = b"# made by a program\r\nCLIENT_RANDOM %b 0a0b\nEXPORTER_SECRET %b 00\nCLIENT_RANDOM zz 00\n"
    assert read_keylog(text % ((random.hex().encode(),) * 2)) == {random: {"CLIENT_RANDOM": b"\x0a\x0b"}}
