#!/usr/bin/env python3
"""What kernel programs cost: how long they run as they measure it themselves, and what the kernel does around
each run, which is the rest of what a load pays (`AROUND_NS` of record/host_load.py).

One JSON line for each load, from its CPU time without and with programs. Of dd's calls nothing is recorded,
so that programs are short; of datagrams packets are left out, as by `--max-cpu`.

    benchmarks/bench_around.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stratokit.record.loader import Kernel
from stratokit.record.options import Limits, RecordOptions

COUNT = 1_000_000
DATAGRAMS = 200_000
SENDER = f"""
import socket
to = socket.socket(type=socket.SOCK_DGRAM)
to.bind(("127.0.0.1", 0))
sender = socket.socket(type=socket.SOCK_DGRAM)
sender.connect(to.getsockname())
for _ in range({DATAGRAMS}):
    sender.send(b"x")
    to.recv(1)
"""
DD = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={COUNT}", "status=none"]
SHED_PACKETS = 4  # bpf/limits.c


def cpu_ns(command: list[str]) -> int:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e9)


def totals(kernel: Kernel, kind: int) -> tuple[int, int]:
    """Runs, and nanoseconds in them, of all processors."""
    runs, ns = zip(*kernel.costs()[kind], strict=True)
    return sum(runs), sum(ns)


def measure(name: str, command: list[str], kind: int, rounds: int, kernel: Kernel) -> None:
    alone = statistics.median(cpu_ns(command) for _ in range(rounds))
    kernel.attach()
    found = []
    for _ in range(rounds):
        runs_before, ns_before = totals(kernel, kind)
        used = cpu_ns(command)
        runs, ns = totals(kernel, kind)
        runs, ns = runs - runs_before, ns - ns_before
        found.append((ns / runs, (used - alone - ns) / runs))
    kernel.close()
    run, around = (round(statistics.median(values)) for values in zip(*found, strict=True))
    print(json.dumps({"bench": "around", "load": name, "run_ns": run, "around_run_ns": around}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "none")
        common = {"limits": Limits(busy_share=1.0), "drops": False, "sockets": False}
        measure(
            "dd",
            DD,
            0,
            rounds,
            Kernel(RecordOptions(place, place, syscalls="getpid", packets=False, **common)),
        )
        kernel = Kernel(RecordOptions(place, place, syscalls="none", **common))
        kernel.shed(SHED_PACKETS, frozenset())
        measure("datagrams", [sys.executable, "-c", SENDER], 1, rounds, kernel)


if __name__ == "__main__":
    main()
