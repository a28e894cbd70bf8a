"""`tls` against what tshark says about real captures.

Known rules by which they differ, each applied to all files alike:
- Inside tunnels nothing is read yet.
- TLS is read where a connection begins with it, so not after STARTTLS or CONNECT, and once, also when a
  HelloRetryRequest makes the client say hello again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stratokit.engine.capture import Capture
from stratokit.errors import StratokitError

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no {CORPUS}"),
]
TUNNELS = {"gre", "vxlan", "geneve", "gtp", "pppoes", "teredo", "erspan", "link:ppp"}
NOT_READ_YET = {"tls-hello": TUNNELS | {"smtp", "ftp", "mysql", "pgsql", "http-connect", "quic-hello"}}


def files(tag: str) -> list[str]:
    if not CORPUS.is_dir():
        return []
    entries = [json.loads(line) for line in (CORPUS / "MANIFEST.jsonl").read_text().splitlines()]
    found = []
    for entry in entries:
        tags = {t if t.startswith("link:") else t.partition(":")[0] for t in entry["tags"]}
        if tag in tags and "scap" not in entry["kind"] and not tags & NOT_READ_YET[tag]:
            found.append(entry["file"])
    return found


def opened(name: str) -> tuple[Capture, dict[str, Any]]:
    facts = json.loads((CORPUS / f"{name}.oracle.json").read_text())
    try:
        return Capture.open(CORPUS / name), facts
    except StratokitError as error:
        pytest.skip(f"no reader: {error}")


def capture_tags(name: str) -> list[str]:
    lines = (CORPUS / "MANIFEST.jsonl").read_text().splitlines()
    return next(entry["tags"] for entry in map(json.loads, lines) if entry["file"] == name)


@pytest.mark.parametrize("name", files("tls-hello"))
def test_tls_hellos_equal_tsharks(name: str) -> None:
    capture, facts = opened(name)
    if {"gap", "malformed", "snaplen-cut"} & {tag.partition(":")[0] for tag in capture_tags(name)}:
        pytest.skip("some hello is not there in full")
    rows = capture.table("tls").collect()
    first = pl.col("data").bin.slice(pl.col("payload_offset"), 2)
    sent = capture.rows("packet").filter(pl.col("payload_len") > 0)
    begins = sent.group_by("flow_id").agg(begins=first.first() == b"\x16\x03").filter("begins")
    begun = sent.join(begins, on="flow_id", how="semi").select("frame", "flow_id")
    flow_of = dict(begun.collect().rows())
    hellos: dict[int, Any] = {}
    for x in facts.get("tls_client_hello", []):
        if x["frame"] in flow_of:
            hellos.setdefault(flow_of[x["frame"]], (x["sni"], x["alpn"]))
    ours = {row["flow_id"]: (row["sni"], row["alpn"] or []) for row in rows.drop_nulls("ts").to_dicts()}
    assert ours == hellos
    names = {0x0304: "TLS 1.3", 0x0303: "TLS 1.2", 0x0302: "TLS 1.1", 0x0301: "TLS 1.0", 0x0300: "SSL 3.0"}
    chosen = {}
    for x in facts.get("tls_server_hello", []):
        if x["frame"] in flow_of:
            chosen[flow_of[x["frame"]]] = names.get(int(x["selected_version"] or x["version"], 0))
    chosen = {flow: name for flow, name in chosen.items() if name}
    assert dict(rows.drop_nulls("version").select("flow_id", "version").rows()) == chosen
