#!/usr/bin/env python3
"""How fast tables of protocols are made, beside tshark printing the same columns of the same file.

    benchmarks/bench_protocols.py [--bytes 1e9] [--rounds 3] [--only http] [FILE]

FILE is made by tools/make_bench_capture.py in a temporary directory when it is not given. Each round runs
every case once; tshark runs once. One JSON line a case, with medians: seconds of wall clock, CPU seconds,
peak memory, and `times_faster` and `times_less_cpu` against tshark.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench_engine import STRATOKIT, Case, make_capture, measured, report

# For each table: a display filter for its messages, the fields that stand in its columns, options.
TSHARK: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "http": (
        "http",
        (
            "tcp.stream", "frame.time_epoch", "frame.number", "ip.src", "tcp.srcport", "ip.dst",
            "tcp.dstport", "http.request.method", "http.host", "http.request.uri", "http.request.version",
            "http.user_agent",
            "http.response.code", "http.content_type", "http.content_encoding", "http.content_length",
            "http.request_in", "http.time",
        ),
        (),
    ),
}  # fmt: skip


def cases(table: str, file: Path) -> list[Case]:
    chosen, fields, options = TSHARK[table]
    names = [part for field in fields for part in ("-e", field)]
    tshark = ["tshark", "-n", "-r", str(file), *options, "-Y", chosen, "-T", "fields", *names]
    ours = [*STRATOKIT, "table", table, str(file), "--format", "ndjson", "--limit", "0"]
    return [
        Case(f"tshark: {table}", tshark, rounds=1),
        Case(f"table {table}", ours, f"tshark: {table}", 50),
        Case(f"table {table}, one processor", ours, f"tshark: {table}", cpus=1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--bytes", type=float, default=1e9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="tables, with commas between them")
    arguments = parser.parse_args()
    tables = arguments.only.split(",") if arguments.only else list(TSHARK)
    with tempfile.TemporaryDirectory(prefix="stratokit-bench-") as name:
        file = arguments.file or Path(name) / "big.pcap"
        if arguments.file is None:
            make_capture(file, arguments.bytes)
        found = [case for table in tables for case in cases(table, file)]
        for case in found:  # compiles kernels, fills the page cache
            if not case.rounds and not case.cpus:
                measured(case.command)
        for number in range(arguments.rounds):
            for case in found:
                if not case.rounds or number < case.rounds:
                    case.runs.append(measured(case.command, case.cpus))
        by_name = {case.name: case for case in found}
        for case in found:
            report(case, by_name, file.stat().st_size)


if __name__ == "__main__":
    main()
