"""Packet files of other programs: number of packets, lengths and times against what tshark counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stratokit.formats import registry

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
OTHER_FORMATS = {"scap-LE", "gz:scap-LE", "snoop"}
# Frames of link:unknown are custom blocks, which tshark numbers as frames and we count as blocks that were
# passed.
OTHER_TAGS = {"REFUSED-BY-TSHARK", "link:unknown"}
# tshark holds lengths in 31 bits, and the fraction of a second in 32: a fraction of a second or more
# overflows there.
LENGTH_MAX = 2**31 - 1
FRACTION_MAX = 10**9


def totals(path: Path) -> dict[str, Any]:
    packets, orig, cap, times = 0, 0, 0, []
    with registry.by_content(path).open_reader(path) as reader:
        for batch in reader.batches():
            packets += len(batch.offsets)
            orig += int(np.minimum(batch.orig_lens, LENGTH_MAX).sum())
            cap += int(batch.cap_lens.sum())
            times += batch.ts_ns.tolist()
        return {
            "packets": packets,
            "bytes": orig,
            "captured_bytes": cap,
            "first_ns": times[0] if times else None,
            "last_ns": times[-1] if times else None,
            "damaged": reader.damage is not None,
        }


def odd_time(path: Path) -> bool:
    """Fuzzed files with microseconds beyond a second, and times that tshark prints unsigned or not at all."""
    return "fuzz" in path.name or "regression_samples" in str(path) or path.name in ODD_TIMES


# Simple packet blocks carry no time; a 64-bit time before 1970.
ODD_TIMES = {"test011.pcapng", "pcapng-example.pcapng.zst"}


@pytest.mark.corpus
def test_packets_lengths_and_times() -> None:
    manifest = CORPUS / "MANIFEST.jsonl"
    if not manifest.exists():
        pytest.skip(f"no captures at {CORPUS}")
    wrong, compared = [], 0
    for line in manifest.read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] in OTHER_FORMATS or OTHER_TAGS & set(entry["tags"]):
            continue
        path = CORPUS / entry["file"]
        found = totals(path)
        facts = json.loads(Path(f"{path}.oracle.json").read_text())
        names = ["packets", "bytes", "captured_bytes"]
        if not odd_time(path):
            names += ["first_ns", "last_ns"]
        wrong += [f"{entry['file']}: {n} {found[n]}, not {facts[n]}" for n in names if found[n] != facts[n]]
        if found["damaged"] != ("tshark-rc:2" in entry["tags"]):
            wrong.append(f"{entry['file']}: damage {found['damaged']}")
        compared += 1
    assert compared > 800
    assert wrong == []
