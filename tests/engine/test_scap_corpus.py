"""scap files of other programs against what sysdig 0.29.3 says about them."""

from __future__ import annotations

import collections
import json
import struct
from pathlib import Path

import polars as pl
import pytest
from helpers import sysdig
from helpers.sysdig_args import differences

from stratokit.engine.capture import Capture
from stratokit.formats.scap import blocks
from stratokit.schema import scap

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
FILES = sorted(CORPUS.rglob("*.scap")) if CORPUS.exists() else []
# sysdig uses these and does not show them.
HIDDEN = {"procinfo", "container"}

pytestmark = pytest.mark.corpus


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def path(request):
    return request.param


@pytest.mark.skipif(not FILES, reason=f"no scap files at {CORPUS}")
def test_counts_by_event_type_are_those_of_sysdig(path):
    oracle = json.loads(path.with_name(path.name + ".oracle.json").read_text())
    capture = Capture.open(path)
    shown = {event.name for event in scap.events().values()}
    names = {event.call: event.name for event in scap.events().values() if event.call not in shown}
    counts: collections.Counter[str] = collections.Counter()
    directions: collections.Counter[str] = collections.Counter()
    calls = capture.rows("syscall").select("syscall", "scap_enter_number", "scap_exit_number").collect()
    for call, enter, exit_ in calls.iter_rows():
        for number, direction in ((enter, ">"), (exit_, "<")):
            counts[names.get(call, call)] += number is not None
            directions[direction] += number is not None
    for (name,) in capture.rows("event").select("event").collect().iter_rows():
        if name not in HIDDEN:
            counts[name] += 1
            directions[">"] += 1
    assert dict(counts) == oracle["event_types"]
    assert dict(directions) == oracle["event_dirs"]
    assert capture.info()["losses"] == {}


@pytest.mark.skipif(not sysdig.SYSDIG, reason="sysdig is not installed")
@pytest.mark.skipif(not FILES, reason=f"no scap files at {CORPUS}")
def test_every_call_is_what_sysdig_says(path):
    fields = ("evt.dir", "evt.type", "evt.rawtime", "evt.latency", "thread.tid", "proc.pid", "proc.name")
    theirs = sysdig.events(path, *fields, "fd.num", "fd.name", "evt.rawres").filter(pl.col("evt.dir") == "<")
    ours = Capture.open(path).rows("syscall").filter(pl.col("scap_exit_number").is_not_null())
    ours = ours.with_columns(pl.col("scap_exit_number").cast(pl.Int64)).collect()
    both = ours.join(theirs, left_on="scap_exit_number", right_on="evt.num", how="full", coalesce=True)
    assert both.height == ours.height == theirs.height
    equal = {
        "comm": pl.col("proc.name"),
        "tid": pl.col("thread.tid"),
        "pid": pl.col("proc.pid"),
        "duration_ns": pl.when(pl.col("scap_enter_number").is_not_null()).then("evt.latency"),
        "ret": pl.col("evt.rawres").cast(pl.Int64),
    }
    for name, value in equal.items():
        lacking = both.filter(pl.col(name).is_null() & value.is_not_null() & (name == "ret"))
        assert set(lacking["syscall"]) <= {"exit_group", "arch_prctl"}, name
        different = both.filter(
            pl.col(name).is_not_null(),
            pl.col(name).cast(pl.Int64, strict=False).ne_missing(value.cast(pl.Int64, strict=False))
            | (pl.col(name).cast(pl.String) != value.cast(pl.String)),
        )
        assert different.select("scap_exit_number", name, value.alias("theirs")).is_empty(), name
    _fd_names(both)


def _fd_names(both: pl.DataFrame) -> None:
    """Files by name; of a socket both ends, which sysdig always writes from client to server."""
    named = both.filter(pl.col("fd_name").is_not_null() & (pl.col("fd_kind") == "file"))
    assert named.filter(pl.col("fd_name") != pl.col("fd.name"))["fd_name"].to_list() == []
    assert not named.is_empty()
    ends = both.filter(
        pl.col("src_port").is_not_null(), pl.col("dst_port").is_not_null(), pl.col("src_port") > 0
    )
    # Of a datagram socket that connects again, sysdig goes on to show the first address.
    ends = ends.filter(~pl.col("dst_ip").str.starts_with("2001:"))
    plain = ends.select(
        theirs="fd.name",
        there=pl.format("{}:{}->{}:{}", "src_ip", "src_port", "dst_ip", "dst_port"),
        back=pl.format("{}:{}->{}:{}", "dst_ip", "dst_port", "src_ip", "src_port"),
    )
    assert plain.filter(
        (pl.col("theirs") != pl.col("there")) & (pl.col("theirs") != pl.col("back"))
    ).is_empty()


def _type(block: bytes) -> int:
    """Type of the event in a block; flags stand before the header of some."""
    flags = 4 if struct.unpack("<I", block[:4])[0] in blocks.FLAGGED_EVENTS else 0
    return int(struct.unpack_from("<H", block, 30 + flags)[0])


@pytest.mark.skipif(not sysdig.SYSDIG, reason="sysdig is not installed")
@pytest.mark.skipif(not FILES, reason=f"no scap files at {CORPUS}")
def test_every_argument_is_what_sysdig_says(path):
    """Of what rows have a column for; on connected sockets writers leave out the ends."""
    theirs = sysdig.events(path, "evt.dir", "evt.args")
    rows = Capture.open(path).rows("syscall").collect()
    for part, direction in (("enter", ">"), ("exit", "<")):
        number = pl.col(f"scap_{part}_number").cast(pl.Int64)
        ours = rows.filter(number.is_not_null()).with_columns(number)
        shown = theirs.filter(pl.col("evt.dir") == direction)
        both = ours.join(shown, left_on=f"scap_{part}_number", right_on="evt.num")
        assert both.height > 30
        both = both.with_columns(type=pl.Series([_type(block) for block in both[f"scap_{part}"]]))
        found = differences(both)
        assert [row for row in found if row[2] is not None and row[3] != "NULL"] == []
