#!/usr/bin/env python3
"""How fast capture files are read and converted, beside other programs on the same file in the same run.

    benchmarks/bench_engine.py [--bytes 1e9] [--rounds 3] [--large 4e9,8e9] [FILE]

FILE is made by tools/make_bench_capture.py in a temporary directory when it is not given. In each round every
case runs once, so that a machine that changes its speed changes all. One JSON line a case, with medians:
seconds of wall clock, CPU seconds, peak memory, and `times_faster` than the case that it is held against.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("frame.time_epoch", "frame.len", "ip.src", "ip.dst", "ip.proto", "tcp.srcport", "tcp.dstport")
PYTHON = sys.executable
STRATOKIT = [PYTHON, "-m", "stratokit"]

# Programs of one line, with the file as their argument.
PACKETS = """
import sys, time
from stratokit.engine.capture import Capture
rows = Capture.open(sys.argv[1]).table("packets").collect(engine="streaming").height
"""
# The same once more, when libraries and kernels are loaded, as in a notebook.
AGAIN = f"""{PACKETS}
wall, cpu = time.perf_counter(), time.process_time()
rows = Capture.open(sys.argv[1]).table("packets").collect(engine="streaming").height
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
DPKT = """
import sys, dpkt
count = 0
for ts, data in dpkt.pcap.Reader(open(sys.argv[1], "rb")):
    ip = dpkt.ethernet.Ethernet(data).data
    fields = ts, len(data), ip.src, ip.dst, ip.p, getattr(ip.data, "sport", 0), getattr(ip.data, "dport", 0)
    count += 1
print(count)
"""
NFSTREAM = """
import sys, nfstream
print(sum(1 for _ in nfstream.NFStreamer(source=sys.argv[1], n_dissections=0)))
"""


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


def measured(command: list[str], cpus: int = 0, inner: bool = False) -> Run:
    """Run it to its end; what it used is told by the kernel, children of its own and all."""
    allowed = sorted(os.sched_getaffinity(0))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    os.sched_setaffinity(0, allowed[: cpus or len(allowed)])  # which the child inherits
    begin = time.perf_counter()
    output = subprocess.PIPE if inner else subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, env=environment)
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


def cases(file: Path, output: Path) -> list[Case]:
    tshark = ["tshark", "-n", "-r", str(file), "-T", "fields", *(x for f in FIELDS for x in ("-e", f))]
    convert = [*STRATOKIT, "convert", "--force", str(file), str(output / "big.parquet")]
    packets, again = ([PYTHON, "-c", program, str(file)] for program in (PACKETS, AGAIN))
    known = [
        Case("tshark: seven fields", tshark, rounds=1),
        Case("capinfos", ["capinfos", str(file)]),
        Case("capinfos without hashes", ["capinfos", "-c", "-u", "-a", "-e", "-d", str(file)]),
        Case("dpkt: seven fields", [PYTHON, "-c", DPKT, str(file)], rounds=1),
        Case("nfstream: flows", [PYTHON, "-c", NFSTREAM, str(file)], rounds=1),
        Case("packets", packets, "tshark: seven fields", 40),
        Case("packets, again", again, "tshark: seven fields", 40, inner=True),
        Case("packets, again, one processor", again, "tshark: seven fields", cpus=1, inner=True),
        Case(
            "packets, again, two processors", again, "packets, again, one processor", 1.7, cpus=2, inner=True
        ),
        Case("info", [*STRATOKIT, "info", str(file)], "capinfos", 5),
        Case("convert to parquet", convert, "tshark: seven fields", 15),
        Case("convert to parquet, one processor", convert, "tshark: seven fields", cpus=1),
    ]
    return [case for case in known if available(case.command)]


def available(command: list[str]) -> bool:
    if command[0] != PYTHON:
        return shutil.which(command[0]) is not None
    wanted = {DPKT: "dpkt", NFSTREAM: "nfstream"}.get(command[2])
    return wanted is None or importlib.util.find_spec(wanted) is not None


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


def small(rounds: int) -> None:
    """Times that do not depend on a file."""
    programs: list[tuple[str, list[str], float]] = [
        ("stratokit --help", [*STRATOKIT, "--help"], 0.25),
        ("import stratokit", [PYTHON, "-c", "import stratokit"], 0.1),
        ("python alone", [PYTHON, "-c", ""], 0.0),
    ]
    for name, command, target in programs:
        wall = statistics.median(measured(command).wall_s for _ in range(2 * rounds + 1))
        line = {"case": name, "wall_s": round(wall, 3)}
        print(json.dumps(line | ({"target_s": target} if target else {})), flush=True)


def memory(folder: Path, size: float, make: Callable[[Path, float], None]) -> None:
    """Peak memory of a conversion of a file of `size` bytes."""
    file = folder / "large.pcap"
    make(file, size)
    run = measured([*STRATOKIT, "convert", "--force", str(file), str(folder / "large.parquet")])
    scan = measured([PYTHON, "-c", SUM, str(file)])
    for name, found in (("convert to parquet", run), ("bytes by address pair", scan)):
        line = {
            "case": f"{name}, large file",
            "file_bytes": file.stat().st_size,
            "wall_s": round(found.wall_s, 1),
            "peak_mb": round(found.peak_bytes / 1e6),
            "target_mb": 1500,
        }
        print(json.dumps(line), flush=True)
    file.unlink()


SUM = """
import sys, polars as pl
from stratokit.engine.capture import Capture
rows = Capture.open(sys.argv[1]).rows("packet").group_by("src_ip", "dst_ip").agg(pl.col("orig_len").sum())
print(rows.collect(engine="streaming").height)
"""


def make_capture(path: Path, size: float, samples: str = "*") -> None:
    tool = str(ROOT / "tools" / "make_bench_capture.py")
    command = [PYTHON, tool, str(path), "--bytes", str(size), "--samples", samples]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--bytes", type=float, default=1e9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", default="", help="sizes of files whose peak memory is measured: 4e9,8e9")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stratokit-bench-") as name:
        folder = Path(name)
        file = arguments.file or folder / "big.pcap"
        if arguments.file is None:
            make_capture(file, arguments.bytes)
        found = cases(file, folder)
        for case in found:  # compiles kernels, fills the page cache
            if case.command[0] == PYTHON and not case.rounds and not case.cpus:
                measured(case.command, inner=case.inner)
        for number in range(arguments.rounds):
            for case in found:
                if not case.rounds or number < case.rounds:
                    case.runs.append(measured(case.command, case.cpus, case.inner))
        by_name = {case.name: case for case in found}
        for case in found:
            report(case, by_name, file.stat().st_size)
        small(arguments.rounds)
        for size in filter(None, arguments.large.split(",")):
            memory(folder, float(size), make_capture)


if __name__ == "__main__":
    main()
