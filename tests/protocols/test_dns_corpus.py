"""DNS messages and answers against tshark's on real captures. Differences, by rule (docs/protocols.md):

- A datagram that an ICMP error quotes is no traffic of its own.
- A message whose header or first question cannot be read is counted, not shown; of a message that is cut
  inside its questions only those before the cut are shown.
- A name that is no UTF-8 is ISO-8859-1; tshark replaces its bytes.
- An answer belongs to a question with its name; a question that comes again after five seconds or more is
  another attempt, for tshark another question.
- Answers of multicast DNS are paired by name and type, tshark's by conversation and the identifier, always 0.
"""

from __future__ import annotations

import collections
import json

import polars as pl
import pytest
from helpers.corpus import CORPUS, MARKS, files, opened

from stratokit.engine.capture import Capture
from stratokit.protocols import dns_frames

pytestmark = MARKS
ICMP, ICMPV6 = 1, 58


def error_frames(capture: Capture) -> set[int]:
    rows = capture.rows("packet").filter(pl.col("ip_proto").is_in([ICMP, ICMPV6]))
    return set(rows.select("frame").collect()["frame"])


DNS = sorted({*files("dns"), *files("mdns")})


@pytest.mark.parametrize("name", DNS)
def test_messages_equal_tsharks(name: str) -> None:
    capture, facts = opened(name)
    quoted = error_frames(capture)
    found = dns_frames.read(capture)
    asked = found.questions.group_by("message", maintain_order=True).agg(
        pl.col("frame", "is_response", "id", "rcode", "truncated").first(),
        pl.col("qname").drop_nulls().head(8),
        pl.col("qtype").drop_nulls().head(8),
        short=(pl.col("short") | pl.col("cut")).any(),
    )
    ours = collections.Counter(
        (r["frame"], r["is_response"], r["id"], r["rcode"] & 15 if r["is_response"] else None, r["truncated"])
        + ((tuple(r["qname"]), tuple(r["qtype"])) if not r["short"] else ())
        for r in asked.to_dicts()
    )
    short = set(asked.filter("short")["frame"])
    known = collections.Counter(
        (
            d["frame"],
            d["response"],
            int(str(d["id"]), 0),
            d["rcode"] if d["response"] else None,
            d["truncated"],
        )
        + (
            (tuple("." if q == "<Root>" else q for q in d["qname"]), tuple(d["qtype"]))
            if d["frame"] not in short
            else ()
        )
        for d in facts.get("dns", [])
        if d["frame"] not in quoted
    )
    unreadable = {key[0] for key in known if any("\ufffd" in q for part in key[5:6] for q in part)}
    ours, known = (
        collections.Counter({key[: 5 if key[0] in unreadable else 7]: n for key, n in counted.items()})
        for counted in (ours, known)
    )
    assert not ours - known
    missing = list((known - ours).elements())
    assert len(missing) == capture.passes.counters["dns_unreadable"]
    assert all(not m[-1] for m in missing)  # none of them has a name for tshark either


@pytest.mark.parametrize("name", DNS)
def test_answers_and_their_times_equal_tsharks(name: str) -> None:
    capture, facts = opened(name)
    rows = capture.table("dns").drop_nulls("response_frame").collect()
    by_frame = {row["response_frame"]: row for row in rows.to_dicts()}
    for d in facts.get("dns", []):
        row = by_frame.get(d["frame"])
        if row is None or not d["response"]:
            continue
        told = (row["answers"] or []) + (row["authority"] or []) + (row["additional"] or [])
        words = {word for text in told for word in text.split()}
        assert words >= {*d["a"], *d["aaaa"], *d["cname"]}
        if not row["malformed"]:
            assert len(row["answers"]) == d["answers"]
        if row["attempts"] != 1 and row["query_frame"] != d["response_to"]:
            continue
        if d["response_to"] and row["transport"] != "mdns":
            assert (row["query_frame"], row["latency_ns"]) == (d["response_to"], d["latency_ns"])


def test_most_of_the_corpus_is_compared() -> None:
    captures = [opened(name) for name in DNS]
    assert sum(len(facts.get("dns", [])) for _, facts in captures) > 2500
    assert sum(capture.table("dns").select(pl.len()).collect().item() for capture, _ in captures) > 1200


@pytest.mark.parametrize("name", ["dev_clean", "dev_lossy"])
def test_names_equal_what_the_client_logged(name: str) -> None:
    folder = CORPUS / "live" / name
    rows = Capture.open(folder / "client.pcap").table("dns").collect()
    lines = [json.loads(line) for line in (folder / "client.jsonl").read_text().splitlines()]
    asked = [x for x in lines if x["kind"] == "dns" and x.get("rcode") is not None]
    logged = collections.Counter(
        ("tcp" if x["tcp"] else "udp", x["lport"], x["id"], x["qname"], x["qtype"], x["rcode"]) for x in asked
    )
    columns = ("transport", "client_port", "id", "qname", "qtype", "rcode")
    assert logged <= collections.Counter(rows.select(columns).rows())
