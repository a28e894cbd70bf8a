"""`http` and `grpc` over HTTP/2 against what tshark says about real captures, and what programs logged."""

from __future__ import annotations

import collections
import json
from typing import Any

import polars as pl
import pytest
from helpers.corpus import CORPUS, MARKS, files, opened

from stratokit.engine.capture import Capture
from stratokit.protocols.grpc import STATUSES

pytestmark = MARKS
HTTP2 = files("http2")


def under_tls(capture: Capture) -> set[int]:
    """Packets of conversations in TLS: what tshark read there, it read with keys that the capture holds."""
    flows = capture.table("tls").select("flow_id").collect()["flow_id"].unique()
    rows = capture.rows("packet").filter(pl.col("flow_id").is_in(flows.implode()))
    return set(rows.select("frame").collect()["frame"])


@pytest.mark.parametrize("name", HTTP2)
def test_messages_equal_tsharks(name: str) -> None:
    capture, facts = opened(name)
    theirs = facts.get("http2_messages", [])
    if facts["protocols"].get("tls"):
        secret = under_tls(capture)
        theirs = [m for m in theirs if m["frame"] not in secret]
    rows = capture.table("http").filter(pl.col("stream_id").is_not_null()).collect().to_dicts()
    asked = collections.Counter(
        (r["stream_id"], r["method"], r["path"], r["host"]) for r in rows if r["method"]
    )
    assert asked == collections.Counter(
        (m["stream"], m["method"], m["path"], m["authority"]) for m in theirs if m.get("method")
    )
    answered = collections.Counter((r["stream_id"], r["status"]) for r in rows if r["status"])
    final = [m for m in theirs if m.get("status") and int(m["status"]) >= 200]
    assert answered == collections.Counter((m["stream"], int(m["status"])) for m in final)
    # A message stands in one of the packets from its first byte to its last.
    for side, mine in (("request", "method"), ("response", "status")):
        spans = [(r["stream_id"], r[f"{side}_frame"], r[f"{side}_last_frame"]) for r in rows if r[mine]]
        for m in theirs if side == "request" else final:
            if m.get(mine):
                assert any(s == m["stream"] and a <= m["frame"] <= b for s, a, b in spans), m


def logged(name: str, file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPUS / "live" / name / file).read_text().splitlines()]


@pytest.mark.parametrize("name", ["dev_clean", "dev_lossy"])
def test_http2_equals_what_nginx_logged(name: str) -> None:
    rows = Capture.open(CORPUS / "live" / name / "client.pcap").table("http").collect()
    rows = rows.filter(pl.col("server_port") == 81)
    ours = collections.Counter(
        rows.select("client_port", "method", "path", "status", "response_body_bytes").rows()
    )
    lines = [x for x in logged(name, "nginx.jsonl") if x["sport"] == 81]
    assert ours == collections.Counter(
        (x["rport"], x["method"], x["uri"], x["status"], x["body"]) for x in lines
    )


@pytest.mark.parametrize("name", ["dev_clean", "dev_lossy"])
def test_grpc_equals_what_the_client_logged(name: str) -> None:
    calls = Capture.open(CORPUS / "live" / name / "client.pcap").table("grpc").collect()
    path = pl.format("/{}/{}", "service", "method")
    ours = collections.Counter(calls.select(path.alias("path"), "status_name", "response_messages").rows())
    lines = [x for x in logged(name, "client.jsonl") if x["kind"] == "grpc"]
    assert ours == collections.Counter((x["method"], x["code"], x["messages"]) for x in lines)
    assert set(calls["status_name"]) <= set(STATUSES)
