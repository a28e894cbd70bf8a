"""`http` and `dns` against what tshark says about real captures, and against what servers logged.

Known rules by which they differ, each applied to all files alike:
- Inside tunnels, IP fragments and ICMP errors nothing is read yet, nor DNS over TCP.
- tshark shows a message only when it is complete; a message that the capture cuts short is a row here.
- A response that ends with the connection is complete for tshark with the FIN, here with its last byte.
- tshark pairs a request with an interim response (1xx), and often not at all when requests were pipelined.
- Methods that tshark does not know are methods here when a response says that it is HTTP.
- A target ends for tshark at a zero byte.
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
from stratokit.streams.flows import FIN

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no {CORPUS}"),
]
TUNNELS = {"gre", "vxlan", "geneve", "gtp", "pppoes", "teredo", "erspan", "link:ppp"}
NOT_READ_YET = {"http": TUNNELS | {"ip-frag", "ipv6-frag"}, "dns": TUNNELS | {"icmp", "icmpv6"}}
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


HTTP = files("http")


@pytest.mark.parametrize("name", HTTP)
def test_requests_equal_tsharks(name: str) -> None:
    capture, facts = opened(name)
    rows = capture.table("http").filter(pl.col("method").is_not_null()).collect()
    ours = collections.Counter(rows.select("request_last_frame", "method", "path", "host").rows())
    theirs = collections.Counter(
        (r["frame"], r["method"], r["uri"], r["host"])
        for r in facts.get("http_requests", [])
        if r["uri"]  # a start line that the capture cuts has none
    )
    missing = [key for key in theirs - ours if not zero_byte(key, ours)]
    assert not missing
    known = {r["method"] for r in facts.get("http_requests", [])} | {"GET", "POST"}
    complete = rows.filter(~pl.col("request_cut"), pl.col("method").is_in(known))
    complete = complete.filter(pl.col("request_frame") == pl.col("request_last_frame"))
    extra = (
        collections.Counter(complete.select("request_last_frame", "method", "path", "host").rows()) - theirs
    )
    assert not [key for key in extra if not zero_byte(key, theirs)]


def zero_byte(key: tuple[Any, ...], others: collections.Counter[tuple[Any, ...]]) -> bool:
    return any(key[0] == other[0] and "\x00" in f"{key[2]}{other[2]}" for other in others)


@pytest.mark.parametrize("name", HTTP)
def test_responses_equal_tsharks(name: str) -> None:
    capture, facts = opened(name)
    rows = capture.table("http").filter(pl.col("status").is_not_null()).collect()
    ours = collections.Counter(rows.select("response_last_frame", "status").rows())
    final = [r for r in facts.get("http_responses", []) if r["status"] >= 200 or r["status"] == 101]
    theirs = collections.Counter((r["frame"], r["status"]) for r in final)
    assert collections.Counter(r["status"] for r in final) <= collections.Counter(rows["status"].to_list())
    finished = capture.rows("packet").filter(pl.col("tcp_flags") & FIN != 0).select("frame").collect()
    by_trailer = {r["frame"] for r in final if r["transfer_encoding"] == "chunked"}
    elsewhere = {frame for frame, _ in theirs - ours} - set(finished["frame"]) - by_trailer
    assert not elsewhere


@pytest.mark.parametrize("name", HTTP)
def test_answers_belong_to_the_requests_that_tshark_gives_them(name: str) -> None:
    capture, facts = opened(name)
    rows = capture.table("http").drop_nulls(["request_frame", "response_frame"]).collect()
    columns = ("request_last_frame", "response_frame", "wait_ns")
    ours = {(request, response): wait for request, response, wait in rows.select(columns).rows()}
    answers = dict(rows.select("response_last_frame", "response_frame").rows())
    eager = pipelined(rows)
    for request in facts.get("http_requests", []):
        response = request["response"]
        if response is None or response["frame"] not in answers or request["frame"] in eager:
            continue
        pair = (request["frame"], answers[response["frame"]])
        assert pair in ours, pair
        if answers[response["frame"]] == response["frame"]:
            assert ours[pair] == response["latency_ns"]


def pipelined(rows: pl.DataFrame) -> set[int]:
    """Requests of conversations in which one came before the answer to the one before had ended."""
    before = pl.col("response_last_frame").shift(1).over("flow_id")
    eager = rows.filter((pl.col("request_frame") <= before).any().over("flow_id"))
    return set(eager["request_last_frame"])


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
def test_http_equals_what_nginx_logged(name: str) -> None:
    folder = CORPUS / "live" / name
    rows = Capture.open(folder / "client.pcap").table("http").filter(pl.col("server_port") == 80).collect()
    columns = ("client_port", "method", "path", "host", "status", "request_bytes", "response_bytes")
    ours = collections.Counter(rows.select(columns).rows())
    lines = [json.loads(line) for line in (folder / "nginx.jsonl").read_text().splitlines()]
    logged = ("rport", "method", "uri", "host", "status", "rlen", "bytes")
    assert ours == collections.Counter(tuple(x[key] for key in logged) for x in lines if x["sport"] == 80)


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
