"""A container, recorded: sysdig shows its id and name, and so do we when the file is read back."""

from __future__ import annotations

import secrets

import polars as pl
import pytest
from helpers import sysdig
from recording import recording
from workloads import boxed
from workloads.common import find_program

from stratokit.engine import convert
from stratokit.engine.capture import Capture

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not find_program("runc"), reason="runc is not installed"),
    pytest.mark.skipif(not sysdig.SYSDIG, reason="sysdig is not installed"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(what the container did, the recording, the scap file)"""
    folder, container_id = tmp_path_factory.mktemp("box"), secrets.token_hex(32)
    with recording(folder / "a.parquet") as record, boxed.container(folder / "bundle", container_id) as did:
        record.stop()  # while its cgroup is there
    convert.convert_files([record.path], folder / "a.scap")
    return did, record.path, folder / "a.scap"


def inside(path, container_id):
    return Capture.open(path).rows("syscall").filter(pl.col("container_id") == container_id).collect()


def test_sysdig_shows_the_container_of_each_event(made):
    did, recorded, path = made
    ours = inside(recorded, did.container_id).filter(pl.col("ret").is_not_null())
    fields = ("container.id", "container.name", "container.type")
    theirs = sysdig.events(path, *sysdig.FIELDS, *fields)
    rows = Capture.open(recorded).rows("syscall").collect()
    both = sysdig.compared(rows, theirs)
    boxed_rows = both.filter(pl.col("container_id") == did.container_id)
    assert set(did.programs) <= set(boxed_rows["comm"])
    assert boxed_rows.filter(syscall="rename").height + boxed_rows.filter(syscall="renameat2").height == 1
    short = did.container_id[:12]
    assert boxed_rows.height == ours.height > 50
    assert set(boxed_rows["container.id"]) == {short}
    assert set(boxed_rows["container.name"]) == {_name(recorded, did) or short}
    assert set(boxed_rows["container.type"]) == {"docker"}
    capture = Capture.open(recorded)
    sysdig.equal(boxed_rows, capture.rows("process").collect(), sysdig.served(capture))
    elsewhere = both.filter(pl.col("container_id").is_null(), pl.col("comm").is_in(["python", "pytest"]))
    assert set(elsewhere["container.id"]) <= {"host"}


def _name(path, did):
    rows = Capture.open(path).rows("container").filter(container_id=did.container_id).collect()
    assert rows.height == 1
    return rows["container_name"][0]


def test_it_reads_back(made):
    did, recorded, path = made
    ours, back = inside(recorded, did.container_id), inside(path, did.container_id)
    columns = ("ts", "tid", "comm", "container_id")
    assert back.select(columns).sort("ts", "tid").equals(ours.select(columns).sort("ts", "tid"))
    assert _name(path, did) == _name(recorded, did)
    boxes = [
        Capture.open(p).rows("container").select("container_id", "runtime").collect()
        for p in (recorded, path)
    ]
    assert boxes[0].equals(boxes[1])
    moved = back.filter(pl.col("syscall").str.starts_with("rename"))
    assert moved.select("path", "path2").rows() == [did.moved]
