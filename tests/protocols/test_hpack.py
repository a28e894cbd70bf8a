"""HPACK: the examples of RFC 7541, blocks of real encoders, and blocks that want to do harm."""

from __future__ import annotations

import json
from typing import Any

import hpack as other
import numpy as np
import pytest
from helpers.corpus import CORPUS
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.engine.capture import Capture
from stratokit.protocols import hpack, http2, over_tcp
from stratokit.protocols.hpack_tables import STATIC_TEXT
from stratokit.protocols.http2_frames import be32, frame_size
from stratokit.streams import reassembly

Fields = list[tuple[str | None, str | None]]


class Decoder:
    """One direction, a block after the other."""

    def __init__(self, complete: bool = True) -> None:
        self.table, self.state = hpack.new_table(), np.zeros(hpack.STATE_FIELDS, np.int64)
        hpack.reset(self.state, complete)
        self.text, self.n = hpack.new_text(), STATIC_TEXT.size

    def decode(self, block: bytes) -> Fields | None:
        """Fields, None where the block is in error."""
        data, field = np.frombuffer(block, np.uint8), np.empty(hpack.FIELD_FIELDS, np.int64)
        room = self.n + hpack.decoded_bytes(len(block))
        if room > self.text.size:
            self.text = np.concatenate([self.text, np.zeros(room, np.uint8)])
        found, p = [], 0
        while p < len(block):
            p, self.n = hpack.next_field(
                data, p, len(block), self.text, self.n, self.table, self.state, field
            )
            if p == hpack.ERROR:
                return None
            if field[hpack.NAME] != -2:
                found.append((self.at(field, hpack.NAME), self.at(field, hpack.VALUE)))
        return found

    def at(self, field: Any, place: int) -> str | None:
        start, size = int(field[place]), int(field[place + 1])
        return None if size < 0 else self.text[start : start + size].tobytes().decode("latin-1")


# RFC 7541 appendix C.4 and C.6: with Huffman coding, the second with a table of 256 bytes.
REQUESTS = (
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
)
RESPONSES = (
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    (
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960"
        "d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
    ),
)


def test_the_requests_of_the_standard() -> None:
    decoder = Decoder()
    first, second, third = (decoder.decode(bytes.fromhex(block)) for block in REQUESTS)
    common = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")]
    assert first == common
    assert second == [*common, ("cache-control", "no-cache")]
    assert third == [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ]


def test_the_responses_of_the_standard_with_evictions() -> None:
    decoder = Decoder()
    found = [decoder.decode(b"\x3f\xe1\x01" + bytes.fromhex(RESPONSES[0]))]
    found += [decoder.decode(bytes.fromhex(block)) for block in RESPONSES[1:]]
    date = ("date", "Mon, 21 Oct 2013 20:13:21 GMT")
    location = ("location", "https://www.example.com")
    assert found[:2] == [
        [(":status", "302"), ("cache-control", "private"), date, location],
        [(":status", "307"), ("cache-control", "private"), date, location],
    ]
    assert found[2] == [
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        location,
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ]
    assert decoder.state[hpack.SIZE] == 215


NAMES = st.text("abcdefgh-", min_size=1, max_size=8)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(NAMES, VALUES), max_size=12),
            st.booleans(),
            st.one_of(st.none(), st.sampled_from([0, 64, 300, 4096, 65536])),
        ),
        max_size=12,
    )
)
def test_what_another_encoder_wrote(blocks: list[Any]) -> None:
    encoder, decoder = other.Encoder(), Decoder()
    for fields, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(fields, huffman=huffman)) == fields


def test_a_table_that_is_not_known_knows_what_came_since() -> None:
    encoder = other.Encoder()
    encoder.encode([("old", "entry"), ("older", "one")])
    decoder = Decoder(complete=False)
    block = encoder.encode([("old", "entry"), ("new", "x"), (":method", "GET")])
    assert decoder.decode(block) == [(None, None), ("new", "x"), (":method", "GET")]
    assert decoder.decode(encoder.encode([("new", "x"), ("older", "one")])) == [("new", "x"), (None, None)]
    assert decoder.decode(encoder.encode([("old", "other")])) == [(None, "other")]


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xff\xff\xff\xff\xff\x7f",  # an integer without end
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xbe",  # the table is empty
        b"\x40\x03ab",  # a string beyond the end
        b"\x40\x81\xff\x01a",  # padding of a whole byte
        b"\x40\x84\xff\xff\xff\xff\x01a",  # EOS
        b"\x40\x81\x00\x01a",  # padding that is not all ones
        b"\x3f\xe1\xff\x7f",  # a table of 2 MiB
        b"\x40",
        b"\x7f",
    ],
)
def test_errors(block: bytes) -> None:
    assert Decoder().decode(block) is None


def test_a_bomb_takes_no_room() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01n\x7f\xa1\x1e" + b"v" * 4000)
    before = decoder.n
    fields = decoder.decode(b"\xbe" * 100_000)
    assert fields is not None
    assert len(fields) == 100_000
    assert decoder.n == before


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_any_bytes(blocks: list[bytes], complete: bool) -> None:
    decoder = Decoder(complete)
    for block in blocks:
        decoder.decode(block)
        assert STATIC_TEXT.size <= decoder.n <= decoder.text.size
        assert 0 <= decoder.state[hpack.ENTRIES] <= hpack.TABLE_ENTRIES
        assert decoder.state[hpack.SIZE] <= decoder.state[hpack.MAX_SIZE]


STORIES = sorted((CORPUS / "hpack-synth").rglob("*.pcap")) if CORPUS.is_dir() else []


@pytest.mark.corpus
@pytest.mark.skipif(not STORIES, reason=f"there is no {CORPUS}/hpack-synth")
@pytest.mark.parametrize("story", STORIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_field_of_published_stories(story: Any) -> None:
    golden = json.loads(story.with_suffix(".golden.json").read_text())["cases"]
    (streams,) = reassembly.batches(Capture.open(story))
    heads = over_tcp.Heads(*streams.heads(over_tcp.HEAD_BYTES), streams.began)
    assert http2.recognise(heads).tolist() == [0]
    runs = streams.byte_runs(np.array([True]))
    decoders = Decoder(), Decoder()
    found: dict[tuple[int, str], Fields | None] = {}
    for side, name in enumerate(("request", "response")):
        p, end = (int(runs.run_start[run]) for run in runs.run_bounds[side : side + 2])
        p += 24 if side == 0 else 0
        while p < end:
            size = int(frame_size(runs.data, p))
            if runs.data[p + 3] == 1:
                block = runs.data[p + 9 : p + 9 + size].tobytes()
                found[int(be32(runs.data, p + 5)), name] = decoders[side].decode(block)
            p += 9 + size
    assert {(c["stream"], c["direction"]) for c in golden} <= found.keys()
    for case in golden:
        assert found[case["stream"], case["direction"]] == [tuple(field) for field in case["headers"]]
