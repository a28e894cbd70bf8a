"""TLS handshakes against tshark's on real captures, JA4 and certificates against other projects' results.

Differences, by rule (docs/protocols.md): tshark reads on behind the end of a malformed extension, and takes
encrypted handshake records for messages.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from typing import Any

import polars as pl
import pytest
from helpers.corpus import CORPUS, MARKS, files, opened
from helpers.tshark import run

from stratokit.engine.capture import Capture
from stratokit.protocols.tls_names import VERSIONS
from stratokit.protocols.tls_suites import SUITES

pytestmark = MARKS
TLS = files("tls-hello")


def by_flow(capture: Capture, hellos: list[dict[str, Any]], over: str) -> dict[int, dict[str, Any]]:
    """The first hello of each conversation."""
    flow_of = dict(capture.rows("packet").select("frame", "flow_id").collect().rows())
    found: dict[int, dict[str, Any]] = {}
    for hello in hellos:
        flow = flow_of[hello["frame"]]
        if hello["over"] == over:
            found.setdefault(flow, hello)
    return found


def rows_of(capture: Capture, over: str) -> dict[int, dict[str, Any]]:
    rows = capture.table("tls").filter(pl.col("transport") == ("tcp" if over == "tls" else over)).collect()
    return {row["flow_id"]: row for row in rows.to_dicts()}


@pytest.mark.parametrize("over", ["tls", "quic"])
@pytest.mark.parametrize("name", TLS)
def test_client_hellos_equal_tsharks(name: str, over: str) -> None:
    capture, facts = opened(name)
    theirs = by_flow(capture, facts.get("tls_client_hello", []), over)
    ours = {flow: row for flow, row in rows_of(capture, over).items() if row["ts"]}
    assert ours.keys() == theirs.keys()
    for flow, hello in theirs.items():
        row = ours[flow]
        assert (row["sni"], row["alpn"] or [], row["ja3"]) == (hello["sni"], hello["alpn"], hello["ja3"])


@pytest.mark.parametrize("name", TLS)
def test_server_hellos_equal_tsharks(name: str) -> None:
    capture, facts = opened(name)
    hellos = [hello for hello in facts.get("tls_server_hello", []) if int(hello["version"], 0) in VERSIONS]
    last = by_flow(capture, hellos[::-1], "tls")  # the first may be a HelloRetryRequest
    ours = {flow: row for flow, row in rows_of(capture, "tls").items() if row["ts_server_hello"]}
    assert ours.keys() == last.keys()
    for flow, hello in last.items():
        row = ours[flow]
        version, suite = int(hello["selected_version"] or hello["version"], 0), int(hello["cipher"], 0)
        if version not in VERSIONS:
            version = int(hello["version"], 0)
        assert (row["version"], row["cipher"]) == (VERSIONS[version], SUITES.get(suite, str(suite)))
        assert row["ja3s"] == hello["ja3s"]
        assert ([row["alpn_chosen"]] if row["alpn_chosen"] else []) == hello["alpn"]


def golden(suffix: str) -> list[tuple[str, str]]:
    """(capture, file beside it) with results of other projects."""
    if not CORPUS.is_dir():
        return []
    entries = map(json.loads, (CORPUS / "MANIFEST.jsonl").read_text().splitlines())
    found = [(e["file"], g) for e in entries for g in e["golden"] if g.endswith(suffix)]
    return [(name, result) for name, result in found if (CORPUS / result).exists()]


@pytest.mark.parametrize(("name", "result"), golden(".snap"))
def test_ja4_equals_its_authors(name: str, result: str) -> None:
    capture, _ = opened(name)
    expected = re.findall(r"ja4: (t\w+)", (CORPUS / result).read_text())
    assert sorted(expected) == sorted(row["ja4"] for row in rows_of(capture, "tls").values() if row["ja4"])


def arkime(result: str, key: str) -> list[Any]:
    sessions = json.loads((CORPUS / result).read_text())["sessions3"]
    return [found for session in sessions for found in session["body"].get(key, [])]


ARKIME = [(name, result) for name, result in golden(".test") if name in TLS]


@pytest.mark.parametrize(("name", "result"), ARKIME)
def test_ja4_equals_arkimes(name: str, result: str) -> None:
    capture, _ = opened(name)
    sessions = json.loads((CORPUS / result).read_text())["sessions3"]
    theirs = {ja4 for session in sessions for ja4 in session["body"].get("tls", {}).get("ja4", [])}
    ours = capture.table("tls").collect()["ja4"]
    assert theirs <= set(ours)


@pytest.mark.parametrize(("name", "result"), ARKIME)
def test_certificates_equal_arkimes(name: str, result: str) -> None:
    capture, _ = opened(name)
    rows = capture.table("tls").filter(pl.col("cert_sha256").is_not_null()).collect().to_dicts()
    subjects = " ".join(subject for row in rows for subject in row["cert_chain"] if subject).lower()
    validity = {(row["cert_not_before"], row["cert_not_after"]) for row in rows}
    names = {alternative.lower() for row in rows for alternative in row["cert_names"] or []}
    certificates = arkime(result, "cert")
    for certificate in certificates:
        assert all(common.lower() in subjects for common in certificate.get("subjectCN", []))
    leaves = [c for c in certificates if c.get("alt")]
    for leaf in leaves:
        span = tuple(dt.datetime.fromtimestamp(leaf[k] / 1000, dt.UTC) for k in ("notBefore", "notAfter"))
        assert span in validity
        assert names >= {name.lower() for name in leaf["alt"] if not name[0].isdigit()}


def test_enough_is_compared() -> None:
    assert sum(len(opened(name)[1].get("tls_client_hello", [])) for name in TLS) > 370
    assert sum(len(arkime(result, "cert")) for _, result in ARKIME) > 10


def ja4_in_quic(name: str) -> set[str]:
    """After JA4's description of 2024, from the fields that tshark shows of ClientHellos in QUIC."""
    wanted = (
        "handshake.version handshake.extensions.supported_version handshake.ciphersuite "
        "handshake.extension.type handshake.sig_hash_alg handshake.extensions_alpn_str"
    )
    arguments = [part for field in wanted.split() for part in ("-e", f"tls.{field}")]
    hellos = "quic && tls.handshake.type == 1"
    command = ["tshark", "-n", "-r", str(CORPUS / name), "-Y", hellos, "-T", "fields", "-E", "aggregator=;"]
    found = set()
    for line in run(*command, *arguments, must_succeed=False)[0].splitlines():
        legacy, versions, suites, types, algorithms, alpn = line.split("\t")
        lists = [
            [number for part in text.split(";") if part and (number := int(part, 0)) & 0x0F0F != 0x0A0A]
            for text in (versions or legacy, suites, types, algorithms)
        ]
        offered, ciphers, extensions, signatures = lists
        protocol = alpn.split(";")[0] or "00"
        head = f"q{ {0x0303: '12', 0x0304: '13'}.get(max(offered), '00') }{'d' if 0 in extensions else 'i'}"
        head += f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}{protocol[0]}{protocol[-1]}"
        kinds = ",".join(f"{number:04x}" for number in sorted(extensions) if number not in (0, 16))
        parts = [
            ",".join(f"{number:04x}" for number in sorted(ciphers)),
            kinds + "".join(f"{',' if n else '_'}{number:04x}" for n, number in enumerate(signatures)),
        ]
        found.add("_".join([head, *(hashlib.sha256(part.encode()).hexdigest()[:12] for part in parts)]))
    return found


@pytest.mark.parametrize("name", files("quic-hello"))
def test_ja4_in_quic_equals_that_of_tsharks_fields(name: str) -> None:
    capture, _ = opened(name)
    rows = capture.table("tls").filter(pl.col("transport") == "quic").collect()
    assert set(rows["ja4"].drop_nulls()) == ja4_in_quic(name) != set()
