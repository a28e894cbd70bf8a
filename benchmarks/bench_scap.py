"""Reading scap files: events for a second of CPU on one core, and beside sysdig in the same run.

    .venv/bin/python benchmarks/bench_scap.py [FILE]

Without a file it makes one of a million events: calls of a thousand threads on files and sockets.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import scap_bytes as sb

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


def best(measure: object, runs: int = 3) -> float:
    """CPU seconds of the fastest of some runs, programs that were started included."""
    times = []
    for _ in range(runs):
        start = sum(os.times()[:4])
        measure()  # type: ignore[operator]
        times.append(sum(os.times()[:4]) - start)
    return min(times)


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core
    os.environ["POLARS_MAX_THREADS"] = "1"
    from stratokit.engine.capture import Capture
    from stratokit.engine.scap.follower import all_rows
    from stratokit.formats.scap.reader import Events, ScapReader

    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "bench.scap"
        if len(sys.argv) == 1:
            make(path)

        def follow() -> None:
            with ScapReader(path) as reader:
                for _ in all_rows(reader.items()):
                    pass

        def three_fields() -> None:
            rows = Capture.open(path).rows("syscall").select("scap_exit_number", "comm", "fd_name")
            rows.collect(engine="streaming")

        def whole_rows() -> None:
            Capture.open(path).rows("syscall").collect()

        with ScapReader(path) as reader:
            events = sum(item.rows.size for item in reader.items() if isinstance(item, Events))
        packed = path.with_suffix(".scap.gz")
        with path.open("rb") as plain, gzip.open(packed, "wb", compresslevel=6) as file:
            shutil.copyfileobj(plain, file)

        def of_packed() -> None:
            rows = Capture.open(packed).rows("syscall").select("scap_exit_number", "comm", "fd_name")
            rows.collect(engine="streaming")

        def program() -> None:
            subprocess.run([sys.executable, "-c", PROGRAM, str(path)], check=True, stdout=subprocess.DEVNULL)

        follow(), three_fields(), of_packed()
        taken: dict[str, float] = {}
        print(f"{path.stat().st_size / 1e6:.0f} MB, {events:,} events, one core")
        for name, measure in (
            ("follow", follow),
            ("number, process, file", three_fields),
            ("the same of a .gz", of_packed),
            ("the same, a program", program),
            ("all columns", whole_rows),
        ):
            seconds = best(measure)
            print(f"{name:<24}{seconds:8.2f} s {events / seconds:12,.0f} events/s")
            taken[name] = seconds
        for file, name in ((path, "number, process, file"), (packed, "the same of a .gz")):
            try:
                command = ["sysdig", "-r", str(file), "-p", FORMAT]
                theirs = best(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))  # noqa: B023
            except FileNotFoundError:
                return
            rate = f"{theirs:8.2f} s {events / theirs:12,.0f} events/s"
            print(f"{f'sysdig -p, {file.suffix}':<24}{rate}, {theirs / taken[name]:.1f} times ours")


if __name__ == "__main__":
    main()
