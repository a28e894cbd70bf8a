#!/usr/bin/env python3
"""How fast capture files are read and converted, beside other programs on the same file in the same run.

    benchmarks/bench_engine.py [--bytes 1e9] [--rounds 3] [--large 4e9,8e9] [FILE]

FILE is made by tools/make_bench_capture.py in a temporary directory when it is not given. In each round every
case runs once, so that a machine that changes its speed changes all. One JSON line a case, with medians:
seconds of wall clock, CPU seconds, peak memory, and `times_faster` than the case that it is held against.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from timing import PYTHON, STRATOKIT, Case, arguments_of, capture_of, compare, make_capture, measured

FIELDS = ("frame.time_epoch", "frame.len", "ip.src", "ip.dst", "ip.proto", "tcp.srcport", "tcp.dstport")

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


def main() -> None:
    parser = arguments_of(__doc__)
    parser.add_argument("--large", default="", help="sizes of files whose peak memory is measured: 4e9,8e9")
    arguments = parser.parse_args()
    with capture_of(arguments) as file, tempfile.TemporaryDirectory(prefix="stratokit-bench-") as name:
        folder = Path(name)
        compare(cases(file, folder), arguments.rounds, file.stat().st_size)
        small(arguments.rounds)
        for size in filter(None, arguments.large.split(",")):
            memory(folder, float(size), make_capture)


if __name__ == "__main__":
    main()
