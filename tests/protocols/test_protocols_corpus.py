"""`dns` and `tls` against what tshark says about real captures, and against what servers logged.

Known rules by which they differ, each applied to all files alike:
- Inside tunnels, IP fragments and ICMP errors nothing is read yet, nor DNS over TCP.
- TLS is read where a connection begins with it, so not after STARTTLS or CONNECT, and once, also when a
  HelloRetryRequest makes the client say hello again.
"""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stratokit.engine.capture import Capture
from stratokit.errors import StratokitError
from stratokit.protocols import dns

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no {CORPUS}"),
]
TUNNELS = {"gre", "vxlan", "geneve", "gtp", "pppoes", "teredo", "erspan", "link:ppp"}
NOT_READ_YET = {"dns": TUNNELS | {"icmp", "icmpv6"}}
NOT_READ_YET["tls-hello"] = TUNNELS | {"smtp", "ftp", "mysql", "pgsql", "http-connect", "quic-hello"}


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


@pytest.mark.parametrize("name", files("dns"))
def test_dns_messages_equal_tsharks(name: str) -> None:
    capture, facts = opened(name)
    over_tcp = set(capture.rows("packet").filter(pl.col("ip_proto") == 6).select("frame").collect()["frame"])
    messages = dns._messages(capture)
    columns = ("frame", "is_response", "id", "qname", "qtype")
    ours = collections.Counter(messages.select(columns).rows())
    udp = [d for d in facts["dns"] if d["proto"] == "dns" and d["frame"] not in over_tcp]
    theirs = collections.Counter(
        (
            d["frame"],
            d["response"],
            int(str(d["id"]), 0),
            (d["qname"] or [None])[0] if (d["qname"] or [None])[0] != "<Root>" else ".",
            (d["qtype"] or [None])[0],
        )
        for d in udp
        if d["qname"] or d["response"]
    )
    if not {"malformed", "snaplen-cut"} & {tag.partition(":")[0] for tag in capture_tags(name)}:
        assert ours == theirs
    codes = dict(messages.filter("is_response").select("frame", pl.col("rcode") & 15).rows())
    assert all(codes[d["frame"]] == d["rcode"] for d in udp if d["response"] and d["frame"] in codes)
    pairs = dict(capture.table("dns").select("response_frame", "latency_ns").collect().rows())
    first = dict(capture.table("dns").select("response_frame", "query_frame").collect().rows())
    for d in udp:
        if d["response_to"] and first.get(d["frame"]) == d["response_to"]:
            assert pairs[d["frame"]] == d["latency_ns"]


@pytest.mark.parametrize("name", ["dev_clean", "dev_lossy"])
def test_dns_equals_what_the_client_logged(name: str) -> None:
    folder = CORPUS / "live" / name
    rows = Capture.open(folder / "client.pcap").table("dns").collect()
    lines = [json.loads(line) for line in (folder / "client.jsonl").read_text().splitlines()]
    asked = [x for x in lines if x["kind"] == "dns" and not x["tcp"] and x.get("rcode") is not None]
    theirs = collections.Counter((x["lport"], x["id"], x["qname"], x["qtype"], x["rcode"]) for x in asked)
    ours = collections.Counter(rows.select("client_port", "id", "qname", "qtype", "rcode").rows())
    assert theirs <= ours


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
