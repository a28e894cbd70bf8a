#!/usr/bin/env python3
"""How long a report takes on a recording of ten million events, and how much memory.

    benchmarks/bench_report.py [--packets 2e6] [--syscalls 8e6] [--rounds 3] [FILE]

FILE is made of copies of sample_captures/mixed.parquet and nginx-curl.parquet, each later, in conversations,
sockets and processes of its own, until it has as many rows. One JSON line a case, with medians: seconds of
wall clock, CPU seconds, peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import pyarrow as pa

from stratokit.formats.parquet import CaptureWriter
from stratokit.schema import load
from stratokit.schema.arrow import arrow_schema

SAMPLES = Path(__file__).resolve().parents[1] / "sample_captures"
STRATOKIT = [sys.executable, "-m", "stratokit"]
STEP = {"frame": 1 << 12, "flow_id": 128, "socket_cookie": 1 << 22, "pid": 1 << 10, "tid": 1 << 10}
GROUP = 64  # copies a row group


def copies(rows: pl.DataFrame, first: int, count: int, span_ns: int) -> pl.DataFrame:
    """Copies number `first` and on, each in numbers and a time of its own."""
    many = pl.concat([rows.with_columns(copy=pl.lit(first + k, pl.Int64)) for k in range(count)])
    moved = [
        (pl.col(name).cast(pl.Int64) + pl.col("copy") * step).cast(many.schema[name]).alias(name)
        for name, step in STEP.items()
        if name in many.columns
    ]
    return many.with_columns(*moved, pl.col("ts") + pl.duration(nanoseconds=pl.col("copy") * span_ns)).drop(
        "copy"
    )


def make(path: Path, packets: int, syscalls: int) -> None:
    """Write the recording."""
    # The one has many packets a call, the other many calls a packet.
    parts = [pl.read_parquet(SAMPLES / f"{name}.parquet") for name in ("mixed", "nginx-curl")]
    many, few = ([part.filter(kind=kind).height for part in parts] for kind in ("packet", "syscall"))
    both = many[0] * few[1] - many[1] * few[0]
    wanted = [
        (packets * few[1] - syscalls * many[1]) // both,
        (syscalls * many[0] - packets * few[0]) // both,
    ]
    with CaptureWriter(path, {"host": "{}", "options": "{}"}) as writer:
        for kind in ("packet", "syscall", "socket", "process"):
            columns = [column for column in load.capture().of_kind(kind) if column.name != "kind"]
            schema = arrow_schema(columns)
            for number, (part, count) in enumerate(zip(parts, wanted, strict=True)):
                names = [column.name for column in columns if column.name in part.columns]
                rows = part.filter(kind=kind).select(names)
                for first in range(0, count, GROUP):
                    table = copies(
                        rows, first + number * wanted[0], min(GROUP, count - first), 5_000_000_000
                    ).to_arrow()
                    filled = [
                        table[f.name].cast(f.type) if f.name in names else pa.nulls(table.num_rows, f.type)
                        for f in schema
                    ]
                    writer.write(kind, pa.table(filled, schema=schema))


def measured(command: list[str]) -> dict[str, float]:
    """Wall clock, CPU and peak memory of a program."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} ended with {status}")
    wall = time.perf_counter() - begin
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--packets", type=float, default=2e6)
    parser.add_argument("--syscalls", type=float, default=8e6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("file", nargs="?", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stratokit-") as folder:
        path = asked.file or Path(folder) / "ten-million.parquet"
        if not path.exists():
            make(path, int(asked.packets), int(asked.syscalls))
        cases = {
            "report": ["report", str(path), "--limit", "15"],
            "one flow": ["table", "packets", str(path), "--where", "tcp.port == 42406", "--limit", "5"],
        }
        runs = {
            name: [measured(STRATOKIT + case) for _ in range(asked.rounds)] for name, case in cases.items()
        }
        for name, several in runs.items():
            medians = {key: round(statistics.median(run[key] for run in several), 2) for key in several[0]}
            print(json.dumps({"case": name, **medians, "bytes": path.stat().st_size}))


if __name__ == "__main__":
    main()
