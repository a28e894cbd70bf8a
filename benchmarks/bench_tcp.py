#!/usr/bin/env python3
"""How fast TCP is analysed and put together, beside tshark on the same file in the same run; peak memory.

    benchmarks/bench_tcp.py [--bytes 1e9] [--rounds 3] [--extremes] [FILE]

FILE is made by tools/make_bench_capture.py in a temporary directory when it is not given. One JSON line a
case, as bench_engine.py prints them. `--extremes` adds peak memory for one connection of 1 GB and for a
million connections of three segments.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from bench_engine import available
from timing import PYTHON, ROOT, Case, arguments_of, capture_of, compare, measured

ANALYSIS = ("tcp.analysis.flags", "tcp.analysis.ack_rtt")
TABLE = """
import sys
from stratokit.engine.capture import Capture
rows = Capture.open(sys.argv[1]).table("tcp").collect().height
"""
# The same once more, when libraries and kernels are loaded, as in a notebook.
AGAIN = f"""{TABLE}
import time
wall, cpu = time.perf_counter(), time.process_time()
rows = Capture.open(sys.argv[1]).table("tcp").collect().height
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
REASSEMBLY = """
import json, sys, time
import numpy as np
from stratokit.engine.capture import Capture
from stratokit.protocols.over_tcp import GROUP_BYTES
from stratokit.streams import reassembly

def run():
    wall, cpu, size = time.perf_counter(), time.process_time(), 0
    for streams in reassembly.batches(Capture.open(sys.argv[1])):
        everything = np.ones(streams.flow_id.size, bool)
        for group, _ in streams.groups(everything, GROUP_BYTES):  # as parsers get them
            size += streams.byte_runs(group).data.size
    return size, time.perf_counter() - wall, time.process_time() - cpu

run()
size, wall, cpu = run()
line = {"case": "reassembly, reading included", "payload_bytes": size, "mb_per_s": round(size / wall / 1e6)}
print(json.dumps(line | {"mb_per_cpu_s": round(size / cpu / 1e6), "target": 500}))
"""
# Ethernet, IPv4, TCP; the fields that vary are filled in by `extreme`.
_HEADER = bytes.fromhex("020000000001020000000002080045000028000040004006000000000000000000000000")
_HEADER = _HEADER[:26] + bytes((10, 0, 0, 1, 10, 0, 0, 2)) + bytes(20)
_RECORD = 16 + len(_HEADER)


def extreme(path: Path, connections: int, data_segments: int, size: int) -> None:
    """A pcap of `connections`, one after the other: SYN, data, FIN, all with `size` bytes."""
    each = data_segments + 2
    block = max(1, 2_000_000 // (each * (_RECORD + size)))
    with path.open("wb") as file:
        file.write(np.array([0xA1B23C4D, 2 | 4 << 16, 0, 0, 65535, 1], "<u4").tobytes())
        if connections == 1:
            for first in range(0, each, 10_000):
                file.write(_records(np.zeros(min(10_000, each - first), int), first, each, size))
            return
        for first in range(0, connections, block):
            numbers = np.repeat(np.arange(first, min(first + block, connections)), each)
            file.write(_records(numbers, 0, each, size))


def _records(connection: np.ndarray, first: int, each: int, size: int) -> bytes:
    place = (np.arange(connection.size) + first) % each
    rows = np.zeros((connection.size, _RECORD + size), np.uint8)
    rows[:, 16:_RECORD] = np.frombuffer(_HEADER, np.uint8)
    length = np.full(connection.size, len(_HEADER) + size)
    times = (connection * each + place) * 1000
    head = np.column_stack([times // 10**9, times % 10**9, length, length]).astype("<u4")
    rows[:, :16] = head.view(np.uint8).reshape(-1, 16)
    _put(rows, 16 + 16, 40 + np.full(connection.size, size), 2)
    _put(rows, 16 + 27, connection >> 14, 2)  # the middle of the client's address
    _put(rows, 16 + 34, 1024 + (connection & 0x3FFF), 2)
    _put(rows, 16 + 36, np.full(connection.size, 80), 2)
    syn, fin = place == 0, place == each - 1
    _put(rows, 16 + 38, place * size + (place > 0), 4)
    rows[:, 16 + 46] = 0x50
    rows[:, 16 + 47] = np.where(syn, 2, np.where(fin, 0x11, 0x10))
    return rows.tobytes()


def _put(rows: np.ndarray, at: int, values: np.ndarray, width: int) -> None:
    for k in range(width):
        rows[:, at + k] = (values >> (8 * (width - 1 - k))) & 0xFF


def memory(folder: Path) -> None:
    """Peak memory and time for the two extremes."""
    for name, shape in (
        ("one connection of 1 GB", (1, 700_000, 1400)),
        ("a million connections", (1_000_000, 1, 20)),
    ):
        file = folder / "extreme.pcap"
        extreme(file, *shape)
        for what, program in (("table tcp", TABLE), ("reassembly", REASSEMBLY)):
            run = measured([PYTHON, "-c", program, str(file)])
            line = {
                "case": f"{what}: {name}",
                "wall_s": round(run.wall_s, 1),
                "peak_mb": round(run.peak_bytes / 1e6),
            }
            print(json.dumps(line), flush=True)
        file.unlink()


def main() -> None:
    parser = arguments_of(__doc__)
    parser.add_argument("--extremes", action="store_true")
    arguments = parser.parse_args()
    with capture_of(arguments) as file, tempfile.TemporaryDirectory(prefix="stratokit-bench-") as name:
        table = [PYTHON, "-c", TABLE, str(file)]
        again = [PYTHON, "-c", AGAIN, str(file)]
        fields = [word for field in ANALYSIS for word in ("-e", field)]
        tshark = ["tshark", "-n", "-r", str(file)]
        cases = [
            Case("tshark: conv,tcp", [*tshark, "-q", "-z", "conv,tcp"], rounds=1),
            Case("tshark: analysis fields", [*tshark, "-T", "fields", *fields], rounds=1),
            Case("table tcp", table, "tshark: conv,tcp", 60),
            Case("table tcp: fields", table, "tshark: analysis fields", 60),
            Case("table tcp, again", again, "tshark: conv,tcp", inner=True),
            Case("table tcp, again: fields", again, "tshark: analysis fields", inner=True),
        ]
        compare([case for case in cases if available(case.command)], arguments.rounds, file.stat().st_size)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([PYTHON, "-c", REASSEMBLY, str(file)], check=True, env=environment)
        if arguments.extremes:
            memory(Path(name))


if __name__ == "__main__":
    main()
