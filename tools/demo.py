#!/usr/bin/env python3
"""The demo: record real traffic with eBPF, report on it, and hold the report against what the traffic did.

nginx runs before the recording starts, as servers do; the other servers start inside the recorded command.
Where recording is impossible the demo says why and reports on a sample capture.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from traffic import KINDS, lacking
from workloads.common import WorkloadError
from workloads.dns import RCODES
from workloads.nginx import nginx

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build/demo.parquet"
TRUTH = ROOT / "build/demo-truth.json"
SAMPLES = ROOT / "sample_captures"
STRATOKIT = Path(sys.executable).with_name("stratokit")
# Features of `stratokit doctor`; what the others lack, a recording does without.
NEEDED = ("recording", "packets")


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def stratokit(*args: str | Path) -> int:
    """Run it as a user would, on this terminal."""
    return subprocess.run([STRATOKIT, *args], check=False).returncode


def table(name: str) -> list[dict[str, Any]]:
    argv: list[str | Path] = [STRATOKIT, "table", name, OUT, "--format", "json"]
    rows: list[dict[str, Any]] = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
    return rows


def can_record() -> bool:
    """Whether packets can be recorded here; if not, `stratokit doctor` has told why."""
    if not sys.platform.startswith("linux"):
        print("Recording needs Linux.")
        return False
    doctor = subprocess.run([STRATOKIT, "doctor", "--json"], check=False, stdout=subprocess.PIPE)
    if all(check["ok"] for check in json.loads(doctor.stdout) if check["feature"] in NEEDED):
        return True
    stratokit("doctor")
    return False


def report_on_sample() -> int:
    samples = [SAMPLES / "mixed.parquet", *sorted(SAMPLES.glob("*.parquet"))]
    sample = next((path for path in samples if path.exists()), None)
    if sample is None:
        print("There is no sample capture in sample_captures/.", file=sys.stderr)
        return 1
    say(f"Nothing can be recorded here (see above), so this is the report on {shown(sample)}")
    return stratokit("report", sample)


def record(kinds: list[str]) -> int:
    OUT.parent.mkdir(exist_ok=True)
    for left in (TRUTH, OUT.with_suffix(".spool")):  # by a demo that was killed
        left.unlink(missing_ok=True)
    with nginx() if "http" in kinds else nullcontext() as site:
        traffic: list[str | Path] = [sys.executable, ROOT / "tools/traffic.py", *kinds, "--truth", TRUTH]
        if site is not None:
            traffic += ["--nginx", str(site.port)]
        code = stratokit("record", "-o", OUT, "--force", "--whole-host", "--", *traffic)
    if code == 0 and not TRUTH.exists():
        raise WorkloadError("the traffic failed; the reason stands above")
    return code


def differences() -> list[str]:
    """What the capture's tables and the traffic's own account do not agree on."""
    truth = json.loads(TRUTH.read_text())
    requests = truth.get("http", []) + truth.get("slow", [])
    queries = truth.get("dns", [])
    # Other programs of this machine may have talked meanwhile: only our servers and names count.
    sites = {request["host"] for request in requests}
    names = {query["qname"] for query in queries}

    made = Counter(map(request_key, requests))
    made.update(map(query_key, queries))
    seen = Counter(request_key(row) for row in table("http") if row["host"] in sites)
    seen.update(query_key(row) for row in table("dns") if row["qname"] in names)

    failures = sum(query["rcode"] != RCODES["NOERROR"] for query in queries)
    verdict = "the same" if made == seen else "something else"
    say(
        f"Checked: the traffic made {len(requests)} HTTP requests and {len(queries)} DNS queries, "
        f"{failures} of which failed; the capture has {verdict}"
    )
    return [
        f"{' '.join(map(str, key))}: made {made[key]}, captured {seen[key]}"
        for key in sorted(made | seen, key=str)
        if made[key] != seen[key]
    ]


def request_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return "HTTP", row["method"], row["host"], row["path"], row["status"]


def query_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return "DNS", row["qname"], row["qtype"], row["rcode"]


def main() -> int:
    if not can_record():
        return report_on_sample()

    kinds = [kind for kind in KINDS if not lacking(kind)]
    for kind in KINDS:
        if kind not in kinds:
            say(f"No {kind} traffic: this machine lacks {', '.join(lacking(kind))}")
    say(f"Recording {', '.join(kinds)} traffic with eBPF")
    if code := record(kinds):
        return code
    say(f"stratokit report {shown(OUT)}")
    if code := stratokit("report", OUT):
        return code
    if wrong := differences():
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    print(f"Look further: .venv/bin/stratokit table http {shown(OUT)}, or export it for Wireshark:")
    print(f".venv/bin/stratokit convert {shown(OUT)} demo.pcapng")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WorkloadError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
