"""`flows` and `tcp` against what tshark says about real captures.

Known rules by which they differ, each applied to all files alike:
- What is inside a tunnel is no conversation yet, and a fragment after the first belongs to none.
- VLANs keep conversations apart, unless the two directions use one each.
- tshark shows lengths above 2^31 - 1 as that.
- tshark takes the first segment with relative numbers 1, 1 for the end of the handshake, whoever sent it and
  also a reset, and counts from the latest SYN, even one sent again after the SYN-ACK. It shows no time of 0.
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
from stratokit.streams.community_id import community_ids
from stratokit.streams.flows import ACK, RST, SYN

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no {CORPUS}"),
]

TUNNELS = {
    "gre", "vxlan", "geneve", "gtp", "pppoes", "ppp", "mpls", "teredo", "erspan", "ah", "esp", "link:ppp",
}  # fmt: skip
OTHER_RULES = {"ip-frag", "ipv6-frag", "vlan", "qinq", "snaplen-cut", "malformed"}


def manifest() -> list[dict[str, Any]]:
    if not CORPUS.is_dir():
        return []
    return [json.loads(line) for line in (CORPUS / "MANIFEST.jsonl").read_text().splitlines()]


def tags(entry: dict[str, Any]) -> set[str]:
    return {tag if tag.startswith("link:") else tag.partition(":")[0] for tag in entry["tags"]}


FILES = [
    entry["file"]
    for entry in manifest()
    if "scap" not in entry["kind"] and "tcp" in tags(entry) and not tags(entry) & (TUNNELS | OTHER_RULES)
]


def opened(name: str) -> tuple[Capture, dict[str, Any]]:
    facts = json.loads((CORPUS / f"{name}.oracle.json").read_text())
    if "Unknown" in str(facts.get("kind")) or not (CORPUS / name).exists():
        pytest.skip("no facts")
    try:
        return Capture.open(CORPUS / name), facts
    except StratokitError as error:
        pytest.skip(f"no reader: {error}")


FILE_FLAGS = {
    "fast_retransmission": "fast_retransmissions",
    "spurious_retransmission": "spurious_retransmissions",
    "ack_lost_segment": "acked_unseen",
    "zero_window": "zero_windows",
    "keep_alive": "keep_alives",
}


@pytest.mark.parametrize("name", FILES)
def test_tcp_equals_tsharks(name: str) -> None:
    capture, facts = opened(name)
    capture.keep(["flows", "tcp"])
    flows = capture.table("flows").filter(pl.col("proto") == "tcp").collect()
    connections_packets_and_bytes_equal_tsharks(facts, flows)
    tcp = flows.join(capture.table("tcp").collect(), on="flow_id", maintain_order="left")
    handshake_times_equal_tsharks(capture, facts, tcp)
    analysis_equals_tsharks(facts, tcp)


def connections_packets_and_bytes_equal_tsharks(facts: dict[str, Any], flows: pl.DataFrame) -> None:
    ours = collections.Counter(
        (
            frozenset({(row["client_ip"], row["client_port"]), (row["server_ip"], row["server_port"])}),
            row["packets_c2s"] + row["packets_s2c"],
            row["bytes_c2s"] + row["bytes_s2c"],
        )
        for row in flows.iter_rows(named=True)
    )
    theirs = collections.Counter(
        (frozenset({(c["src"], int(c["sport"])), (c["dst"], int(c["dport"]))}), c["frames"], c["bytes"])
        for c in facts["tcp_conversations"]
    )
    assert ours == theirs


def handshake_times_equal_tsharks(capture: Capture, facts: dict[str, Any], tcp: pl.DataFrame) -> None:
    columns = ["client_ip", "client_port", pl.col("first_ts").to_physical(), "handshake_rtt_ns"]
    ours = {(row[0], row[1], row[2]): row[3] for row in tcp.select(columns).rows()}
    odd = unusual_handshakes(capture)
    for c in facts["tcp_conversations"]:
        key = (c["src"], int(c["sport"]), c["first_ns"])
        if ours.get(key) != 0 and key in ours and key not in odd:
            assert ours[key] == c.get("initial_rtt_ns"), key


def analysis_equals_tsharks(facts: dict[str, Any], tcp: pl.DataFrame) -> None:
    """Flags of each connection; those that the facts only have for the whole file, there."""
    ends = [pl.concat_list("client_ip", pl.col("client_port").cast(pl.String)).list.join(" ")]
    ends.append(pl.concat_list("server_ip", pl.col("server_port").cast(pl.String)).list.join(" "))
    keyed = tcp.with_columns(pl.concat_list(ends).list.sort().alias("ends"), pl.col("first_ts").to_physical())
    payload = pl.col("payload_c2s") + pl.col("payload_s2c")
    counts = ("retransmissions", "out_of_order", "lost_segments", "dup_acks", payload, "resets")
    ours = {(tuple(row[0]), row[1]): row[2:] for row in keyed.select("ends", "first_ts", *counts).rows()}
    names = ("retransmissions", "out_of_order", "lost_segment", "duplicate_ack", "payload", "rst")
    theirs = {
        (tuple(sorted((f"{c['src']} {c['sport']}", f"{c['dst']} {c['dport']}"))), c["first_ns"]): tuple(
            c[name] for name in names
        )
        for c in facts["tcp_conversations"]
    }
    assert ours == theirs
    for name, column in FILE_FLAGS.items():
        assert tcp[column].sum() == facts["tcp"][name], name


def unusual_handshakes(capture: Capture) -> set[Any]:
    """Connections whose third segment is not the client's ACK, or with more than one SYN or SYN-ACK."""
    flags = pl.col("tcp_flags")
    packets = capture.rows("packet").filter(pl.col("ip_proto") == 6, pl.col("flow_id").is_not_null())
    client = pl.col("src_ip", "src_port", "ts").first()
    syn, syn_ack = flags & (SYN | ACK) == SYN, flags & (SYN | ACK) == SYN | ACK
    third = (
        packets.filter(syn.not_(), syn_ack.not_())
        .group_by("flow_id")
        .agg(
            (flags & RST != 0).first().alias("reset"),
            pl.col("src_ip", "src_port").first().name.suffix("_third"),
        )
    )
    first = packets.group_by("flow_id").agg(client, syns=syn.sum(), answers=syn_ack.sum())
    rows = first.join(third, on="flow_id", how="left").filter(
        (pl.col("syns") != 1)
        | (pl.col("answers") != 1)
        | pl.col("reset")
        | (pl.col("src_ip") != pl.col("src_ip_third"))
        | (pl.col("src_port") != pl.col("src_port_third"))
    )
    return set(rows.select("src_ip", "src_port", pl.col("ts").to_physical()).collect().rows())


def zeek_logs() -> list[tuple[str, Path]]:
    """Captures with the log that Zeek wrote of them, checksums not verified."""
    logs = []
    for entry in manifest():
        for golden in entry["golden"]:
            for name in ("conn.log", "conn-worked.log"):
                log = CORPUS / golden.split()[0] / name
                if log.exists() and "\ttcp\t" in log.read_text():
                    logs.append((entry["file"], log))
    return logs


@pytest.mark.parametrize(("name", "log"), zeek_logs())
def test_states_histories_and_bytes_equal_zeeks(name: str, log: Path) -> None:
    lines = log.read_text().splitlines()
    fields = next(line for line in lines if line.startswith("#fields")).split("\t")[1:]
    rows = [dict(zip(fields, line.split("\t"), strict=True)) for line in lines if not line.startswith("#")]
    names = ("id.orig_p", "id.resp_p", "conn_state", "history", "orig_bytes", "resp_bytes")
    theirs = {tuple(row[n] for n in names) for row in rows if row["proto"] == "tcp"}
    capture = Capture.open(CORPUS / name)
    columns = ("client_port", "server_port", "conn_state", "history", "payload_c2s", "payload_s2c")
    tcp = capture.table("flows").join(capture.table("tcp"), on="flow_id").select(columns).collect()
    if tcp.is_empty():  # a tunnel that is not decoded: told of every packet
        assert capture.table("packets").filter(pl.col("stop_layer").is_null()).collect().is_empty()
    else:
        assert {tuple(map(str, row)) for row in tcp.rows()} == theirs


def test_community_ids_equal_the_specifications_baseline() -> None:
    baseline = json.loads((CORPUS / "corelight+community-id-spec/baseline/baseline_deflt.json").read_text())
    ports = ("src_port", "dst_port")
    frame = pl.DataFrame(baseline, infer_schema_length=None).rename(
        {"saddr": "src_ip", "daddr": "dst_ip", "proto": "ip_proto", "sport": ports[0], "dport": ports[1]}
    )
    kinds = {"icmp_type": pl.col(ports[0]), "icmp_code": pl.col(ports[1])}
    icmp = pl.col("ip_proto").is_in([1, 58])
    frame = frame.with_columns(**{name: pl.when(icmp).then(value) for name, value in kinds.items()})
    assert community_ids(frame).to_list() == frame["communityid"].to_list()
