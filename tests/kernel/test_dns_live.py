"""dig at dnsmasq, recorded by eBPF: our rows equal what dig printed, over UDP and TCP."""

from __future__ import annotations

import polars as pl
import pytest
from recording import recording
from workloads import dns

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
