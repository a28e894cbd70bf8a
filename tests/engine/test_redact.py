"""Secrets are in no byte of what is written, whatever the format and however the segments cut them."""

from __future__ import annotations

import ipaddress
import itertools
import json
import random

import polars as pl
import pytest
from helpers import frames as f
from helpers.contents import everything
from helpers.http2_exchange import Side, request, response
from helpers.pcapng_bytes import Section
from helpers.spool_bytes import READ, WRITTEN, said
from helpers.spool_bytes import tls_capture as capture

from stratokit.engine import convert
from stratokit.engine.capture import Capture
from stratokit.engine.redact import PROFILES, metadata, profiles, redaction
from stratokit.engine.redact.addresses import PrefixHash
from stratokit.errors import UsageError

SECRET = b"c2VjcmV0OnZlcnktaGlkZGVu"
CLIENT, SERVER = "192.0.2.77", "198.51.100.5"
HEAD = (
    b"GET /search?q=" + SECRET + b"&x=1 HTTP/1.1\r\nHost: shop.example\r\n"
    b"aUTHorization:   Basic " + SECRET + b"\r\nCookie: a=1;\r\n\tsid=" + SECRET + b"\r\n"
    b"X-Amz-Security-Token: " + SECRET + b"\r\nUser-Agent: test/1\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=" + SECRET + b"; Path=/\r\nTransfer-Encoding: chunked\r\n"
    b"Trailer: X-Session-Key\r\n\r\n5\r\nhello\r\n0\r\nX-Session-Key: " + SECRET + b"\r\n\r\n"
)
BOTH = "headers,query"


class Wire:
    """A connection as frames of a pcap file."""

    def __init__(self, port=80):
        self.port, self.frames = port, []
        self.next = {True: 1000, False: 9000}

    def handshake(self):
        self.segment(True, b"", flags=2, seq=999)
        self.segment(False, b"", flags=18, seq=8999)
        return self

    def segment(self, client, data, flags=24, seq=None):
        seq = self.next[client] if seq is None else seq
        self.next[client] = max(self.next[client], seq + len(data))
        ports = (40000, self.port) if client else (self.port, 40000)
        ends = (CLIENT, SERVER) if client else (SERVER, CLIENT)
        packet = f.ipv4(f.tcp(data, *ports, seq=seq, flags=flags), 6, *ends)
        self.frames.append(f.eth(packet))

    def say(self, client, data, cuts):
        """Segments (number, bytes) of `data`."""
        edges = [0, *sorted(cuts), len(data)]
        start = self.next[client]
        return [(start + a, data[a:b]) for a, b in itertools.pairwise(edges) if a < b]

    def send(self, client, parts):
        for seq, data in parts:
            self.segment(client, data, seq=seq)

    def write(self, path):
        path.write_bytes(f.pcap(self.frames))
        return path


def redacted(source, folder, asked, suffix=".parquet", key=None):
    out = folder / f"out{suffix}"
    out.unlink(missing_ok=True)
    convert.convert_files([source], out, choices=convert.Choices(redaction=redaction(asked, key)))
    return out


def http_rows(path):
    return Capture.open(path).table("http").select("method", "path", "status", "user_agent").collect().rows()


@pytest.mark.parametrize("suffix", [".parquet", ".pcapng", ".pcap"])
def test_secrets_in_one_segment(tmp_path, suffix):
    wire = Wire().handshake()
    wire.segment(True, HEAD)
    wire.segment(False, ANSWER)
    source = wire.write(tmp_path / "in.pcap")
    assert SECRET in everything(source)
    out = redacted(source, tmp_path, BOTH, suffix)
    assert SECRET not in everything(out)
    # All else is as it was, so the request is read as before.
    hidden = "/search?" + "x" * (len(SECRET) + 6)
    assert http_rows(out) == [("GET", hidden, 200, "test/1")]
    lengths = pl.col("orig_len", "cap_len", "payload_len", "tcp_seq")
    before, after = (Capture.open(p).rows("packet").select(lengths).collect() for p in (source, out))
    assert before.equals(after)


def test_scap_holds_none(tmp_path):
    wire = Wire().handshake()
    wire.segment(True, HEAD)
    source = wire.write(tmp_path / "in.pcap")
    out = redacted(source, tmp_path, BOTH, ".scap")
    assert SECRET not in everything(out)


@pytest.mark.parametrize("seed", range(12))
def test_segments_anyhow(tmp_path, seed):
    """Cut anywhere, out of order, sent again in other cuts, some of them lost; with and without handshake."""
    chance = random.Random(seed)
    wire = Wire()
    if chance.random() < 0.7:
        wire.handshake()
    for client, data in ((True, HEAD * 2), (False, ANSWER * 2)):
        parts = wire.say(
            client, data, [chance.randrange(1, len(data)) for _ in range(chance.randrange(1, 25))]
        )
        parts += wire.say(client, data, [chance.randrange(1, len(data)) for _ in range(3)])
        chance.shuffle(parts)
        lost = chance.randrange(3)
        wire.send(client, parts[lost:])
    out = redacted(wire.write(tmp_path / "in.pcap"), tmp_path, BOTH)
    found = everything(out)
    # Pieces of a secret are as bad as all of it.
    for size in (8, len(SECRET)):
        for at in range(len(SECRET) - size + 1):
            assert SECRET[at : at + size] not in found


@pytest.mark.parametrize("asked", ["headers", "query", "payload", "addresses"])
def test_http2_is_cut(tmp_path, asked):
    ours, theirs = Side(), Side()
    said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + ours.headers(1, request(authorization=SECRET.decode()))
    wire = Wire().handshake()
    wire.segment(True, said)
    wire.segment(False, theirs.headers(1, response(**{"set-cookie": SECRET.decode()})))
    source = wire.write(tmp_path / "in.pcap")
    assert Capture.open(source).table("http").collect().height == 1
    out = redacted(source, tmp_path, asked)
    packets = Capture.open(out).rows("packet").filter(pl.col("payload_len") > 0).collect()
    assert packets["cap_len"].to_list() == [14 + 20 + 20] * 2
    assert SECRET not in everything(out)


def test_what_is_not_recognised_is_cut(tmp_path):
    wire = Wire(6379).handshake()
    wire.segment(True, b"*2\r\n$4\r\nAUTH\r\n$24\r\n" + SECRET + b"\r\n")
    out = redacted(wire.write(tmp_path / "in.pcap"), tmp_path, "headers")
    assert SECRET not in everything(out)


def test_fragments_tunnels_and_errors_are_cut(tmp_path):
    inner = f.ipv4(f.tcp(HEAD, 40000, 80, seq=1000), 6, CLIENT, SERVER)
    frames = [f.eth(p) for p in f.fragments4(f.tcp(HEAD, 40000, 80, seq=1000), 6, 64)]
    frames.append(f.eth(f.ipv4(f.vxlan(f.eth(inner)), 17, CLIENT, SERVER)))
    frames.append(f.eth(f.ipv4(f.icmp(bytes(4) + inner, 3, 1), 1, SERVER, CLIENT)))
    (tmp_path / "in.pcap").write_bytes(f.pcap(frames))
    assert SECRET not in everything(redacted(tmp_path / "in.pcap", tmp_path, BOTH))


def test_payload_leaves_headers(tmp_path):
    wire = Wire().handshake()
    wire.segment(True, HEAD)
    out = redacted(wire.write(tmp_path / "in.pcap"), tmp_path, "payload", ".pcapng")
    packets = Capture.open(out).rows("packet").collect()
    assert packets["cap_len"].to_list() == [54] * 3
    assert packets["payload_len"].to_list() == [0, 0, len(HEAD)]
    assert b"shop.example" not in everything(out)


def key_file(folder):
    path = folder / "key"
    path.write_text(bytes(range(32)).hex())
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".pcapng", ".pcap"])
def test_addresses(tmp_path, suffix):
    wire = Wire().handshake()
    wire.segment(True, HEAD)
    out = redacted(wire.write(tmp_path / "in.pcap"), tmp_path, "addresses", suffix, key_file(tmp_path))
    hashing = PrefixHash(bytes(range(32)))
    rows = Capture.open(out).rows("packet")
    ends = (hashing.text(CLIENT), hashing.text(SERVER))
    assert rows.select("src_ip", "dst_ip").collect().rows() == [ends, ends[::-1], ends]
    found = everything(out)
    for address in (CLIENT, SERVER):
        assert address.encode() not in found
        assert ipaddress.ip_address(address).packed not in found
    assert bytes.fromhex("020000000001") not in found  # of the Ethernet header
    if suffix != ".parquet":
        return
    for frame in Capture.open(out).rows("packet").collect()["data"]:
        assert f.checksum(frame[14:34]) == 0
    assert bytes(range(32)) not in found
    assert bytes(range(32)).hex().encode() not in found


# The sample that comes with Crypto-PAn 1.0 (sample_trace_raw.dat, sample_trace_sanitized.dat) and its key.
SAMPLE_KEY = bytes.fromhex("1522178d33a4cf80130a5b1649907d10d8988f837979652762574c2d2a842202")


@pytest.mark.parametrize(
    ("address", "hashed"),
    [
        ("128.11.68.132", "135.242.180.132"),
        ("129.118.74.4", "134.136.186.123"),
        ("130.132.252.244", "133.68.164.234"),
        ("141.223.7.43", "141.167.8.160"),
        ("192.102.249.13", "252.138.62.131"),
        ("202.49.198.20", "245.206.7.234"),
    ],
)
def test_crypto_pan(address, hashed):
    assert PrefixHash(SAMPLE_KEY).text(address) == hashed


def test_prefixes_stay_together():
    hashing, chance = PrefixHash(SAMPLE_KEY), random.Random(7)
    for width in (4, 16):
        for _ in range(40):
            one = chance.randbytes(width)
            same = chance.randrange(8 * width)
            flipped = int.from_bytes(one, "big") ^ 1 << (8 * width - 1 - same)
            a, b = (int.from_bytes(hashing.packed(x), "big") for x in (one, flipped.to_bytes(width, "big")))
            assert 8 * width - (a ^ b).bit_length() == same


def test_texts_with_addresses():
    hashing = PrefixHash(SAMPLE_KEY)
    assert hashing.text("128.11.68.132:80->129.118.74.4:443") == "135.242.180.132:80->134.136.186.123:443"
    assert hashing.text("[2001:db8::1]:80") != "[2001:db8::1]:80"
    for text in ("12:30:45", "1.2.3", "v1.2.3.4.5", "a:b", "::", "no"):
        assert hashing.text(text) == text or text == "::"


@pytest.mark.parametrize("profile", PROFILES)
def test_comments_of_packets_go_in_every_form(tmp_path, profile):
    section = Section()
    packet = section.packet(f.eth(f.ipv4(f.udp(), 17)), (1, b"for alice only"), (2, section.number(1)))
    path = tmp_path / "a.pcapng"
    path.write_bytes(section.header() + section.interface() + packet)
    for name in ("b.parquet", "b.pcapng"):
        convert.convert_files([path], tmp_path / name, None, convert.Choices(redaction=redaction(profile)))
        rows = Capture.open(tmp_path / name).rows("packet").collect()
        assert rows["direction"].to_list() == ["in"]
        assert b"alice" not in (tmp_path / name).read_bytes()
        assert not [b for b in rows["packet_options"] if b and b"alice" in b]


def test_info_says_what_was_taken(tmp_path):
    wire = Wire().handshake()
    wire.segment(True, HEAD)
    out = redacted(wire.write(tmp_path / "in.pcap"), tmp_path, BOTH)
    assert Capture.open(out).info()["redacted"] == ["headers", "query"]
    again = tmp_path / "again.parquet"
    convert.convert_files([out], again, choices=convert.Choices(redaction=redaction("payload")))
    assert Capture.open(again).info()["redacted"] == ["headers", "query", "payload"]


def test_profiles_are_checked():
    assert profiles("headers, query") == ("headers", "query")
    assert set(PROFILES) == {"headers", "query", "payload", "addresses", "arguments"}
    for text in ("", "header", "headers,x"):
        with pytest.raises(UsageError, match="there are headers, query, payload"):
            profiles(text)


def test_a_key_has_a_length(tmp_path):
    (tmp_path / "key").write_text("00")
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        redaction("addresses", tmp_path / "key")
    (tmp_path / "key").write_bytes(bytes(range(32)))
    assert redaction("addresses", tmp_path / "key").key == bytes(range(32))


def test_plaintext_of_tls(tmp_path):
    cut = HEAD.index(b"Basic") + 12
    source = capture(
        tmp_path,
        said(1000, WRITTEN, HEAD[:cut]),
        said(1500, WRITTEN, HEAD[cut:], cut),
        said(5000, READ, ANSWER),
    )
    assert SECRET in everything(source.paths[0])
    out = redacted(source.paths[0], tmp_path, BOTH)
    found = everything(out)
    assert not any(SECRET[at : at + 8] in found for at in range(len(SECRET) - 7))
    assert http_rows(out)[0][2:] == (200, "test/1")


def test_plaintext_that_is_not_http1_is_dropped(tmp_path):
    for first in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", b"AUTH "):
        answer = said(2000, READ, b"+OK " + SECRET)
        source = capture(tmp_path, said(1000, WRITTEN, first + SECRET), answer)
        assert SECRET not in everything(redacted(source.paths[0], tmp_path, "headers"))


def test_arguments_go_with_every_profile():
    asked = {"command": ["curl", "-H", SECRET.decode()], "filter": {"text": "ip.addr == 1.2.3.4"}}
    carried = {"options": json.dumps(asked), "keylog": "CLIENT_RANDOM 1 2"}
    kept = metadata(carried, redaction("query"))
    assert json.loads(kept["options"]) == {"command": ["curl"], "filter": None}
    assert "keylog" not in kept
