"""Compiling kernels is told, shared with another process, and cached; a bar shows how far reading came."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import pytest

from stratokit.engine.capture import Capture
from stratokit.engine.first_use import _SAMPLES, compile_protocols
from stratokit.engine.progress import watched


def content(count: int = 40) -> bytes:
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    return head + b"".join(struct.pack("<IIII", i, 0, 60, 60) + bytes(60) for i in range(count))


def test_who_compiles_says_so_once(tmp_path):
    path = tmp_path / "x.pcap"
    path.write_bytes(content())
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [
        sys.executable,
        "-m",
        "stratokit",
        "table",
        "packets",
        path,
        "--format",
        "csv",
        "--select",
        "ts",
    ]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)
    )
    assert first.stderr.count("\n") == 1
    assert "first use after installation" in first.stderr
    assert second.stderr == ""
    assert first.stdout == second.stdout


def test_the_other_process_has_something_to_read():
    """Every protocol that is read has its kernels compiled by this sample."""
    sample = next(path for path in _SAMPLES if path.exists())
    for alone in (True, False):
        compile_protocols(str(sample), alone)
    capture = Capture.open(sample)
    for name in ("http", "dns", "tls"):
        assert capture.table(name).collect().height > 0


@pytest.mark.parametrize("stop", [None, 3])
def test_a_pass_is_told_from_its_beginning_to_its_end(tmp_path, monkeypatch, stop):
    monkeypatch.setattr("stratokit.formats.pcap.BATCH_FRAMES", 5)
    path = tmp_path / "x.pcap"
    path.write_bytes(content())
    told = []
    rows = Capture.open(path).rows("packet").select("frame")
    with watched(lambda *step: told.append(step)):
        assert (rows if stop is None else rows.head(stop)).collect().height == (stop or 40)
    size = path.stat().st_size
    assert {(name, total) for name, _, total in told} == {("x.pcap", size)}
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert done[-1] == size
    assert all(part < size for part in done[:-1])
    told.clear()
    rows.collect()
    assert told == []
