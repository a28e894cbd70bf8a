"""Hellos in QUIC's Initial packets: keys against the RFCs' own, and packets sealed here."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from helpers.frames import eth, ipv4, pcap, udp
from helpers.traffic import MS, End, Packets
from helpers.tshark import run
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols import quic, quic_packets, tls, tls_packets
from stratokit.protocols.base import Passes

V1, V2 = 0x00000001, 0x6B3343CF
ID, OTHER_ID = bytes.fromhex("8394c8f03e515708"), b"retried"
CLIENT, SERVER = End("10.0.0.1", 50000), End("10.0.0.2", 443)


def hello(kind: int, cipher: bytes, extensions: bytes) -> bytes:
    body = b"\3\3" + b"r" * 32 + b"\0" + cipher + struct.pack(">H", len(extensions)) + extensions
    return struct.pack(">BBH", kind, 0, len(body)) + body


NAME = b"\0\0" + struct.pack(">HHBH", 13, 11, 0, 8) + b"shop.exa"
ASKED = hello(1, b"\0\2\x13\1\1\0", NAME + b"\0\x10\0\5\0\3\2h3" + b"\0\x2b\0\3\2\3\4")
TOLD = hello(2, b"\x13\1\0", b"\0\x2b\0\2\3\4")


def crypto(data: bytes, offset: int = 0) -> bytes:
    return b"\6" + struct.pack(">HH", 0x4000 | offset, 0x4000 | len(data)) + data


def sealed(
    frames: bytes, side: int = 0, version: int = V1, keyed: bytes = ID, number: int = 0, **more: Any
) -> bytes:
    """An Initial packet; `keyed` is the connection id that its keys follow from."""
    known = more.get("known") or quic_packets.versions(version)[0]
    keys = quic_packets.keys_of(known, keyed)[side]
    frames = bytes([known.crypto]) + frames[1:] if frames[:1] == b"\6" else frames
    head = bytes([more.get("first", 0xC1) | known.initial_bits]) + version.to_bytes(4, "big")
    to = keyed if side == 0 else b""
    head += bytes([len(to)]) + to + b"\0" + bytes([len(more.get("token", b""))]) + more.get("token", b"")
    frames = frames.ljust(40, b"\0")
    head += struct.pack(">H", 0x4000 | (2 + len(frames) + 16)) + struct.pack(">H", number)
    nonce = (int.from_bytes(keys.iv, "big") ^ number).to_bytes(12, "big")
    body = AESGCM(keys.key).encrypt(nonce, frames, head)
    mask = Cipher(algorithms.AES(keys.header), modes.ECB()).encryptor().update(body[2:18])
    protected = bytearray(head + body)
    protected[0] ^= mask[0] & 15
    for k in range(2):
        protected[len(head) - 2 + k] ^= mask[1 + k]
    return bytes(protected)


def rows(*datagrams: tuple[End, bytes]) -> list[dict[str, Any]]:
    packets = Packets()
    for sender, datagram in datagrams:
        packets.datagram(sender, SERVER if sender is CLIENT else CLIENT, datagram)
    return tls.build(packets).collect().to_dicts()


def row(*datagrams: tuple[End, bytes]) -> dict[str, Any] | None:
    found = rows(*datagrams)
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("version", "key", "iv", "header"),
    [  # RFC 9001 appendix A.1, RFC 9369 appendix A.1
        (
            V1,
            "1f369613dd76d5467730efcbe3b1a22d",
            "fa044b2f42a3fd3b46fb255c",
            "9f50449e04a0e810283a1e9933adedd2",
        ),
        (
            V2,
            "8b1a0bc121284290a29e0971b5cd045d",
            "91f73e2351d8fa91660e909f",
            "45b95e15235d6f45a6b19cbcb0294ba9",
        ),
    ],
)
def test_keys_are_those_of_the_standards(version: int, key: str, iv: str, header: str) -> None:
    client, _ = quic_packets.keys_of(quic_packets.VERSIONS[version], ID)
    assert (client.key.hex(), client.iv.hex(), client.header.hex()) == (key, iv, header)


@pytest.mark.parametrize("version", quic_packets.VERSIONS)
def test_both_hellos(version: int) -> None:
    asked, told = sealed(crypto(ASKED), version=version), sealed(crypto(TOLD), 1, version=version)
    found = row((CLIENT, asked), (SERVER, told))
    assert found
    assert (found["transport"], found["sni"], found["alpn"]) == ("quic", "shop.exa", ["h3"])
    assert (found["version"], found["cipher"]) == ("TLS 1.3", "TLS_AES_128_GCM_SHA256")
    assert found["ja4"].startswith("q13d0103h3_")
    assert (found["server_hello_ns"], found["client_hello_frame"], found["server_hello_frame"]) == (MS, 1, 2)
    assert (found["resumed"], found["alert"]) == (False, None)


@pytest.mark.parametrize("cut", range(1, len(ASKED), 7))
def test_a_hello_in_parts_in_any_order_and_datagram(cut: int) -> None:
    late, early = crypto(ASKED[cut:], cut), crypto(ASKED[: cut + 1])
    for datagrams in (
        [sealed(late + early)],
        [sealed(late), sealed(b"\1" + early, number=1)],
        [sealed(late) + sealed(early, number=1)],
        [sealed(early), sealed(early, number=1), sealed(b"\2\0\0\0\0" + late, number=2)],
    ):
        found = row(*((CLIENT, datagram) for datagram in datagrams))
        assert found
        assert found["sni"] == "shop.exa"


def test_after_a_retry_keys_follow_from_the_new_id() -> None:
    retry = b"\xf0" + V1.to_bytes(4, "big") + b"\0" + bytes([len(OTHER_ID)]) + OTHER_ID + b"token" + bytes(16)
    again = sealed(crypto(ASKED), keyed=OTHER_ID, token=b"token", number=1)
    told = sealed(crypto(TOLD), 1, keyed=OTHER_ID)
    found = row((CLIENT, sealed(crypto(ASKED))), (SERVER, retry), (CLIENT, again), (SERVER, told))
    assert found
    assert (found["sni"], found["server_hello_frame"]) == ("shop.exa", 4)


def test_the_server_may_choose_another_version() -> None:
    """Compatible version negotiation (RFC 9369 section 4): the same id, another salt."""
    asked, told = sealed(crypto(ASKED[:60])), sealed(crypto(TOLD), 1, version=V2)
    rest = sealed(crypto(ASKED[60:], 60), version=V2, number=1)
    (found,) = rows((CLIENT, asked), (SERVER, told), (CLIENT, rest))
    assert (found["sni"], found["cipher"]) == ("shop.exa", "TLS_AES_128_GCM_SHA256")


def test_a_version_that_only_asks_for_negotiation() -> None:
    """RFC 9000 section 15; what follows in a real version is another connection, with another hello."""
    other = ASKED.replace(b"r" * 32, b"s" * 32)
    for known in quic_packets.versions(0x1A2A3A4A):
        asked = sealed(crypto(ASKED), version=0x1A2A3A4A, known=known)
        again, told = sealed(crypto(other), keyed=OTHER_ID), sealed(crypto(TOLD), 1, keyed=OTHER_ID)
        first, second = rows((CLIENT, asked), (CLIENT, again), (SERVER, told))
        assert (first["sni"], first["server_hello_frame"]) == ("shop.exa", None)
        assert (second["sni"], second["client_hello_frame"], second["server_hello_frame"]) == (
            "shop.exa",
            2,
            3,
        )


def test_connections_of_one_pair_of_ports_are_rows_of_their_own() -> None:
    other = ASKED.replace(b"shop", b"mail").replace(b"r" * 32, b"s" * 32)
    first, second = rows(
        (CLIENT, sealed(crypto(ASKED))),
        (CLIENT, sealed(crypto(other), keyed=OTHER_ID)),
        (SERVER, sealed(crypto(TOLD), 1)),  # late: to the first
        (SERVER, sealed(crypto(TOLD), 1, keyed=OTHER_ID)),
    )
    assert [(r["sni"], r["server_hello_frame"]) for r in (first, second)] == [
        ("shop.exa", 3),
        ("mail.exa", 4),
    ]


def test_a_hello_retry_request() -> None:
    """RFC 8446 section 4.1.4: the ServerHello is the one behind it."""
    retry = TOLD.replace(b"r" * 32, hashlib.sha256(b"HelloRetryRequest").digest())
    asked, again = sealed(crypto(ASKED)), sealed(crypto(ASKED, len(ASKED)), number=1)
    answers = sealed(crypto(retry), 1), sealed(crypto(TOLD, len(retry)), 1, number=1)
    (found,) = rows((CLIENT, asked), (SERVER, answers[0]), (CLIENT, again), (SERVER, answers[1]))
    assert (found["retried"], found["client_hello_frame"], found["server_hello_frame"]) == (True, 1, 4)
    (found,) = rows((CLIENT, asked), (SERVER, answers[0]))
    assert (found["retried"], found["server_hello_frame"], found["version"]) == (None, None, None)
    (found,) = rows((CLIENT, asked), (SERVER, sealed(crypto(TOLD), 1)))
    assert found["retried"] is False


# Of RFCs, drafts 22 to 34, Google and Facebook.
OF_TSHARK = [
    V1,
    V2,
    *range(0xFF000016, 0xFF000023),
    0x54303530,
    0x54303531,
    0xFACEB001,
    0xFACEB002,
    0xFACEB00E,
]


def test_tshark_opens_the_same_versions_with_the_same_salts(tmp_path: Path) -> None:
    path = tmp_path / "versions.pcap"
    frames = [
        eth(ipv4(udp(sealed(crypto(ASKED), version=v, keyed=v.to_bytes(8, "big")), 50000 + n, 443), 17))
        for n, v in enumerate(OF_TSHARK)
    ]
    path.write_bytes(pcap(frames))
    hellos = ["-Y", "tls.handshake.type == 1", "-T", "fields"]
    fields = ["-e", "frame.number", "-e", "tls.handshake.extensions_server_name"]
    lines = run("tshark", "-n", "-r", str(path), *hellos, *fields)[0].splitlines()
    assert lines == [f"{n + 1}\tshop.exa" for n in range(len(OF_TSHARK))]


def test_hellos_have_fields_in_the_packets_that_complete_them() -> None:
    packets = Packets()
    packets.passes = Passes()
    halves = crypto(ASKED[40:], 40), crypto(ASKED[:40])
    for number, half in enumerate((*halves, halves[1])):
        packets.datagram(CLIENT, SERVER, sealed(half, number=number))
    packets.datagram(SERVER, CLIENT, sealed(crypto(TOLD), 1))
    found = tls_packets.build(packets).collect()
    assert found.filter(pl.col("sni") == "shop.exa")["frame"].to_list() == [2]
    assert found.filter(handshake_type=2)["frame"].to_list() == [4]
    assert found.filter(ciphersuite=0x1301)["frame"].to_list() == [2, 4]
    assert found["ja4"].drop_nulls().item().startswith("q13d0103h3_")


def test_the_bit_that_was_fixed_may_be_zero() -> None:
    """RFC 9287: of a peer that said so, and of a server that heard it."""
    found = row((CLIENT, sealed(crypto(ASKED))), (SERVER, sealed(crypto(TOLD), 1, first=0x81)))
    assert found
    assert found["cipher"] == "TLS_AES_128_GCM_SHA256"


@pytest.mark.parametrize("ack", ["40 01 0000 01 00", "65 0001 0000 01 0001 02 0001 02 0100000000 01 0000"])
def test_googles_acks_before_the_hello(ack: str) -> None:
    frames = bytes.fromhex(ack) + b"\x08" + crypto(TOLD)[1:]
    asked, told = (sealed(f, side, 0x54303530) for side, f in enumerate((crypto(ASKED), frames)))
    found = row((CLIENT, asked), (SERVER, told))
    assert found
    assert found["server_hello_ns"] == MS


def test_a_refusal() -> None:
    found = row((CLIENT, sealed(crypto(ASKED))), (SERVER, sealed(b"\x1c\x41\x78\0\0", 1)))
    assert found
    assert (found["alert"], found["alert_by"]) == ("no_application_protocol", "server")


def test_what_lacks_a_part_or_is_damaged_is_no_row() -> None:
    assert row((CLIENT, sealed(crypto(ASKED[5:], 5)))) is None
    whole = sealed(crypto(ASKED))
    assert row((CLIENT, whole[:-1])) is None
    assert row((CLIENT, whole[:-1] + bytes([whole[-1] ^ 1]))) is None
    assert row((CLIENT, sealed(crypto(b"x" * 90, quic.CRYPTO_LIMIT_BYTES & 0x3FFF)))) is None


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_do_no_harm(data: bytes, inside: bool) -> None:
    start = b"\xc3" + V1.to_bytes(4, "big")
    row((CLIENT, sealed(data) if inside else (start + data).ljust(60, b"\0")))
    list(quic_packets.initials(start + data))
