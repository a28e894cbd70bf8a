"""The samples in sample_captures/ say what the traffic that was recorded counted itself."""

import json
from pathlib import Path

import polars as pl
import pytest

import stratokit as sk
from stratokit.reports.run import run

SAMPLES = Path(__file__).resolve().parents[1] / "sample_captures"
NAMES = sorted(path.stem for path in SAMPLES.glob("*.parquet"))


def sample(name):
    return sk.open(SAMPLES / f"{name}.parquet"), json.loads((SAMPLES / f"{name}.truth.json").read_text())


def test_there_are_samples():
    assert {"nginx-curl", "dns-failures", "tls", "slow-server", "mixed"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_http(name):
    capture, truth = sample(name)
    made = truth.get("http", []) + truth.get("slow", [])
    rows = capture.table("http").sort("ts_request").select("method", "path", "status", "pid").collect().rows()
    assert rows == [(r["method"], r["path"], r["status"], r["client_pid"]) for r in made]


@pytest.mark.parametrize("name", NAMES)
def test_dns(name):
    capture, truth = sample(name)
    rows = (
        capture.table("dns").sort("ts_query").select("qname", "qtype", "rcode", "attempts").collect().rows()
    )
    asked = [q for q in truth.get("dns", []) if q["transport"] == "udp"]
    assert rows == [(q["qname"], q["qtype"], q["rcode"], q["attempts"]) for q in asked]


@pytest.mark.parametrize("name", NAMES)
def test_tls(name):
    capture, truth = sample(name)
    rows = (
        capture.table("tls")
        .sort("ts")
        .select("sni", "version", "pid", pl.col("alert").is_null())
        .collect()
        .rows()
    )
    assert rows == [
        (h["sni"], f"TLS {h['version']}", h["client_pid"], h["completed"]) for h in truth.get("tls", [])
    ]


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_of_opened_files_have_the_path_that_was_opened(name):
    capture, _ = sample(name)
    calls = capture.rows("syscall").filter(pl.col("syscall") == "openat", pl.col("ret") >= 0).collect()
    assert calls.filter(pl.col("fd_name").ne_missing(pl.col("path"))).height == 0


def test_tls_report_counts_refusals():
    capture, truth = sample("tls")
    (section,) = run(capture, ["tls"]).sections
    (row,) = section.frame.to_dicts()
    refused = sum(not handshake["completed"] for handshake in truth["tls"])
    assert (row["sni"], row["handshakes"], row["errors"]) == ("shop.test", len(truth["tls"]), refused)
    assert row["versions"] == "TLS 1.2, TLS 1.3"


def test_slow_answers_are_slow_where_the_server_waited():
    capture, truth = sample("slow-server")
    rows = {r["path"]: r for r in capture.table("http").collect().to_dicts()}
    for path in (r["path"] for r in truth["slow"]):
        wait_ns = int(path.partition("=")[2]) * 1_000_000
        waited = rows[path]["transfer_ns" if path.startswith("/drip") else "latency_ns"]
        assert wait_ns <= waited < wait_ns + 50_000_000
