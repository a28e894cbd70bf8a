#!/usr/bin/env python3
"""What recording costs: the recorder's CPU for each event, and how much slower the watched program gets.

Rounds alternate between no recorder, ours with different contents, and `tcpdump -w`, on the same load, so
that a machine that changes its speed changes all. One JSON line for each load and recorder, with medians.

    benchmarks/bench_recorder.py [--rounds 5] [--seconds 4] [--count 1000000]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("", "tools", "benchmarks", "tests")]

from loads import Load, cpu_s, loads  # noqa: E402
from recording import watches  # noqa: E402


@dataclasses.dataclass
class Cost:
    """What a recorder used while the load ran."""

    cpu_s: float = 0.0
    events: int = 0
    events_per_s: float = 0.0
    lost: int = 0
    peak_bytes: int = 0
    file_bytes: int = 0


def peak_bytes(pid: int) -> int:
    """Peak of resident memory. The ring buffer is mapped twice in a row, and counted once here."""
    text = Path(f"/proc/{pid}/status").read_text()
    peak = int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) << 10
    ring, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line[0] in "0123456789abcdef":
            inside = "bpf-map" in line
        elif inside and line.startswith("Rss:"):
            ring += int(line.split()[1]) << 10
    return peak - ring // 2


@contextlib.contextmanager
def nothing(_: Path) -> Iterator[Cost]:
    yield Cost()


def ours(*options: str) -> Callable[[Path], contextlib.AbstractContextManager[Cost]]:
    """The recording part alone: session.record in a process of its own, as `stratokit record` runs it."""

    @contextlib.contextmanager
    def run(folder: Path) -> Iterator[Cost]:
        spool = folder / "bench.spool"
        cost = Cost()
        command = [sys.executable, str(ROOT / "benchmarks" / "only_record.py"), str(spool), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while not watches(spool):
                assert process.poll() is None, "the recorder did not start"
                time.sleep(0.05)
            before = cpu_s(process.pid)
            yield cost
            time.sleep(0.3)  # what is in the ring belongs to the load
            cost.cpu_s = cpu_s(process.pid) - before
            cost.peak_bytes = peak_bytes(process.pid)
            process.send_signal(signal.SIGINT)
            told = json.loads(process.communicate()[0])
        cost.events, cost.lost, cost.file_bytes = told["events"], told["lost"], spool.stat().st_size
        spool.unlink()

    return run


def tcpdump(*options: str) -> Callable[[Path], contextlib.AbstractContextManager[Cost]]:
    @contextlib.contextmanager
    def run(folder: Path) -> Iterator[Cost]:
        path = folder / "bench.pcap"
        cost = Cost()
        command = ["tcpdump", "-i", "lo", "-w", str(path), "-Z", "root", *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            process.stderr.readline()
            time.sleep(0.5)
            before = cpu_s(process.pid)
            yield cost
            cost.cpu_s = cpu_s(process.pid) - before
            cost.peak_bytes = peak_bytes(process.pid)
            process.send_signal(signal.SIGINT)
            said = process.communicate()[1]
        numbers = {
            line.split(" ", 1)[1]: int(line.split(" ", 1)[0])
            for line in said.splitlines()
            if line[:1].isdigit()
        }
        cost.events = numbers.get("packets captured", 0)
        cost.lost = numbers.get("packets dropped by kernel", 0)
        cost.file_bytes = path.stat().st_size
        path.unlink()

    return run


RECORDERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Cost]]] = {
    "none": nothing,
    "stratokit, all system calls": ours("all", "--calls-only"),
    "stratokit, default": ours("default"),
    "stratokit, packets": ours("none"),
    "tcpdump": tcpdump(),
    "tcpdump -s 256": tcpdump("-s", "256"),
}


def measure(load: Load, rounds: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Alternate all recorders, and give a line each."""
    rates: dict[str, list[float]] = {name: [] for name in RECORDERS}
    loads_us: dict[str, list[float]] = {name: [] for name in RECORDERS}
    costs: dict[str, list[Cost]] = {name: [] for name in RECORDERS}
    for _ in range(rounds):
        for name, recorder in RECORDERS.items():
            if name.startswith("tcpdump") and (shutil.which("tcpdump") is None or load.name == "dd"):
                continue
            with recorder(folder) as cost:
                operations, seconds, used_s = load.run()
            loads_us[name].append(used_s * 1e6 / operations)
            rates[name].append(operations / seconds)
            cost.events_per_s = cost.events / seconds
            costs[name].append(cost)
    for name, made in rates.items():
        if not made:
            continue
        slower = [1 - rate / base for rate, base in zip(made, rates["none"], strict=True)]
        line: dict[str, Any] = {
            "bench": "recorder",
            "load": load.name,
            "recorder": name,
            "operations_per_s": round(statistics.median(made)),
            "slowdown": round(statistics.median(slower), 3),
            "load_cpu_us_per_operation": round(statistics.median(loads_us[name]), 2),
        }
        if name != "none":
            line |= {
                "events": round(statistics.median(c.events for c in costs[name])),
                "events_per_s": round(statistics.median(c.events_per_s for c in costs[name])),
                "lost": sum(c.lost for c in costs[name]),
                "recorder_us_per_event": round(
                    statistics.median(c.cpu_s * 1e6 / max(c.events, 1) for c in costs[name]), 3
                ),
                "bytes_per_event": round(
                    statistics.median(c.file_bytes / max(c.events, 1) for c in costs[name])
                ),
                "peak_mb": round(max(c.peak_bytes for c in costs[name]) / 1e6),
            }
        yield line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--count", type=int, default=1_000_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, loads(chosen.seconds, chosen.count) as found:
        for load in found:
            for line in measure(load, chosen.rounds, Path(folder)):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
