"""`http` against what tshark says about real captures, and what nginx logged.

Where they differ, and why, is in docs/protocols.md; each rule is applied to all files alike.
"""

from __future__ import annotations

import collections
import functools
import json
from typing import Any

import polars as pl
import pytest
from helpers.corpus import CORPUS, MARKS, files, opened

from stratokit.engine.capture import Capture
from stratokit.streams.flows import FIN

pytestmark = MARKS
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
        and r["frame"] in segments(capture)
    )
    missing = [key for key in theirs - ours if not zero_byte(key, ours)]
    assert not missing
    known = {r["method"] for r in facts.get("http_requests", [])} | {"GET", "POST"}
    complete = rows.filter(
        ~pl.col("request_cut"), pl.col("method").is_in(known), pl.col("version") != "HTTP/2"
    )
    complete = complete.filter(pl.col("request_frame") == pl.col("request_last_frame"))
    extra = (
        collections.Counter(complete.select("request_last_frame", "method", "path", "host").rows()) - theirs
    )
    assert not [key for key in extra if not zero_byte(key, theirs)]


@functools.cache
def segments(capture: Capture) -> set[int]:
    """Packets that were decoded down to TCP: fragments, and what stands in unknown headers, are not."""
    decoded = capture.rows("packet").filter(pl.col("payload_len").is_not_null())
    return set(decoded.select("frame").collect()["frame"])


def zero_byte(key: tuple[Any, ...], others: collections.Counter[tuple[Any, ...]]) -> bool:
    return any(key[0] == other[0] and "\x00" in f"{key[2]}{other[2]}" for other in others)


@pytest.mark.parametrize("name", HTTP)
def test_responses_equal_tsharks(name: str) -> None:
    capture, facts = opened(name)
    rows = capture.table("http").filter(pl.col("status").is_not_null()).collect()
    ours = collections.Counter(rows.select("response_last_frame", "status").rows())
    final = [
        r
        for r in facts.get("http_responses", [])
        if (r["status"] >= 200 or r["status"] == 101) and r["frame"] in segments(capture)
    ]
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


@pytest.mark.parametrize("name", ["dev_clean", "dev_lossy"])
def test_http_equals_what_nginx_logged(name: str) -> None:
    folder = CORPUS / "live" / name
    rows = Capture.open(folder / "client.pcap").table("http").filter(pl.col("server_port") == 80).collect()
    columns = ("client_port", "method", "path", "host", "status", "request_bytes", "response_bytes")
    ours = collections.Counter(rows.select(columns).rows())
    lines = [json.loads(line) for line in (folder / "nginx.jsonl").read_text().splitlines()]
    logged = ("rport", "method", "uri", "host", "status", "rlen", "bytes")
    assert ours == collections.Counter(tuple(x[key] for key in logged) for x in lines if x["sport"] == 80)
