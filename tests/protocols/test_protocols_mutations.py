"""Real captures with damaged bytes: every table of a protocol gives rows, and nothing raises or hangs.

A bounded run: a few damaged copies of each file, other ones with each protocol. And the size of the parts
that conversations are read in changes nothing.
"""

from __future__ import annotations

import contextlib
import functools
import random
from pathlib import Path

import pytest
from helpers.corpus import CORPUS, MARKS, files

from stratokit.engine.capture import Capture
from stratokit.errors import FormatError
from stratokit.protocols import over_tcp
from stratokit.protocols.registry import protocols
from stratokit.streams import byte_runs, reassembly

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "sample_captures").glob("*.parquet"))
SIZE_MAX = 40_000
COPIES = 4
TABLES = [name for name in protocols() if name != "http_bodies"]


def chosen() -> list[str]:
    """Small captures of each protocol, at most a dozen of each."""
    found: dict[str, None] = {}
    for tag in ("dns", "http", "tls-hello", "quic-hello", "http2", "websocket"):
        small = [name for name in files(tag) if (CORPUS / name).stat().st_size < SIZE_MAX]
        found |= dict.fromkeys(small[:: max(len(small) // 12, 1)][:12])
    return list(found)


def tables(path: Path) -> None:
    capture = Capture.open(path)
    for name in TABLES:
        rows = capture.table(name).collect()
        for column in rows.columns:
            if column.endswith("_bytes"):
                assert (rows[column].drop_nulls() >= 0).all()


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS) for name in chosen()])
def test_damaged_copies(name: str, tmp_path: Path) -> None:
    whole = (CORPUS / name).read_bytes()
    rng = random.Random(name)
    for number in range(COPIES):
        damaged = bytearray(whole)
        for _ in range(1 + len(whole) // 400):
            at = rng.randrange(min(24, len(damaged) - 1), len(damaged))
            damaged[at] = rng.choice(
                [0, 0xFF, 0x0C, 0xC0, damaged[at] ^ 1 << rng.randrange(8), rng.randrange(256)]
            )
        path = tmp_path / f"{number}{Path(name).suffix}"
        path.write_bytes(damaged)
        with contextlib.suppress(FormatError):  # nothing of it could be read
            tables(path)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_sizes_of_parts_change_nothing(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: Capture.open(sample).table(name).collect() for name in TABLES}
    assert any(frame.height for frame in before.values())
    batches = reassembly.batches
    for group, ahead, batch, looked_at in ((1, 2, 1 << 28, 1), (5000, 20_000, 30_000, 700)):
        monkeypatch.setattr(over_tcp, "GROUP_BYTES", group)
        monkeypatch.setattr(over_tcp, "AHEAD_BYTES", ahead)
        small = functools.partial(batches, limit_bytes=batch)
        monkeypatch.setattr(reassembly, "batches", small)
        monkeypatch.setattr(byte_runs, "_LOOKED_AT_BYTES", looked_at)
        for name, frame in before.items():
            assert Capture.open(sample).table(name).collect().equals(frame)
