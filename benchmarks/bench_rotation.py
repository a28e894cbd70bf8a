#!/usr/bin/env python3
"""What a change of segments costs a recording: recordings of the same length with and without rotation.

Processes that do nothing, with open descriptors, stand for a larger host. Rounds alternate. One JSON line for
each host: CPU of the recorder for a change, and the size of a segment in which nearly nothing happens.

    benchmarks/bench_rotation.py [--rounds 3] [--seconds 8] [--processes 0,300]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("", "tools", "benchmarks")]

from loads import cpu_s  # noqa: E402

IDLE = (
    "import os, time; f = [os.open('/dev/null', 0) for _ in range(20)]; print(flush=True); time.sleep(3600)"
)


@contextlib.contextmanager
def host(processes: int) -> Iterator[None]:
    """So many more processes of 20 descriptors."""
    idle = [
        subprocess.Popen([sys.executable, "-S", "-c", IDLE], stdout=subprocess.PIPE) for _ in range(processes)
    ]
    try:
        for each in idle:
            assert each.stdout is not None
            each.stdout.readline()
        yield
    finally:
        for each in idle:
            each.kill()
            each.communicate()


def run(seconds: float, *options: str) -> tuple[float, int, int]:
    """CPU seconds of the recorder while it recorded, segments, bytes of the first spool's beginning."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.parquet"
        command = [sys.executable, "-m", "stratokit", "record", "-o", str(out), "--no-packets"]
        command += ["--no-sockets", "--syscalls", "fsync", "--keep-in", "memory", *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as recorder:
            assert recorder.stderr is not None
            recorder.stderr.readline()  # holding what happens ...
            before = cpu_s(recorder.pid)
            time.sleep(seconds)
            used = cpu_s(recorder.pid) - before
            status = subprocess.run(
                [sys.executable, "-m", "stratokit", "trigger", "--list", "--json"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            about = next(
                found for found in map(json.loads, status.stdout.splitlines()) if found["pid"] == recorder.pid
            )
            recorder.send_signal(signal.SIGINT)
            recorder.communicate()
    return used, about["segments"], about["kept_bytes"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--processes", default="0,300")
    options = parser.parse_args()
    for processes in map(int, options.processes.split(",")):
        changes, sizes = [], []
        with host(processes):
            there = sum(path.name.isdigit() for path in Path("/proc").iterdir())
            for _ in range(options.rounds):
                # Eight segments: one a second, or one for the whole time.
                often, segments, kept = run(options.seconds, "--keep", "8s")
                seldom, one, _ = run(options.seconds, "--keep", "1h")
                changes.append((often - seldom) / max(segments - one, 1))
                sizes.append(kept / segments)
        row = {
            "processes": there,
            "change_cpu_ms": round(1000 * statistics.median(changes), 1),
            "segment_begins_with_kb": round(statistics.median(sizes) / 1024),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
