"""What the benchmarks share: the capture they measure on, cases in alternating rounds, lines of JSON."""

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

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
STRATOKIT = [PYTHON, "-m", "stratokit"]


@dataclasses.dataclass
class Run:
    wall_s: float
    cpu_s: float
    peak_bytes: int


@dataclasses.dataclass
class Case:
    """A command; `against` is the case whose time is divided by this one's, `cpus` how many it may use."""

    name: str
    command: list[str]
    against: str = ""
    target: float = 0.0
    cpus: int = 0
    rounds: int = 0
    inner: bool = False  # the program says itself how long it took
    runs: list[Run] = dataclasses.field(default_factory=list)


def measured(command: list[str], cpus: int = 0, inner: bool = False, root: Path = ROOT) -> Run:
    """Run it to its end; what it used is told by the kernel, with its children. `root`: whose code runs."""
    allowed = sorted(os.sched_getaffinity(0))
    # An installed package has byte code, so it may be written here too.
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": ""}

    os.sched_setaffinity(0, allowed[: cpus or len(allowed)])  # which the child inherits
    begin = time.perf_counter()
    output = subprocess.PIPE if inner else subprocess.DEVNULL
    place = None if root == ROOT else root  # where `python -m` looks first
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, env=environment, cwd=place)
    os.sched_setaffinity(0, allowed)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{errors.decode(errors='replace')}")
    cpu = usage.ru_utime + usage.ru_stime
    if process.stdout is not None:
        wall, cpu = map(float, process.stdout.read().split())
    return Run(wall, cpu, usage.ru_maxrss * 1024)


def make_capture(path: Path, size: float, samples: str = "*") -> None:
    tool = str(ROOT / "tools" / "make_bench_capture.py")
    command = [PYTHON, tool, str(path), "--bytes", str(size), "--samples", samples]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})


def arguments_of(description: str | None) -> argparse.ArgumentParser:
    """What they all take: a file or the size of one to be made, and how many rounds."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--bytes", type=float, default=1e9)
    parser.add_argument("--rounds", type=int, default=3)
    return parser


@contextlib.contextmanager
def capture_of(arguments: argparse.Namespace) -> Iterator[Path]:
    """The file to measure on, and beside it room for others if it was made."""
    with tempfile.TemporaryDirectory(prefix="stratokit-bench-") as name:
        file = arguments.file or Path(name) / "big.pcap"
        if arguments.file is None:
            make_capture(file, arguments.bytes)
        yield file


def compare(cases: list[Case], rounds: int, size: int) -> None:
    """Run each case once a round, so that a machine that changes its speed changes all; print medians."""
    for case in cases:  # compiles kernels, fills the page cache
        if case.command[0] == PYTHON and not case.rounds and not case.cpus:
            measured(case.command, inner=case.inner)
    for number in range(rounds):
        for case in cases:
            if not case.rounds or number < case.rounds:
                case.runs.append(measured(case.command, case.cpus, case.inner))
    by_name = {case.name: case for case in cases}
    for case in cases:
        report(case, by_name, size)


def report(case: Case, all_cases: dict[str, Case], size: int) -> None:
    wall = statistics.median(run.wall_s for run in case.runs)
    cpu = statistics.median(run.cpu_s for run in case.runs)
    line: dict[str, object] = {
        "case": case.name,
        "rounds": len(case.runs),
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "peak_mb": round(max(run.peak_bytes for run in case.runs) / 1e6),
        "mb_per_s": round(size / wall / 1e6),
        "mb_per_cpu_s": round(size / cpu / 1e6),
    }
    if case.against in all_cases:
        other = all_cases[case.against]
        line["against"] = case.against
        line["times_faster"] = round(statistics.median(run.wall_s for run in other.runs) / wall, 1)
        line["times_less_cpu"] = round(statistics.median(run.cpu_s for run in other.runs) / cpu, 1)
        if case.target:
            line["target"] = case.target
    print(json.dumps(line), flush=True)
