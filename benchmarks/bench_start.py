"""From a command to its result on small files, in turns with the same of another checkout; lines of JSON.

    benchmarks/bench_start.py --before CHECKOUT [--parquet FILE] [--rounds 7]

Both have compiled their kernels before: the first round is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from timing import ROOT, STRATOKIT, Run, measured

MIXED = str(ROOT / "sample_captures" / "mixed.parquet")


def commands(pcap: str, parquet: str | None) -> dict[str, list[str]]:
    found = {name: ["table", name, pcap] for name in ("packets", "flows", "tcp")}
    found |= {"follow": ["follow", pcap, "0"], "info": ["info", pcap], "report": ["report", MIXED]}
    if parquet:
        found["one flow"] = ["table", "packets", parquet, "--where", "tcp.port == 40000"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--parquet")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pcap = os.path.join(folder, "small.pcap")
        subprocess.run([*STRATOKIT, "convert", MIXED, pcap], check=True, stdout=subprocess.DEVNULL)
        for name, words in commands(pcap, arguments.parquet and os.path.abspath(arguments.parquet)).items():
            runs: dict[str, list[Run]] = {"before": [], "now": []}
            for number in range(arguments.rounds + 1):
                for which, root in (("before", arguments.before), ("now", ROOT)):
                    run = measured([*STRATOKIT, *words], root=root)
                    if number:
                        runs[which].append(run)
            print(json.dumps({"command": name} | {which: medians(found) for which, found in runs.items()}))


def medians(runs: list[Run]) -> dict[str, float]:
    return {
        "wall_s": round(statistics.median(run.wall_s for run in runs), 2),
        "cpu_s": round(statistics.median(run.cpu_s for run in runs), 2),
        "peak_mb": round(max(run.peak_bytes for run in runs) / 1e6),
    }


if __name__ == "__main__":
    main()
