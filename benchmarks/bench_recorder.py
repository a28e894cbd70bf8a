#!/usr/bin/env python3
"""What recording costs: the recorder's CPU for each event, and how much slower the watched program gets.

Rounds alternate between no recorder, ours with different contents, and others (tcpdump, strace, perf trace,
sysdig's modern eBPF probe), on the same load, so that a machine that changes its speed changes all. One JSON
line for each load and recorder, with medians. Recorders that are not installed are left out; STRATOKIT_SYSDIG
is the command of a sysdig with the modern probe, as `chroot /srv/sid sysdig`.

    benchmarks/bench_recorder.py [--rounds 5] [--seconds 4] [--count 1000000] [--loads dd] [--only sysdig]
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
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("", "tools", "benchmarks", "tests")]

from loads import Load, cpu_s, loads  # noqa: E402
from other_recorders import OTHERS, Cost, Recorder, peak_bytes  # noqa: E402
from recording import watches  # noqa: E402

from stratokit.record.cgroups import cgroup2_root  # noqa: E402


@contextlib.contextmanager
def nothing(_: Path, __: Load) -> Iterator[Cost]:
    yield Cost()


def ours(*options: str) -> Recorder:
    """The recording part alone: session.record in a process of its own, as `stratokit record` runs it."""

    @contextlib.contextmanager
    def run(folder: Path, _: Load) -> Iterator[Cost]:
        spool = folder / "bench.spool"
        cost = Cost(reacts="--default-limit" in options)
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
        for scope in (cgroup2_root() or Path("/")).glob(f"stratokit-bench-{process.pid}"):
            scope.rmdir()
        cost.events, cost.lost, cost.file_bytes = told["events"], told["lost"], spool.stat().st_size
        spool.unlink()

    return run


RECORDERS: dict[str, Recorder] = {
    "none": nothing,
    "stratokit, all system calls": ours("all", "--calls-only"),
    "stratokit, default": ours("default", "--default-limit"),
    "stratokit, everything": ours("default"),
    "stratokit, packets": ours("none"),
    "stratokit, packets, --snaplen 256": ours("none", "--snaplen", "256"),
    "stratokit, sockets and processes": ours("none", "--no-packets"),
    "stratokit, --interface lo": ours("none", "--interface", "lo"),
    "stratokit, packets, --tls": ours("none", "--tls"),
    "stratokit, scope of another cgroup": ours("default", "--other-cgroup"),
    "stratokit, scope of another process": ours("default", "--other-process"),
    "stratokit, filter that nothing passes": ours("default", "--filter", "tcp.port == 1"),
    "stratokit, --max-cpu 20%": ours("all", "--max-cpu", "0.2"),
    **OTHERS,
}


def measure(load: Load, rounds: int, folder: Path, chosen: list[str]) -> Iterator[dict[str, Any]]:
    """Alternate the chosen recorders, and give a line each. One that leaves out what costs too much meets the
    load twice: the second time shows what it costs once it has, the first time with that.
    """
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    loads_us: dict[str, list[float]] = {name: [] for name in chosen}
    costs: dict[str, list[Cost]] = {name: [] for name in chosen}
    first: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name in chosen:
            if name.startswith("tcpdump") and load.name == "dd":
                continue
            with RECORDERS[name](folder, load) as cost:
                if cost.reacts:
                    operations, seconds, _ = load.run(cost.prefix, cost.share)
                    first[name].append(operations / seconds)
                operations, seconds, used_s = load.run(cost.prefix, cost.share)
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
        if first[name]:
            slower = [1 - rate / base for rate, base in zip(first[name], rates["none"], strict=True)]
            line["slowdown_with_reaction"] = round(statistics.median(slower), 3)
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
    parser.add_argument("--loads", default="", help="beginnings of names, with commas")
    parser.add_argument("--only", default="", help="parts of names of recorders, with commas")
    chosen = parser.parse_args()
    words = [word for word in chosen.only.split(",") if word]
    names = [n for n in RECORDERS if n == "none" or not words or any(word in n for word in words)]
    with tempfile.TemporaryDirectory() as folder, loads(chosen.seconds, chosen.count) as found:
        for load in (load for load in found if load.name.startswith(tuple(chosen.loads.split(",")))):
            for line in measure(load, chosen.rounds, Path(folder), names):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
