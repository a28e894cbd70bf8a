"""Protocols are read from the same rows whether these are chosen in mapped windows or by polars."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from helpers.corpus import CORPUS, MARKS, files

from stratokit.engine.capture import Capture
from stratokit.protocols.base import Passes
from stratokit.protocols.registry import protocols
from stratokit.streams import reassembly, segment_rows

TABLES = [name for name in protocols() if name != "http_bodies"]
SIZE_MAX = 400_000


def some() -> list[str]:
    """Captures of each kind of payload: datagrams, fragments, streams, tunnels."""
    found: dict[str, None] = {}
    for tag in ("dns", "http", "tls-hello", "quic-hello", "http2", "websocket", "ip-fragments", "tunnel"):
        names = [name for name in files(tag) if (CORPUS / name).stat().st_size < SIZE_MAX]
        found |= dict.fromkeys(names[:: max(len(names) // 3, 1)][:3])
    return list(found)


def tables(path: Path) -> tuple[dict[str, pl.DataFrame], Passes]:
    capture = Capture.open(path)
    capture.passes.expected.update(TABLES)
    return {name: capture.table(name).collect() for name in TABLES}, capture.passes


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS) for name in some()])
def test_windows_and_polars_choose_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, passes = tables(CORPUS / name)
    monkeypatch.setattr(reassembly, "BATCH_SEGMENTS", 7)
    in_groups, passes_of_groups = tables(CORPUS / name)
    monkeypatch.setattr(Capture, "packet_windows", lambda _capture, _names: None)
    in_memory, passes_in_memory = tables(CORPUS / name)
    for table, rows in found.items():
        assert rows.equals(in_groups[table]), table
        assert rows.equals(in_memory[table]), table
    assert passes.counters == passes_of_groups.counters == passes_in_memory.counters


def test_the_first_bytes_of_payload_are_numbers() -> None:
    head = pl.DataFrame({"payload_head": pl.Series([0x0102030405060708, 2**64 - 1], dtype=pl.UInt64)})
    read = head.select(
        a=segment_rows.lead(1),
        b=segment_rows.lead(2, at=4),
        c=segment_rows.lead(4, at=1),
        d=segment_rows.lead(2, at=6),
    )
    assert read.rows() == [(1, 0x0506, 0x02030405, 0x0708), (0xFF, 0xFFFF, 0xFFFFFFFF, 0xFFFF)]
