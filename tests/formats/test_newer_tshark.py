"""The pcapng export in a newer tshark than this machine's, with processes as that one shows them.

STRATOKIT_NEWER_ROOT names a folder with another system that has tshark 4.6 or later, made for instance by
`debootstrap --include=tshark --variant=minbase sid FOLDER`; running programs in it needs root.
"""

import os
import re
import subprocess
from pathlib import Path

import polars as pl
import pytest

import stratokit as sk

SAMPLES = Path(__file__).resolve().parents[2] / "sample_captures"
ROOT = os.environ.get("STRATOKIT_NEWER_ROOT", "")
pytestmark = pytest.mark.skipif(not ROOT, reason="STRATOKIT_NEWER_ROOT names no folder with a newer tshark")


def tshark(*arguments, stdin=subprocess.DEVNULL):
    command = ["chroot", ROOT, "tshark", *arguments]
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if "Running as user" not in line] == []
    return done.stdout.splitlines()


def test_it_is_newer():
    found = re.search(r"(\d+)\.(\d+)\.\d+", tshark("--version")[0])
    assert found
    assert (int(found[1]), int(found[2])) >= (4, 6)


@pytest.mark.parametrize("name", sorted(path.stem for path in SAMPLES.glob("*.parquet")))
def test_frames_and_their_processes(name, tmp_path):
    capture = sk.open(SAMPLES / f"{name}.parquet")
    exported = tmp_path / "a.pcapng"
    capture.export(exported)
    prefix = "frame.darwin.process_info"
    fields = ["frame.number", "frame.len", f"{prefix}.pid", f"{prefix}.pname"]
    with exported.open("rb") as file:
        lines = tshark("-n", "-r", "-", "-T", "fields", *(w for f in fields for w in ("-e", f)), stdin=file)
    packets = capture.table("packets").select("frame", "ts", "orig_len", "pid", "comm").collect()
    first = packets.sort("ts").unique("frame", keep="first", maintain_order=True).sort("frame")
    expected = first.select("frame", "orig_len", pl.col("pid").fill_null(""), pl.col("comm").fill_null(""))
    shown = [line.split("\t") for line in lines]
    assert [[row[0], *row[2:]] for row in shown] == [
        [str(frame), str(pid or ""), comm] for frame, _, pid, comm in expected.iter_rows()
    ]
    assert [int(row[1]) for row in shown] >= expected["orig_len"].to_list()
