#!/usr/bin/env python3
"""Record the captures in sample_captures/ anew, from real programs on this machine; needs root.

    .venv/bin/python tools/record_samples.py [NAME...]

The traffic runs in a neutral place under another host name with an almost empty environment, and only what
its own processes did is kept: a sample must not show the machine it was made on. Beside each capture stands
the truth, NAME.truth.json: what the traffic itself counted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from trim_capture import trim

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "sample_captures"
STRATOKIT = Path(sys.executable).with_name("stratokit")
PLACE = Path("/tmp/stratokit-sample")
HOST = "stratokit-sample"
MOST_BYTES = 300_000
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}

# name -> kinds of traffic, as tools/traffic.py knows them, and what the recorder is asked beside that
SAMPLE_TRAFFIC: dict[str, tuple[list[str], list[str]]] = {
    "nginx-curl": (["http"], []),
    "dns-failures": (["dns"], []),
    "tls": (["tls"], []),
    "slow-server": (["slow"], []),
    "mixed": (["http", "dns", "tls", "slow"], ["--syscalls", "network,process"]),
}


def server_ports(truth: dict[str, list[dict[str, object]]]) -> set[int]:
    ports = set()
    for entries in truth.values():
        for entry in entries if isinstance(entries, list) else []:
            port = entry.get("server_port") or str(entry["host"]).rpartition(":")[2]
            ports.add(int(str(port)))
    return ports


def record(name: str, recording: Path) -> dict[str, list[dict[str, object]]]:
    """Make the traffic under `stratokit record`; returns its truth."""
    kinds, options = SAMPLE_TRAFFIC[name]
    traffic = ["/usr/bin/python3", str(PLACE / "traffic.py"), *kinds, "--truth", "truth.json"]
    renamed = ["unshare", "--uts", "sh", "-c", f'hostname {HOST} && exec "$@"', "sh"]
    argv = [
        *renamed,
        str(STRATOKIT),
        "record",
        "-o",
        str(recording),
        "--force",
        "--whole-host",
        *options,
        "--",
        *traffic,
    ]
    subprocess.run(argv, check=True, cwd=PLACE, env=ENVIRONMENT)
    truth: dict[str, list[dict[str, object]]] = json.loads((PLACE / "truth.json").read_text())
    return truth


def main() -> int:
    names = sys.argv[1:] or list(SAMPLE_TRAFFIC)
    if unknown := set(names) - set(SAMPLE_TRAFFIC):
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(SAMPLE_TRAFFIC)}", file=sys.stderr)
        return 2
    forbidden = [str(ROOT), f"{Path.home()}/"]
    shutil.rmtree(PLACE, ignore_errors=True)
    shutil.copytree(ROOT / "tools", PLACE, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        for name in names:
            out = SAMPLES / f"{name}.parquet"
            with tempfile.TemporaryDirectory(prefix="stratokit-") as folder:
                recording = Path(folder) / out.name
                truth = record(name, recording)
                trim(recording, out, int(str(truth["pid"])), server_ports(truth), forbidden)
            out.with_suffix(".truth.json").write_text(json.dumps(truth, indent=1) + "\n")
            size = out.stat().st_size
            print(f"{out.name}: {size:,} bytes" + (": too large for a sample" if size > MOST_BYTES else ""))
    finally:
        shutil.rmtree(PLACE, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
