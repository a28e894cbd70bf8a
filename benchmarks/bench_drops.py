#!/usr/bin/env python3
"""What recording of dropped packets costs the one who drops: datagrams to a closed port, each dropped and
answered by ICMP, with `--drops` and without, in turn. One JSON line with medians in us of CPU for a datagram.

    benchmarks/bench_drops.py [--rounds 9] [--count 18000]
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("", "tests")]

from recording import recording  # noqa: E402

ONLY = ("--no-packets", "--no-sockets", "--syscalls", "none", "--quiet", "--buffer", "64M")


def send(count: int) -> float:
    """CPU us for each datagram; the kernel drops it while it is being sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        start = time.process_time_ns()
        for _ in range(count):
            sender.sendto(b"x", ("127.0.0.1", 9))
        return (time.process_time_ns() - start) / count / 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=18_000)
    chosen = parser.parse_args()
    found: dict[str, list[float]] = {"nothing": [], "without": [], "with": []}
    recorded = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(chosen.rounds):
            found["nothing"].append(send(chosen.count))
            for name, option in (("without", "--no-drops"), ("with", "--drops")):
                with recording(Path(folder, f"{number}{name}.parquet"), *ONLY, option) as made:
                    found[name].append(send(chosen.count))
                if name == "with":
                    recorded += made.rows("drop").height
    medians = {f"{name}_us": round(statistics.median(times), 2) for name, times in found.items()}
    print(json.dumps({"bench": "drops", **medians, "recorded": recorded}))


if __name__ == "__main__":
    main()
