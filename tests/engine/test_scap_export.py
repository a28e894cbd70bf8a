"""Recordings as scap files: what sysdig shows of them is what our tables say, event by event."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers import scap_bytes as sb
from helpers import sysdig

from stratokit.engine import convert
from stratokit.engine.capture import Capture
from stratokit.errors import UsageError
from stratokit.formats import source as source_module

SAMPLES = Path(__file__).parents[2] / "sample_captures"
CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
needs_sysdig = pytest.mark.skipif(not sysdig.SYSDIG, reason="sysdig is not installed")


@needs_sysdig
@pytest.mark.parametrize("name", ["nginx-curl", "mixed"])
def test_sysdig_shows_of_a_recording_what_our_tables_say(tmp_path, name):
    source = SAMPLES / f"{name}.parquet"
    convert.convert_files([source], tmp_path / "x.scap")
    rows = Capture.open(source).rows("syscall").collect()
    both = sysdig.compared(rows, sysdig.events(tmp_path / "x.scap", *sysdig.FIELDS))
    capture = Capture.open(source)
    sysdig.equal(both, capture.rows("process").collect(), sysdig.served(capture))


def test_current_readers_take_a_recording(tmp_path):
    convert.convert_files([SAMPLES / "mixed.parquet"], tmp_path / "x.scap")
    sysdig.current_readers_take(tmp_path / "x.scap")


def test_the_end_of_what_nothing_else_is_known_of_is_not_told(tmp_path):
    """A process that ended while the recorder listed those that were there."""
    source = pq.ParquetFile(SAMPLES / "mixed.parquet")
    ends = source.read(columns=None).filter((pc.field("kind") == "process") & (pc.field("event") == "exit"))
    nobody = pa.array([4_000_000], ends.schema.field("pid").type)
    row = ends.slice(0, 1)
    for name in ("pid", "tid"):
        row = row.set_column(row.schema.get_field_index(name), row.schema.field(name), nobody)
    with pq.ParquetWriter(tmp_path / "x.parquet", source.schema_arrow) as writer:
        for group in range(source.num_row_groups):
            writer.write_table(source.read_row_group(group))
        writer.write_table(row)
    convert.convert_files([tmp_path / "x.parquet"], tmp_path / "x.scap")
    sysdig.current_readers_take(tmp_path / "x.scap")
    assert Capture.open(tmp_path / "x.scap").rows("process").filter(pid=4_000_000).collect().is_empty()


@needs_sysdig
def test_sysdig_opens_the_modern_profile(tmp_path):
    source = SAMPLES / "mixed.parquet"
    choices = convert.Choices(scap_profile="modern")
    convert.convert_files([source], tmp_path / "x.scap", choices=choices)
    shown = sysdig.events(
        tmp_path / "x.scap", "evt.dir", "evt.type", "evt.rawtime", "thread.tid", "proc.name"
    )
    rows = Capture.open(source).rows("syscall").collect()
    # It skips events whose types it does not know.
    exits = shown.filter(pl.col("evt.dir") == "<")
    assert 0.9 * rows.filter(pl.col("ret").is_not_null()).height < exits.height
    assert set(shown.filter(pl.col("evt.dir") == ">")["evt.type"]) <= {"procexit"}


def test_a_recording_reads_back_as_it_was(tmp_path):
    source = SAMPLES / "nginx-curl.parquet"
    convert.convert_files([source], tmp_path / "x.scap")
    back = Capture.open(tmp_path / "x.scap")
    assert back.info()["losses"] == {}
    names = ["ts", "tid", "pid", "comm", "syscall", "duration_ns", "ret", "errno", "path", "fd"]
    older = {new: old for new, old in sysdig.OLDER.items() if new not in ("pread64", "pwrite64", "prlimit64")}
    ours = (
        Capture.open(source)
        .rows("syscall")
        .filter(pl.col("ret").is_not_null(), pl.col("duration_ns").is_not_null())
    )
    ours = ours.with_columns(pl.col("syscall").replace(older)).select(names).collect()
    theirs = (
        back.rows("syscall")
        .with_columns(pl.col("syscall").replace(older))
        .filter(pl.col("duration_ns").is_not_null())
    )
    theirs = theirs.select(names).collect()
    both = ours.join(theirs, on=["ts", "tid"], how="left", suffix="_back")
    assert both["syscall_back"].null_count() == 0
    for name in ("pid", "comm", "duration_ns"):
        assert both.filter(pl.col(name).ne_missing(pl.col(f"{name}_back"))).is_empty(), name
    # Generic events carry neither result nor arguments.
    told = both.filter(pl.col("ret_back").is_not_null())
    assert told.height > both.height / 2
    assert told.filter(pl.col("ret") != pl.col("ret_back")).is_empty()
    opened = told.filter(pl.col("syscall") == "openat")
    assert opened["path"].to_list() == opened["path_back"].to_list()


def several_versions() -> bytes:
    """Two sections with old and new blocks, events that nobody knows, and calls that never return."""
    thread = sb.process(4, 10, 10, "sh", cgroups=b"cpu=/a\0")
    one = (
        sb.section(minor=1)
        + sb.machine()
        + sb.processes(4, thread)
        + sb.fds(1, 10, sb.fd(1, 3, 7, 1, sb.sized(b"/x")))
    )
    one += sb.event(0x204, 1000, 10, 6, sb.s64(3), sb.u32(9)) + sb.event(0x204, 1500, 10, 7, sb.s64(1), b"a")
    two = sb.section() + sb.processes(9, sb.process(9, 10, 10, "bash", tail=bytes(29)))
    two += sb.event(0x217, 2000, 10, 4, sb.s64(3), flags=1, cpu=1) + sb.event(0x216, 2000, 11, 60_000, b"new")
    two += sb.event(0x221, 2100, -1, 324, sb.text("{}"), wide=True) + sb.event(
        0x8010ABCD, 2200, 10, 6, sb.s64(4), sb.u32(1)
    )
    return one + two


@pytest.mark.parametrize("by_parquet", [True, False])
def test_a_scap_file_is_written_again_to_the_byte(tmp_path, by_parquet):
    source = tmp_path / "a.scap"
    source.write_bytes(several_versions())
    start = source
    if by_parquet:
        convert.convert_files([source], start := tmp_path / "a.parquet")
    convert.convert_files([start], tmp_path / "b.scap")
    assert (tmp_path / "b.scap").read_bytes() == source.read_bytes()


@pytest.mark.corpus
def test_scap_files_of_the_corpus_are_written_again_to_the_byte(tmp_path):
    files = sorted(CORPUS.rglob("*.scap")) if CORPUS.exists() else []
    if not files:
        pytest.skip(f"no scap files at {CORPUS}")
    for number, source in enumerate(files):
        between, again = tmp_path / f"{number}.parquet", tmp_path / f"{number}.scap"
        convert.convert_files([source], between)
        convert.convert_files([between], again)
        assert again.read_bytes() == source_module.read_head(source, 1 << 30), source


def test_a_profile_is_for_recordings(tmp_path):
    source = tmp_path / "a.scap"
    source.write_bytes(several_versions())
    with pytest.raises(UsageError, match="written as it was"):
        convert.convert_files([source], tmp_path / "b.scap", choices=convert.Choices(scap_profile="modern"))


@pytest.mark.skipif("STRATOKIT_SID" not in os.environ, reason="STRATOKIT_SID names no folder with Debian sid")
def test_current_readers_show_what_our_tables_say():
    """sysdig 0.41 and Stratoshark in a folder made by debootstrap: event by event; no latency there."""
    folder = Path(os.environ["STRATOKIT_SID"])
    inside = folder / "stratokit-test.scap"
    source = SAMPLES / "nginx-curl.parquet"
    try:
        convert.convert_files([source], inside)
        there = ("chroot", str(folder))
        fields = [name for name in sysdig.FIELDS if not name.startswith("fd.s")]
        shown = sysdig.events(Path("/", inside.name), *fields, program=(*there, "sysdig"))
        rows = Capture.open(source)
        both = sysdig.compared(rows.rows("syscall").collect(), shown)
        for ours, theirs in (("pid", "proc.pid"), ("comm", "proc.name"), ("ret", "evt.rawres")):
            same = pl.col(ours).cast(pl.String) == pl.col(theirs).cast(pl.String)
            assert both.filter(~same).is_empty(), ours
        # Stratoshark: a line for each of the same events, its rows not shifted against their fields.
        done = subprocess.run(
            [*there, "strato", "-r", f"/{inside.name}"], capture_output=True, text=True, check=True
        )
        calls = both.filter(pl.col("evt.type") == "connect").height
        assert sum(line.split()[2] == "connect" for line in done.stdout.splitlines() if line.strip()) >= calls
    finally:
        inside.unlink(missing_ok=True)
