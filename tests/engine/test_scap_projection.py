"""A query of some columns of a scap file reads no more than they need, and gives what one of all gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import scap_bytes as sb
from helpers.scap_session import session

from stratokit.engine.capture import Capture
from stratokit.engine.scap import stream
from stratokit.engine.scap.follower import fd_places
from stratokit.engine.scap.projection import narrowed
from stratokit.formats.scap import params, reader
from stratokit.formats.scap.params import PLACE

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"


def each_column_alone(path: Path) -> None:
    for kind in ("syscall", "event"):
        rows = Capture.open(path).rows(kind)
        whole = rows.collect()
        assert whole.height
        for name in whole.columns:
            assert rows.select(name).collect()[name].equals(whole[name]), (kind, name)
            some = rows.filter(pl.col("tid") > 10).select(name).collect()
            assert some[name].equals(whole.filter(pl.col("tid") > 10)[name]), (kind, name)


def test_each_column_is_the_same_alone(tmp_path):
    (tmp_path / "x.scap").write_bytes(session())
    each_column_alone(tmp_path / "x.scap")


@pytest.mark.corpus
def test_each_column_of_files_of_other_programs_is_the_same_alone():
    files = sorted(CORPUS.rglob("test_ipv6_client.scap")) if CORPUS.exists() else []
    if not files:
        pytest.skip(f"no scap files at {CORPUS}")
    for path in files:
        each_column_alone(path)


def test_a_name_alone_needs_no_payload():
    """Of a read only its descriptor and result are looked at, of openat what names the file."""
    some, whole = narrowed(["comm", "fd_name"], fd_places()), params.tables()
    assert sorted(set(some.place[7])) == [0, PLACE["ret"], PLACE["arg0"]]
    assert some.looked_at[7] == 3 < whole.looked_at[7] == 4
    assert {PLACE["path"], PLACE["arg0"], PLACE["ret"]} <= set(some.place[307])
    assert np.array_equal(narrowed(None, fd_places()).place, whole.place)


def test_columns_of_a_file_of_many_windows_are_the_same_alone(tmp_path):
    """Calls that wait while windows go by, more rows than are made at once, and other events between."""
    waiting = [sb.event(0x216, n, 500 + n, 6, sb.s64(n % 5), sb.u32(n)) for n in range(5000)]
    assert sum(map(len, waiting)) > reader.ROOM_BYTES
    long_write = sb.event(0x216, 60, 9, 9, sb.s64(50_000), b"y" * 50_000, sb.s64(7), sb.u32(50_000))
    calls = []
    for n in range(35_000):
        name = sb.text(f"/srv/{n % 300}")
        opened = sb.event(0x216, 100 + n, 10 + n % 50, 3, sb.s64(n % 9), name, sb.u32(1), sb.u32(0))
        calls += [opened, sb.event(0x216, 100 + n, 10 + n % 50, 5, sb.s64(0), sb.s64(n % 9))]
        if n % 350 == 0:
            calls += [long_write, sb.event(0x216, 100 + n, 10, 152, sb.s64(1))]
    ends = [sb.event(0x216, 90_000 + n, 500 + n, 7, sb.s64(1), b"z", sb.s64(n % 5)) for n in range(20)]
    path = tmp_path / "x.scap"
    path.write_bytes(sb.section() + b"".join([*waiting, *calls, *ends]))
    assert path.stat().st_size > 2 * stream.SMALL_WINDOW_BYTES
    rows = Capture.open(path).rows("syscall")
    whole = rows.collect()
    assert whole.height == 70_000 + 100 + 5000 > stream.BATCH_ROWS
    for names in (["tid", "fd_name"], ["duration_ns", "arg0", "ret"], ["ts", "syscall", "data"]):
        assert rows.select(names).collect().equals(whole.select(names)), names
    assert rows.filter(pl.col("tid") >= 500).select("fd").collect()["fd"].len() == 5000
    assert rows.select("comm").head(10).collect().height == 10
    assert Capture.open(path).rows("event").select("tid").collect().height == 100


def test_packets_in_a_scap_file_are_counted(tmp_path):
    """Where they begin late, and none of them can be read, as nothing describes their interface."""
    path = tmp_path / "x.scap"
    event = sb.event(0x216, 5, 1, 6, sb.s64(3), sb.u32(1))
    packet = sb.block(6, bytes(20))
    path.write_bytes(
        sb.section() + event * ((17 << 20) // len(event)) + packet * 3 + event + sb.block(0xBAD, b"")
    )
    capture = Capture.open(path)
    assert capture.info()["losses"] == {"block_skipped": 4}
    assert capture.rows("packet").collect().is_empty()
