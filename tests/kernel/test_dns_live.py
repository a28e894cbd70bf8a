"""dig at dnsmasq, recorded by eBPF: our rows equal what dig printed, over UDP and TCP."""

from __future__ import annotations

import subprocess
import sys

import polars as pl
import pytest
from recording import recording
from workloads import dns
from workloads.common import program

import stratokit as sk

pytestmark = pytest.mark.kernel

QUESTIONS = [
    (f"api.{dns.ZONE}", "A"),
    (f"api.{dns.ZONE}", "AAAA"),
    (f"note.{dns.ZONE}", "TXT"),
    (dns.ZONE, "MX"),
    (f"missing.{dns.ZONE}", "A"),
    ("host.elsewhere.test", "A"),
    (f"db.{dns.ZONE}", "TXT"),
]

# In namespaces of its own: a resolver at port 53, and the C library that looks names up there.
LOOKS_UP = """
import socket, subprocess, sys, time
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
resolver = subprocess.Popen(sys.argv[2:])
try:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", 53)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    for _ in range(3):
        [found] = socket.getaddrinfo("db", 80, socket.AF_INET, socket.SOCK_STREAM)
        assert found[4][0] == "10.0.0.8"
finally:
    resolver.kill()
    resolver.wait()
"""


def test_answers_are_what_dig_printed(tmp_path):
    with dns.dnsmasq() as resolver, recording(tmp_path / "a.parquet") as made:
        asked = [dns.dig(resolver, *q, transport=how) for how in ("udp", "tcp") for q in QUESTIONS]
    rows = sk.open(made.path).table("dns").filter(pl.col("server_port") == resolver.port).collect()
    rows = rows.sort("ts_query")
    assert rows.select("transport", "qname", "qtype", "rcode", "attempts", "pid").rows() == [
        (q.transport, q.qname, q.qtype, q.rcode, 1, q.client_pid) for q in asked
    ]
    # dig prints names with a dot at their end, and texts in quotation marks.
    assert rows["answers"].to_list() == [[a.rstrip(".").strip('"') for a in q.answers] for q in asked]
    outcomes = ["answer"] * 4 + ["nxdomain", "refused", "nodata"]
    assert rows["outcome"].to_list() == outcomes * 2
    assert set(rows.filter(transport="udp")["server_pid"]) == {resolver.pid}
    assert (rows["latency_ns"] > 0).all()
    assert (rows["server_latency_ns"] <= rows["latency_ns"]).all()


def test_a_question_asked_again_is_one_row_and_a_timeout(tmp_path):
    with dns.failing_server() as broken, recording(tmp_path / "a.parquet") as made:
        asked = dns.ask_again_and_again(broken, f"drop.7.{dns.BROKEN_ZONE}")
    [row] = sk.open(made.path).table("dns").filter(pl.col("server_port") == broken.port).collect().to_dicts()
    assert (row["qname"], row["attempts"], row["outcome"]) == (asked.qname, asked.attempts, "timeout")
    assert (row["rcode"], row["answers"], row["pid"]) == (None, None, asked.client_pid)


def test_search_domains_that_the_c_library_tries_in_vain_are_a_finding(tmp_path):
    domains = ("shop.svc.cluster.test", "svc.cluster.test", "cluster.test")  # as Kubernetes writes them
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver 127.0.0.1\nsearch {' '.join(domains)}\noptions ndots:5\n")
    dnsmasq = f"{program('dnsmasq')} --keep-in-foreground --conf-file=/dev/null --pid-file= --user=root"
    dnsmasq += " --log-facility=- --no-resolv --no-hosts --listen-address=127.0.0.1 --bind-interfaces"
    dnsmasq += f" --local=/test/ --host-record=db.{domains[2]},10.0.0.8"
    inside = [program("unshare"), "--net", "--mount", sys.executable, "-c", LOOKS_UP]
    with recording(tmp_path / "a.parquet") as made:
        subprocess.run([*inside, str(conf), *dnsmasq.split()], check=True, timeout=60)
    capture = sk.open(made.path)
    rows = capture.table("dns", where="udp.port == 53").collect().sort("ts_query")
    asked = [(f"db.{domain}", 3 if domain != domains[2] else 0) for domain in domains]
    assert rows.select("qname", "rcode").rows() == asked * 3
    assert set(rows["search_name"]) == {"db"}
    assert rows["search_id"].n_unique() == 3
    found = {row["rule"]: row for row in capture.report(["findings"])["findings"].to_dicts()}
    denied = found["names-denied"]
    assert denied["finding"] == (
        "6 of 9 questions of 127.0.0.1 were for names that do not exist (as db.shop.svc.cluster.test), "
        "6 of them by trying search domains."
    )
    assert capture.table("dns", where=denied["filter"]).collect().height == 6
