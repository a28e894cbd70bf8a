"""`flows` and `tcp` against what tshark says about real captures, all that hold TCP.

Known rules by which they differ, each applied to all files alike; docs/tcp.md explains those that are ours:
- The facts name a connection of IPv6 within IPv4 by the outer addresses.
- VLANs and tunnels keep conversations apart here; of ends in several, only packets and bytes are compared.
- What is in a tunnel that is not decoded here is no conversation.
- tshark shows lengths above 2^31 - 1 as that, and so the payload that follows from them.
- A connection with a TCP header that contradicts itself is left out, and where tshark calls packets malformed
  also one with IPv4 options, which we do not look into.
- tshark takes ACKs for those of unseen bytes once 10,000 segments of a direction await theirs.
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

LENGTH_MAX = 2**31 - 1
IP_MAX = 2**16 - 1  # of more, only the frame tells
UNACKED_MAX = 10_000


def manifest() -> list[dict[str, Any]]:
    if not CORPUS.is_dir():
        return []
    return [json.loads(line) for line in (CORPUS / "MANIFEST.jsonl").read_text().splitlines()]


def tags(entry: dict[str, Any]) -> set[str]:
    return {tag if tag.startswith("link:") else tag.partition(":")[0] for tag in entry["tags"]}


TAGS = {entry["file"]: tags(entry) for entry in manifest() if "scap" not in entry["kind"]}
FILES = [name for name, known in TAGS.items() if "tcp" in known]


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


Key = tuple[frozenset[tuple[str, int]], int]  # both ends, and the how many-th connection between them


@pytest.mark.parametrize("name", FILES)
def test_tcp_equals_tsharks(name: str) -> None:
    capture, facts = opened(name)
    capture.keep(["flows", "tcp"])
    flows = capture.table("flows").filter(pl.col("proto") == "tcp")
    tcp = flows.join(capture.table("tcp"), on="flow_id", how="left")
    found = with_outer_addresses(
        tcp.join(of_packets(capture), on="flow_id", how="left").sort("flow_id").collect()
    )
    theirs = facts["tcp_conversations"]
    if found.is_empty() and nothing_is_decoded(capture):
        return
    several = ends_in_several_places(found)
    ours = {key: row for key, row in keyed(found.rows(named=True)).items() if key[0] not in several}
    told = {key: row for key, row in keyed(by_number(theirs)).items() if key[0] not in several}
    assert in_places(found, several) == in_places_of_tshark(theirs, several)
    assert ours.keys() == told.keys()
    unusual = unusual_handshakes(capture)
    exact = True
    for key, row in ours.items():
        if row["contradicts"] or (row["options"] and "malformed" in TAGS[name]):
            exact = False
            continue
        assert packets_and_bytes(row) == (told[key]["frames"], told[key]["bytes"]), key
        assert analysis(row) == tuple(told[key][field] for field in ANALYSIS), key
        if row["flow_id"] not in unusual and row["handshake_rtt_ns"] != 0:
            assert row["handshake_rtt_ns"] == told[key].get("initial_rtt_ns"), key
    if exact and not several:
        long = (found["packets_c2s"] > UNACKED_MAX).any() or (found["packets_s2c"] > UNACKED_MAX).any()
        for flag, column in FILE_FLAGS.items():
            if flag != "ack_lost_segment" or not long:
                assert found[column].sum() == facts["tcp"][flag], flag


def nothing_is_decoded(capture: Capture) -> bool:
    return capture.table("packets").filter(pl.col("stop_layer").is_null()).collect().is_empty()


def of_packets(capture: Capture) -> pl.LazyFrame:
    """What packets tell of each conversation beside the tables."""
    over = (pl.col("orig_len").cast(pl.Int64) - LENGTH_MAX).clip(0)
    options = (pl.col("link_type") == 1) & (pl.col("ip_version") == 4) & (pl.col("data").bin.get(14) & 15 > 5)
    return (
        capture.rows("packet")
        .filter(pl.col("flow_id").is_not_null())
        .group_by("flow_id")
        .agg(
            over=over.sum(),
            payload_over=over.filter(pl.col("payload_len") > IP_MAX).sum(),
            place=pl.struct("vlan", "tunnel", "tunnel_id").first(),
            contradicts=((pl.col("stop_reason") == "length") & (pl.col("stop_layer") == "tcp")).any(),
            options=options.any(),
            first=pl.struct("src_ip", "outer_src_ip", "outer_dst_ip").first(),
        )
    )


def with_outer_addresses(found: pl.DataFrame) -> pl.DataFrame:
    src, *outer = (pl.col("first").struct.field(name) for name in ("src_ip", "outer_src_ip", "outer_dst_ip"))
    within = pl.col("client_ip").str.contains(":") & outer[0].str.contains(".", literal=True)
    forward = src == pl.col("client_ip")
    client = pl.when(forward).then(outer[0]).otherwise(outer[1])
    server = pl.when(forward).then(outer[1]).otherwise(outer[0])
    return found.with_columns(
        client_ip=pl.when(within).then(client).otherwise("client_ip"),
        server_ip=pl.when(within).then(server).otherwise("server_ip"),
    )


def by_number(conversations: Any) -> list[dict[str, Any]]:
    ordered = sorted(conversations, key=lambda c: c["stream"])
    names = {"src": "client_ip", "dst": "server_ip", "sport": "client_port", "dport": "server_port"}
    return [c | {ours: c[theirs] for theirs, ours in names.items()} for c in ordered]


def ends_of(row: dict[str, Any]) -> frozenset[tuple[str, int]]:
    return frozenset((row[f"{end}_ip"], int(row[f"{end}_port"])) for end in ("client", "server"))


def keyed(rows: list[dict[str, Any]]) -> dict[Key, dict[str, Any]]:
    seen: collections.Counter[frozenset[tuple[str, int]]] = collections.Counter()
    found = {}
    for row in rows:
        ends = ends_of(row)
        found[ends, seen[ends]] = row
        seen[ends] += 1
    return found


def ends_in_several_places(found: pl.DataFrame) -> set[frozenset[tuple[str, int]]]:
    places: dict[frozenset[tuple[str, int]], set[Any]] = collections.defaultdict(set)
    for row in found.iter_rows(named=True):
        places[ends_of(row)].add(tuple(row["place"].values()))
    return {ends for ends, ids in places.items() if len(ids) > 1}


def in_places(found: pl.DataFrame, several: set[Any]) -> collections.Counter[Any]:
    """Packets and bytes between ends that occur in several VLANs or tunnels."""
    total: collections.Counter[Any] = collections.Counter()
    for row in found.iter_rows(named=True):
        if ends_of(row) in several:
            for name, number in zip(("packets", "bytes"), packets_and_bytes(row), strict=True):
                total[ends_of(row), name] += number
    return total


def in_places_of_tshark(conversations: Any, several: set[Any]) -> collections.Counter[Any]:
    total: collections.Counter[Any] = collections.Counter()
    for row in by_number(conversations):
        if ends_of(row) in several:
            total[ends_of(row), "packets"] += row["frames"]
            total[ends_of(row), "bytes"] += row["bytes"]
    return total


def packets_and_bytes(row: dict[str, Any]) -> tuple[int, int]:
    return row["packets_c2s"] + row["packets_s2c"], row["bytes_c2s"] + row["bytes_s2c"] - row["over"]


ANALYSIS = ("retransmissions", "out_of_order", "lost_segment", "duplicate_ack", "rst", "payload")


def analysis(row: dict[str, Any]) -> tuple[int, ...]:
    names = ("retransmissions", "out_of_order", "lost_segments", "dup_acks", "resets")
    return *(row[name] for name in names), row["payload_c2s"] + row["payload_s2c"] - row["payload_over"]


def unusual_handshakes(capture: Capture) -> set[int]:
    """Connections whose third segment is not the client's ACK of the one SYN-ACK to its one SYN."""
    flags = pl.col("tcp_flags")
    packets = capture.rows("packet").filter(pl.col("ip_proto") == 6, pl.col("flow_id").is_not_null())
    syn, syn_ack = flags & (SYN | ACK) == SYN, flags & (SYN | ACK) == SYN | ACK
    ends = pl.col("src_ip", "src_port")
    third = (
        packets.filter(syn.not_(), syn_ack.not_())
        .group_by("flow_id")
        .agg(
            (flags & RST != 0).first().alias("reset"),
            ends.first().name.suffix("_third"),
            pl.col("tcp_ack").first(),
        )
    )
    first = packets.group_by("flow_id").agg(
        ends.first(), syns=syn.sum(), answers=syn_ack.sum(), isn=pl.col("tcp_seq").filter(syn_ack).first()
    )
    rows = first.join(third, on="flow_id", how="left").filter(
        (pl.col("syns") != 1)
        | (pl.col("answers") != 1)
        | pl.col("reset")
        | (pl.col("src_ip") != pl.col("src_ip_third"))
        | (pl.col("src_port") != pl.col("src_port_third"))
        | (pl.col("tcp_ack").cast(pl.Int64) != (pl.col("isn").cast(pl.Int64) + 1) % 2**32)
    )
    return set(rows.select("flow_id").collect().to_series())


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
