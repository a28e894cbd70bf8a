"""TLS opened with a key log: OpenSSL talks to itself in memory, and its own key log has the secrets."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.tls_talk import EXPECTED, SIZES, talk
from helpers.traffic import Connection, Packets, cut
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.protocols import http, tls
from stratokit.protocols.base import Passes
from stratokit.protocols.tls_keys import expand_label, read_keylog

SUITES12 = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]
SUITES12 += ["ECDHE-ECDSA-AES128-CCM8", "ECDHE-ECDSA-AES256-CCM"]


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
