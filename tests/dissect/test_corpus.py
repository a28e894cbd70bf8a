"""Every capture of the corpus against tshark: each frame's columns, and the facts that were kept of the file.

The rules by which both may differ are in docs/dissect.md, and stand in `helpers.tshark_columns` and here.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.decoded import Row, conversations, decode, ends
from helpers.pcapng_bytes import Section
from helpers.tshark_columns import LENGTH_MAX, differences
from helpers.tshark_layers import said

from stratokit.dissect.fragments import Reassembler
from stratokit.errors import FormatError
from stratokit.formats import registry

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
MANIFEST = CORPUS / "MANIFEST.jsonl"
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.slow,
    pytest.mark.skipif(not MANIFEST.exists(), reason=f"there are no captures at {CORPUS}"),
]
ENTRIES = [json.loads(line) for line in MANIFEST.read_text().splitlines()] if MANIFEST.exists() else []
# Without the corpus one test stands for all, to be seen skipped.
FILES = [entry["file"] for entry in ENTRIES if "scap" not in entry["kind"]] or ["no corpus"]
SIMPLE_PACKET = 3  # pcapng's block without a time


@dataclasses.dataclass
class Compared:
    """What was found in one file."""

    refused: str = ""
    orig_lens: list[int] = dataclasses.field(default_factory=list)
    cap_lens: list[int] = dataclasses.field(default_factory=list)
    ts_ns: list[int] = dataclasses.field(default_factory=list)
    skipped_blocks: int = 0
    differences: list[str] = dataclasses.field(default_factory=list)
    conversations: dict[Any, list[int]] = dataclasses.field(default_factory=dict)
    # Ends of TCP of which a frame is odd, and whether there are frames with layers that we do not know.
    odd_ends: set[Any] = dataclasses.field(default_factory=set)
    unknown_layers: bool = False


class Merged:
    """One file of all frames of many, so that tshark has to start but once."""

    def __init__(self, path: Path) -> None:
        self._section, self._link_types = Section(), dict[int, int]()
        self._out = path.open("wb")
        self._out.write(self._section.header())

    def add(self, batch: Any) -> None:
        for i, at in enumerate(batch.offsets.tolist()):
            link_type = int(batch.link_types[i])
            if link_type not in self._link_types:
                self._link_types[link_type] = len(self._link_types)
                self._out.write(self._section.interface(link_type=link_type))
            frame = batch.data[at : at + int(batch.cap_lens[i])].tobytes()
            interface, size = self._link_types[link_type], int(batch.orig_lens[i])
            self._out.write(self._section.packet(frame, interface=interface, orig_len=size))

    def close(self) -> None:
        self._out.close()


def compare(folder: Path) -> dict[str, Compared]:
    """Read all files, let tshark read their frames, and compare frame by frame."""
    found = {name: Compared() for name in FILES}
    rows: dict[str, list[Row]] = {}
    merged, reassembler = Merged(folder / "all.pcapng"), Reassembler()
    for name, one in found.items():
        rows[name] = []
        try:
            form = registry.by_content(CORPUS / name)
            assert form.open_reader is not None
            with form.open_reader(CORPUS / name) as reader:
                for batch in reader.batches():
                    rows[name] += decode(batch, reassembler)
                    one.orig_lens += batch.orig_lens.tolist()
                    one.cap_lens += batch.cap_lens.tolist()
                    one.ts_ns += batch.ts_ns[batch.blocks != SIMPLE_PACKET].tolist()
                    merged.add(batch)
                one.skipped_blocks = getattr(reader, "skipped_blocks", 0)
                if reader.damage is not None and not rows[name]:
                    one.refused = reader.damage.reason
        except FormatError as error:
            one.refused = str(error)
    merged.close()
    frames = iter(said(folder / "all.pcapng"))
    for name, one in found.items():
        malformed = set(facts_of(name)["malformed_frames"])
        for number, row in enumerate(rows[name], 1):
            one.differences += [f"frame {number} {line}" for line in differences(row, next(frames))]
            if number in malformed or row["stop_reason"] or row["orig_len"] > LENGTH_MAX:
                one.odd_ends.add(ends(row))
        one.conversations = conversations(rows[name])
        one.unknown_layers = any(row["stop_reason"] == "unknown" for row in rows[name])
    assert next(frames, None) is None
    return found


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compared]:
    """Made by the first worker that gets here; the others wait and read what it wrote."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    kept = folder / "compared.pickle"
    with (folder / "compared.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_bytes(pickle.dumps(compare(folder)))
    found: dict[str, Compared] = pickle.loads(kept.read_bytes())
    return found


def facts_of(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((CORPUS / f"{name}.oracle.json").read_text())
    return facts


def read(name: str, compared: dict[str, Compared]) -> Compared:
    one = compared[name]
    if one.refused:
        pytest.skip(f"not read: {one.refused}")
    return one


def read_by_both(name: str, compared: dict[str, Compared]) -> tuple[Compared, dict[str, Any]]:
    one, facts = read(name, compared), facts_of(name)
    if facts["refused"]:
        pytest.skip("tshark refused it")
    return one, facts


def has_odd_fractions(path: Path) -> bool:
    """Whether a packet has a million microseconds or more, in a file of libpcap's classic format."""
    data = path.read_bytes()
    order = {b"\xa1\xb2\xc3\xd4": ">", b"\xd4\xc3\xb2\xa1": "<"}.get(data[:4])
    at = 24
    while order and at + 16 <= len(data):
        _, fraction, size = struct.unpack_from(f"{order}III", data, at)
        if fraction >= 10**6:
            return True
        at += 16 + size
    return False


@pytest.mark.parametrize("name", FILES, ids=str)
def test_columns_of_each_frame_equal_tsharks(name: str, compared: dict[str, Compared]) -> None:
    assert read(name, compared).differences == []


@pytest.mark.parametrize("name", FILES, ids=str)
def test_sums_equal_the_kept_facts(name: str, compared: dict[str, Compared]) -> None:
    one, facts = read_by_both(name, compared)
    if one.skipped_blocks:
        pytest.skip("tshark counts blocks of unknown types as packets")
    lens = [min(size, LENGTH_MAX) for size in one.orig_lens]
    ours = {
        "packets": len(lens),
        "bytes": sum(lens),
        "captured_bytes": sum(one.cap_lens),
        "truncated_packets": sum(cap < size for cap, size in zip(one.cap_lens, lens, strict=True)),
    }
    assert ours == {key: facts[key] for key in ours}


@pytest.mark.parametrize("name", FILES, ids=str)
def test_times_equal_the_kept_facts(name: str, compared: dict[str, Compared]) -> None:
    one, facts = read_by_both(name, compared)
    times = one.ts_ns
    if not times:
        pytest.skip("no times in it")
    if has_odd_fractions(CORPUS / name):
        pytest.skip("tshark holds fractions of a second in 32 bits")
    if min(times) < 0 and facts["max_ns"] > 2**63:
        pytest.skip("tshark takes times before 1970 for such far ahead")
    ours = {
        "first_ns": times[0],
        "last_ns": times[-1],
        "min_ns": min(times),
        "max_ns": max(times),
        "timestamps_going_back": int((np.diff(times) < 0).sum()),
    }
    assert ours == {key: facts[key] for key in ours}


@pytest.mark.parametrize("name", FILES, ids=str)
def test_tcp_between_two_ends_equals_the_kept_facts(name: str, compared: dict[str, Compared]) -> None:
    """Sums over all connections between them, as it is for others to say where one begins anew."""
    one, facts = read_by_both(name, compared)
    if facts.get("tcp_conversations_left_out"):
        pytest.skip("not all conversations were kept")
    theirs: dict[Any, list[int]] = {}
    for c in facts["tcp_conversations"]:
        pair = frozenset({(c["src"], int(c["sport"])), (c["dst"], int(c["dport"]))})
        values = [c[key] for key in ("frames", "bytes", "payload", "fin", "syn", "rst")]
        theirs[pair] = [a + b for a, b in zip(theirs.get(pair, [0] * 6), values, strict=True)]
    # What is malformed for tshark, or cut, or whose length it cannot say, is judged frame by frame above;
    # so is what lies in layers that we do not know.
    left_out = set(one.odd_ends)
    if one.unknown_layers:
        left_out |= theirs.keys() - one.conversations.keys()
    kept = theirs.keys() - left_out
    assert {pair: one.conversations.get(pair) for pair in kept} == {pair: theirs[pair] for pair in kept}
