"""Fields that packets have by the TLS records and messages that they complete."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import synthetic
from synthetic import MS, T0, Network, Side

from stratokit.engine.capture import Capture
from stratokit.schema import load

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "tls.parquet"


@pytest.fixture(scope="module")
def sample() -> Capture:
    return Capture.open(SAMPLE)


def frames(capture: Capture, where: str) -> list[int]:
    found = capture.table("packets", where=where, columns=["frame"]).collect()["frame"]
    return sorted(set(found))


def test_hellos_are_where_the_table_of_handshakes_has_them(sample):
    rows = sample.table("tls").collect()
    assert frames(sample, "tls.handshake.type == 1") == sorted(rows["client_hello_frame"])
    assert frames(sample, "tls.handshake.type == 2") == sorted(rows["server_hello_frame"].drop_nulls())
    for name in rows["sni"].unique().drop_nulls():
        named = rows.filter(pl.col("sni") == name)["client_hello_frame"]
        assert frames(sample, f'tls.handshake.extensions_server_name == "{name}"') == sorted(named)


def test_what_tls_13_encrypts_has_another_type(sample):
    flows = sample.table("tls").filter(pl.col("version") == "TLS 1.3").select("flow_id").collect()["flow_id"]
    opaque = sample.table("packets", where="tls.record.opaque_type == 23").collect()["flow_id"]
    plain = sample.table("packets", where="tls.record.content_type == 23").collect()["flow_id"]
    assert set(opaque) <= set(flows)
    assert set(opaque)
    assert not set(plain) & set(flows)


def record(kind: int, body: bytes) -> bytes:
    return bytes([kind, 3, 3]) + len(body).to_bytes(2, "big") + body


def hello(kind: int, ciphers: bytes) -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\x00" + ciphers + (b"\x01\x00" if kind == 1 else b"\x00")
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


@pytest.fixture
def talk(tmp_path) -> Capture:
    """A handshake of TLS 1.2 whose client's message comes in two records, then what is encrypted."""
    asked = hello(1, b"\x00\x04\xc0\x2f\x00\x9c")
    first = record(22, asked[:30]) + record(22, asked[30:])
    answer = record(22, hello(2, b"\xc0\x2f") + b"\x0e\x00\x00\x00")
    finished = record(20, b"\x01") + record(22, b"\x01" * 40)
    told = record(20, b"\x01") + record(22, b"\x02" * 40) + record(21, b"\x02\x28" + bytes(30))
    net = Network()
    net.tcp(
        Side("10.0.0.1", 40001, 10, "curl"),
        Side("10.0.0.2", 443),
        T0,
        [(MS, first, MS, answer), (MS, finished, MS, told)],
    )
    return Capture.open(synthetic.write(tmp_path / "talk.parquet", packet=net.rows))


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("tls", 4),
        ("tls.record.content_type == 22", 4),
        ("tls.record.content_type == 20", 2),
        ("tls.handshake.type == 1", 1),
        ("tls.handshake.type == 14", 1),
        ("tls.handshake.type == 2 && tls.handshake.ciphersuite == 0xc02f", 1),
        ("tls.handshake.ciphersuite == 0x009c", 1),
        ("tls.handshake.ciphersuite == 0x1301", 0),
        ("count(tls.handshake.ciphersuite) == 2", 1),
        ("tls.alert_message.desc", 0),  # it is encrypted
        ("tls.record.length == 32", 1),
        ("tls.handshake.session_id_length == 0", 2),
    ],
)
def test_messages_across_records_and_what_is_encrypted(talk, where, count):
    assert len(frames(talk, where)) == count


def test_a_plain_alert_and_a_record_that_never_ends(tmp_path):
    asked = record(22, hello(1, b"\x00\x02\xc0\x2f"))
    net = Network()
    answers = record(21, b"\x02\x28") + record(22, bytes(900))[:100]
    net.tcp(Side("10.0.0.1", 40001, 10, "curl"), Side("10.0.0.2", 443), T0, [(MS, asked, MS, answers)])
    capture = Capture.open(synthetic.write(tmp_path / "alert.parquet", packet=net.rows))
    assert len(frames(capture, "tls.alert_message.level == 2 && tls.alert_message.desc == 40")) == 1
    assert len(frames(capture, "tls")) == 2
    assert frames(capture, "tls.record.length == 900") == []


def test_records_of_a_connection_that_began_before(tmp_path):
    """Its first packet begins inside of a record, the next with one."""
    net = Network()
    client, server = Side("10.0.0.1", 40001, 10, "curl"), Side("10.0.0.2", 443)
    flow = net._flow()
    for side, other, payload in (
        (client, server, bytes(300)),
        (client, server, record(23, b"\x01" * 40) + record(23, b"\x02" * 50)),
        (server, client, record(23, b"\x03" * 60)),
        (server, client, record(22, b"\x01" * 40)),  # it may be encrypted
        (server, client, record(21, b"\x01\x00")),
    ):
        net._tcp(flow, side, other, T0 + MS * net.frames, synthetic.ACK, payload)
    capture = Capture.open(synthetic.write(tmp_path / "late.parquet", packet=net.rows))
    assert frames(capture, "tls.record.content_type == 23") == [2, 3]
    assert frames(capture, "tls.record.length == 50") == [2]
    assert frames(capture, "tls.handshake.type") == []
    assert frames(capture, "tls.alert_message.desc == 0") == [5]


def test_records_behind_missing_bytes(talk, tmp_path):
    rows = talk.rows("packet").collect().to_dicts()
    lost = next(n for n, row in enumerate(rows) if row["frame"] == frames(talk, "tls.handshake.type == 2")[0])
    columns = {column.name for column in load.capture().of_kind("packet")} - {"kind"}
    kept = [{k: v for k, v in row.items() if k in columns} for n, row in enumerate(rows) if n != lost]
    capture = Capture.open(synthetic.write(tmp_path / "lossy.parquet", packet=kept))
    assert len(frames(capture, "tls.handshake.type")) == 1
    assert len(frames(capture, "tls.record.content_type == 20")) == 2
    assert len(frames(capture, "tls.record.content_type == 21")) == 1


def test_a_hello_in_records_shorter_than_its_header(tmp_path):
    asked = hello(1, b"\x00\x04\xc0\x2f\x00\x9c")
    pieces = b"".join(record(22, asked[k : k + 3]) for k in range(0, len(asked), 3))
    net = Network()
    net.tcp(Side("10.0.0.1", 40001, 10, "curl"), Side("10.0.0.2", 8443), T0, [(MS, pieces, MS, b"")])
    capture = Capture.open(synthetic.write(tmp_path / "small.parquet", packet=net.rows))
    assert len(frames(capture, "tls.handshake.ciphersuite == 0xc02f")) == 1
    assert capture.table("tls").collect()["offered_ciphers"].list.len().to_list() == [2]


def test_a_server_of_a_draft_of_tls_13(tmp_path):
    told = b"\x7f\x14" + bytes(32) + b"\x13\x03" + b"\x00\x00"
    answer = record(22, b"\x02" + len(told).to_bytes(3, "big") + told) + record(23, bytes(20))
    net = Network()
    asked = record(22, hello(1, b"\x00\x02\x13\x03"))
    net.tcp(Side("10.0.0.1", 40001, 10, "curl"), Side("10.0.0.2", 443), T0, [(MS, asked, MS, answer)])
    capture = Capture.open(synthetic.write(tmp_path / "draft.parquet", packet=net.rows))
    assert len(frames(capture, "tls.handshake.type == 2 && tls.handshake.ciphersuite == 0x1303")) == 1
    assert len(frames(capture, "tls.record.opaque_type == 23")) == 1


@pytest.mark.parametrize("damage", range(0, 90, 7))
def test_bytes_that_were_changed_raise_nothing(tmp_path, damage):
    asked = bytearray(record(22, hello(1, b"\x00\x04\xc0\x2f\x00\x9c")) * 2)
    asked[damage % len(asked)] ^= 0xFF
    net = Network()
    net.tcp(
        Side("10.0.0.1", 40001, 10, "curl"), Side("10.0.0.2", 443), T0, [(MS, bytes(asked), MS, b"\x15\x03")]
    )
    capture = Capture.open(synthetic.write(tmp_path / "x.parquet", packet=net.rows))
    assert len(frames(capture, "tls.handshake.type")) <= 1
