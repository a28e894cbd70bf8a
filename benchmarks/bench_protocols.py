#!/usr/bin/env python3
"""How fast tables of protocols are made, beside tshark printing the same columns of the same file.

    benchmarks/bench_protocols.py [--bytes 1e9] [--rounds 3] [--only http,dns,tls] [FILE]

FILE is made by tools/make_bench_capture.py in a temporary directory when it is not given. Each round runs
every case once; tshark runs once. One JSON line a case, with medians: seconds of wall clock, CPU seconds,
peak memory, and `times_faster` and `times_less_cpu` against tshark. "again" is the same table once more, when
libraries and kernels are loaded, as in a notebook. The last line is about a file of DNS messages alone.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from pathlib import Path

from timing import PYTHON, STRATOKIT, Case, arguments_of, capture_of, compare, make_capture, measured

ENDS = ("frame.time_epoch", "frame.number", "ip.src", "ip.dst")
# For each table: a display filter for its messages, and the fields that stand in its columns.
TSHARK: dict[str, tuple[str, tuple[str, ...]]] = {
    "http": (
        "http",
        (
            "tcp.stream", *ENDS, "tcp.srcport", "tcp.dstport", "http.request.method", "http.host",
            "http.request.uri", "http.request.version", "http.user_agent", "http.response.code",
            "http.content_type", "http.content_encoding", "http.content_length", "http.request_in",
            "http.time",
        ),
    ),
    "dns": (
        "dns",
        (
            "udp.stream", *ENDS, "udp.srcport", "udp.dstport", "dns.id", "dns.flags.opcode",
            "dns.flags.response", "dns.flags.authoritative", "dns.flags.truncated", "dns.flags.rcode",
            "dns.qry.name", "dns.qry.type", "dns.qry.class", "dns.resp.name", "dns.resp.type",
            "dns.resp.ttl", "dns.a", "dns.aaaa", "dns.cname", "dns.soa.mname", "dns.rr.udp_payload_size",
            "dns.response_to", "dns.time",
        ),
    ),
    "tls": (
        "tls.handshake || tls.alert_message",
        (
            "tcp.stream", *ENDS, "tcp.srcport", "tcp.dstport", "tls.handshake.type",
            "tls.handshake.version", "tls.handshake.extensions.supported_version",
            "tls.handshake.ciphersuite", "tls.handshake.extensions_server_name",
            "tls.handshake.extensions_alpn_str", "tls.handshake.extensions_supported_group",
            "tls.handshake.extensions_key_share_group", "tls.handshake.ja3", "tls.handshake.ja3s",
            "x509sat.uTF8String", "x509ce.dNSName", "x509af.utcTime", "tls.alert_message.desc",
        ),
    ),
}  # fmt: skip
AGAIN = """
import sys, time
from stratokit.engine.capture import Capture
Capture.open(sys.argv[2]).table(sys.argv[1]).collect()
wall, cpu = time.perf_counter(), time.process_time()
Capture.open(sys.argv[2]).table(sys.argv[1]).collect()
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def again(table: str, file: Path) -> list[str]:
    return [PYTHON, "-c", AGAIN, table, str(file)]


def cases(table: str, file: Path) -> list[Case]:
    chosen, fields = TSHARK[table]
    names = [part for field in fields for part in ("-e", field)]
    ports = dns_ports(file) if table == "dns" else []
    options = [part for port in ports for part in ("-d", f"udp.port=={port},dns")]
    tshark = ["tshark", "-n", "-r", str(file), *options, "-Y", chosen, "-T", "fields", *names]
    ours = [*STRATOKIT, "table", table, str(file), "--format", "ndjson", "--limit", "0"]
    return [
        Case(f"tshark: {table}", tshark, rounds=1),
        Case(f"table {table}", ours, f"tshark: {table}", 50),
        Case(f"table {table}, one processor", ours, f"tshark: {table}", cpus=1),
        Case(f"table {table}, again", again(table, file), f"tshark: {table}", 50, inner=True),
    ]


def dns_ports(file: Path) -> list[int]:
    """tshark knows DNS by its port alone, and the samples' servers have others."""
    rows = said("table", "dns", str(file), "--select", "server_port", "--format", "ndjson", "--limit", "0")
    ports = {json.loads(row)["server_port"] for row in rows.splitlines()}
    return sorted(ports - {None, 53, 5353, 5355})


def said(*arguments: str) -> str:
    """What the program prints. Were this done here, its memory would count as that of the cases we start."""
    return subprocess.run([*STRATOKIT, *arguments], check=True, capture_output=True, text=True).stdout


def dns_messages(folder: Path, rounds: int) -> None:
    """How many messages a second one processor reads, of a file that has nothing else."""
    file = folder / "dns.pcap"
    make_capture(file, 1e8, "dns-failures")
    packets = json.loads(said("info", str(file), "--json"))["rows"]["packet"]
    runs = [measured(again("dns", file), 1, inner=True) for _ in range(rounds)]
    seconds = statistics.median(run.cpu_s for run in runs)
    line = {
        "case": "DNS messages alone, one processor, again",
        "messages": packets,
        "cpu_s": round(seconds, 3),
        "messages_per_cpu_s": round(packets / seconds),
        "peak_mb": round(max(run.peak_bytes for run in runs) / 1e6),
        "target": 1_000_000,
    }
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = arguments_of(__doc__)
    parser.add_argument("--only", default="", help="tables, with commas between them")
    arguments = parser.parse_args()
    tables = arguments.only.split(",") if arguments.only else list(TSHARK)
    with capture_of(arguments) as file, tempfile.TemporaryDirectory(prefix="stratokit-bench-") as name:
        found = [case for table in tables for case in cases(table, file)]
        compare(found, arguments.rounds, file.stat().st_size)
        if "dns" in tables:
            dns_messages(Path(name), arguments.rounds)


if __name__ == "__main__":
    main()
