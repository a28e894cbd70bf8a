"""Reading scap files: by the clock and by CPU time, and beside sysdig in the same run.

    .venv/bin/python benchmarks/bench_scap.py [FILE]

Without a file it makes one of a million events: calls of a thousand threads on files and sockets.
"""

from __future__ import annotations

import functools
import gzip
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import scap_bytes as sb

from stratokit.engine.capture import Capture
from stratokit.engine.scap.follower import all_rows
from stratokit.engine.scap.stream import SMALL_WINDOW_BYTES
from stratokit.formats.scap.reader import Events, ScapReader

EVENTS = 1_000_000
PROGRAM = """import sys
from stratokit.engine.capture import Capture
rows = Capture.open(sys.argv[1]).rows("syscall").select("scap_exit_number", "comm", "fd_name")
rows.collect(engine="streaming")
"""
FORMAT = "%evt.num %proc.name %fd.name"


def make(path: Path) -> None:
    """Opens, reads, writes and closes, each of enter and exit, in blocks of threads."""
    chance = random.Random(1)
    threads = [sb.process(9, 100 + n, 100 + n, f"worker{n % 7}") for n in range(1000)]
    with path.open("wb") as file:
        file.write(sb.section() + sb.machine() + sb.processes(9, *threads))
        for n in range(EVENTS // 10):
            tid, ts = 100 + chance.randrange(1000), 10**18 + n * 10_000
            name = sb.text(f"/srv/data/{chance.randrange(500)}/file.txt")
            opened = sb.s64(-100), name, sb.u32(1), sb.u32(0)
            calls = [(306, opened), (307, (sb.s64(7), *opened, sb.u32(1), sb.u64(n)))]
            for _ in range(3):
                calls += [
                    (6, (sb.s64(7), sb.u32(4096))),
                    (7, (sb.s64(64), b"x" * 64, sb.s64(7), sb.u32(4096))),
                ]
            calls += [(4, (sb.s64(7),)), (5, (sb.s64(0), sb.s64(7)))]
            for k, (type_, params) in enumerate(calls):
                file.write(sb.event(0x216, ts + 100 * k, tid, type_, *params))


def cpu_seconds() -> float:
    """Of this process and of programs that it started."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def best(measure: Callable[[], object], runs: int = 7) -> tuple[float, float]:
    """Seconds of the fastest of some runs by the clock, and by CPU time of all threads and programs."""
    times = []
    for _ in range(runs):
        cpu, clock = cpu_seconds(), time.perf_counter()
        measure()
        times.append((time.perf_counter() - clock, cpu_seconds() - cpu))
    return min(clock for clock, _ in times), min(cpu for _, cpu in times)


def read(path: Path) -> None:
    room = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(room):
            pass


def walked(path: Path) -> int:
    """How many events there are; what their parameters are is not looked at."""
    with ScapReader(path) as reader:
        return sum(item.rows.size for item in reader.items(SMALL_WINDOW_BYTES) if isinstance(item, Events))


def followed(path: Path) -> None:
    with ScapReader(path) as reader:
        for _ in all_rows(reader.items()):
            pass


def three_fields(path: Path) -> None:
    rows = Capture.open(path).rows("syscall").select("scap_exit_number", "comm", "fd_name")
    rows.collect(engine="streaming")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "bench.scap"
        if len(sys.argv) == 1:
            make(path)
        packed = Path(folder) / "bench.scap.gz"
        with path.open("rb") as plain, gzip.open(packed, "wb", compresslevel=6) as file:
            shutil.copyfileobj(plain, file)
        run = functools.partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
        cases: dict[str, Callable[[], object]] = {
            "bytes of the file read": lambda: read(path),
            "headers of events": lambda: walked(path),
            "events followed": lambda: followed(path),
            "number, process, file": lambda: three_fields(path),
            "the same of a .gz": lambda: three_fields(packed),
            "the same, a program": lambda: run([sys.executable, "-c", PROGRAM, str(path)]),
            "all columns": lambda: Capture.open(path).rows("syscall").collect(),
        }
        if shutil.which("sysdig"):
            cases["sysdig"] = lambda: run(["sysdig", "-r", str(path), "-p", FORMAT])
            cases["sysdig of a .gz"] = lambda: run(["sysdig", "-r", str(packed), "-p", FORMAT])
        events, size = walked(path), path.stat().st_size / 1e6
        print(f"{size:.0f} MB, {events:,} events, {len(os.sched_getaffinity(0))} processors")
        followed(path), three_fields(path), three_fields(packed)
        taken = {name: best(measure) for name, measure in cases.items()}
        theirs = taken.get("sysdig")
        for name, (clock, cpu) in taken.items():
            line = f"{name:<24}{clock:7.3f} s {cpu:7.3f} s CPU {events / cpu:11,.0f} events/s CPU"
            if theirs:
                line += f", sysdig {theirs[0] / clock:5.1f} times that, {theirs[1] / cpu:5.1f} in CPU"
            print(line)


if __name__ == "__main__":
    main()
