"""Real captures with facts from other programs; tests that need them are skipped where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stratokit.engine.capture import Capture
from stratokit.errors import StratokitError

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
MARKS = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no {CORPUS}"),
]


def files(tag: str) -> list[str]:
    """Captures with a tag (its part before a colon), scap files not among them."""
    if not CORPUS.is_dir():
        return []
    entries = map(json.loads, (CORPUS / "MANIFEST.jsonl").read_text().splitlines())
    return [
        entry["file"]
        for entry in entries
        if tag in {t.partition(":")[0] for t in entry["tags"]} and "scap" not in entry["kind"]
    ]


def of_kind(kind: str) -> list[Any]:
    """Captures whose kind contains `kind`, as parameters of a test; without a corpus one that is skipped."""
    if not CORPUS.is_dir():
        return [pytest.param(None, marks=MARKS)]
    entries = map(json.loads, (CORPUS / "MANIFEST.jsonl").read_text().splitlines())
    return [
        pytest.param(CORPUS / entry["file"], id=entry["file"]) for entry in entries if kind in entry["kind"]
    ]


def opened(name: str) -> tuple[Capture, dict[str, Any]]:
    """The capture and the facts about it."""
    facts = json.loads((CORPUS / f"{name}.oracle.json").read_text())
    try:
        return Capture.open(CORPUS / name), facts
    except StratokitError as error:
        pytest.skip(f"no reader: {error}")
