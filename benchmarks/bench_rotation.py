#!/usr/bin/env python3
"""What a change of segments costs the recorder: the snapshot that the next one begins with, and writing it.

Nothing is recorded, so no privileges are needed beyond those for other users' descriptors. Idle processes
with open descriptors stand for a larger host. One JSON line for each host, with medians: CPU and time of a
change, how long the recorder's own thread is kept (the rest is done beside it), and bytes that a segment
begins with.

    benchmarks/bench_rotation.py [--rounds 7] [--processes 0,300,1000]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stratokit.record.options import Scope  # noqa: E402
from stratokit.record.segments import Segments  # noqa: E402
from stratokit.record.surroundings import Surroundings  # noqa: E402
from stratokit.record.watch import Watch  # noqa: E402

IDLE = (
    "import os, time; f = [os.open('/dev/null', 0) for _ in range(20)]; print(flush=True); time.sleep(3600)"
)


@dataclasses.dataclass
class NoKernel:
    """A kernel without programs."""

    pid: int = os.getpid()

    def own_child_pid(self) -> int:
        """No process converts."""
        return 0


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


def changes(rounds: int, folder: Path) -> dict[str, float]:
    """Medians of so many changes."""
    segments = Segments(lambda number: folder / f"{number}.spool", rolling=True, in_memory=False)
    segments.open({})
    kernel: Any = NoKernel()
    around = Surroundings(Watch(Scope()), kernel, segments.table)
    cpu, whole, held, size = [], [], [], []
    for _ in range(rounds):
        cpu_before, begin = time.process_time(), time.perf_counter()
        segments.prepare(around, with_calls=False)
        prepared = time.perf_counter()
        while not segments.ready:
            time.sleep(0.002)
        ready = time.perf_counter()
        old, _ = segments.change(around, {"monotonic_ns": time.monotonic_ns(), "totals": {}})
        end = time.perf_counter()
        cpu.append(time.process_time() - cpu_before)
        whole.append(end - begin)
        held.append(prepared - begin + end - ready)
        size.append(segments.current.bytes_written)
        old.drop()
    segments.end(0).drop()
    named = {"cpu_ms": cpu, "whole_ms": whole, "own_thread_ms": held}
    found = {name: round(1000 * statistics.median(values), 1) for name, values in named.items()}
    return found | {"begins_with_kb": round(statistics.median(size) / 1024)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", default="0,300,1000")
    options = parser.parse_args()
    for more in map(int, options.processes.split(",")):
        with host(more), tempfile.TemporaryDirectory() as folder:
            names = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
            fds = 0
            for path in names:
                with contextlib.suppress(OSError):
                    fds += len(os.listdir(path / "fd"))
            row = {"processes": len(names), "descriptors": fds, **changes(options.rounds, Path(folder))}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
