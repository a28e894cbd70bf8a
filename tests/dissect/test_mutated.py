"""Real frames with damage: nothing raises, nothing outside a frame matters, fragments keep their bounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import frames

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.datagrams import SLOTS
from stratokit.dissect.fragments import Reassembler
from stratokit.dissect.packets import dissect
from stratokit.errors import FormatError
from stratokit.formats import registry

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
MANIFEST = CORPUS / "MANIFEST.jsonl"
FRAMES_A_FILE = 4
LARGEST_BYTES = 400


def some_frames() -> list[tuple[bytes, int]]:
    """The first frames of every capture, with their link types."""
    found = []
    for line in MANIFEST.read_text().splitlines():
        entry = json.loads(line)
        if "scap" in entry["kind"]:
            continue
        try:
            form = registry.by_content(CORPUS / entry["file"])
            assert form.open_reader is not None
            with form.open_reader(CORPUS / entry["file"]) as reader:
                for batch in reader.batches():
                    for i in range(min(FRAMES_A_FILE, len(batch.offsets))):
                        at, size = int(batch.offsets[i]), min(int(batch.cap_lens[i]), LARGEST_BYTES)
                        found.append((batch.data[at : at + size].tobytes(), int(batch.link_types[i])))
                    break
        except FormatError:
            continue
    return found


def damaged(frame: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed near the beginning, where the headers are; sometimes cut."""
    data = np.frombuffer(frame, np.uint8).copy()
    if data.size:
        at = rng.integers(0, min(data.size, 120), rng.integers(1, 4))
        data[at] = rng.choice([0, 1, 4, 0x45, 0x60, 0x7F, 0x80, 0xFF, *rng.integers(0, 256, 4)], at.size)
    return data[: rng.integers(0, data.size + 1)].tobytes() if rng.random() < 0.3 else data.tobytes()


@pytest.mark.corpus
@pytest.mark.skipif(not MANIFEST.exists(), reason=f"there are no captures at {CORPUS}")
def test_damaged_frames_of_real_captures() -> None:
    rng = np.random.default_rng(20)
    whole, reassembler, fed = some_frames(), Reassembler(), 0
    assert len(whole) > 1000
    for _ in range(8):
        made = [damaged(frame, rng) for frame, _ in whole]
        lens = [len(frame) if rng.random() < 0.5 else int(rng.integers(0, 2**32)) for frame in made]
        link_types = np.array([link_type for _, link_type in whole], np.uint16)
        results = []
        for outside in (b"\0" * 80, b"\xff" * 80, b"\x45" * 80):
            data, offsets, caps, origs, _ = frames.layout(made, orig_lens=lens, gap=outside)
            results.append(dissect(data, offsets, caps, origs, link_types))
        for name, values in results[0].items():
            assert np.array_equal(values, results[1][name]), name
            assert np.array_equal(values, results[2][name]), name
        assert (results[0]["payload_offset"] <= caps).all()
        fed += int((results[2]["fragment_whole"] != 0).sum())
        datagrams = reassembler.feed(results[2], data, offsets, rng.integers(0, 2**62, len(made)))
        for column in packet_columns(results[2], datagrams=datagrams).values():
            column.validate(full=True)
        assert len(datagrams.data) <= 65535 * len(datagrams.rows)
        assert reassembler.waiting <= 65535 * SLOTS


def test_tunnels_without_end_and_long_chains_stop() -> None:
    """A frame of nothing but tunnels, and one of nothing but extension headers."""
    nested = frames.udp(b"abcd")
    for _ in range(2000):
        nested = frames.ipv4(nested[:65000], 4 if nested[:1] == b"\x45" else 17)
    chain = frames.ipv6(b"\0\0" + bytes(6) + (b"\0" * 8) * 8000, 0)
    labels = frames.eth(b"\0\0\x10\x40" * 16000, 0x8847)
    tags = frames.eth(b"\0\7\x81\0" * 16000, 0x8100)
    columns = packet_columns(dissect(*frames.layout([nested, chain], 101)))
    assert columns["stop_reason"].to_pylist() == ["depth", "length"]
    columns = packet_columns(dissect(*frames.layout([labels, tags], 1)))
    assert columns["stop_layer"].to_pylist() == ["mpls", "vlan"]
    assert columns["stop_reason"].to_pylist() == ["length", "length"]
