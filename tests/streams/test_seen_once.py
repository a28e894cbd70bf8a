"""Local conversations in a file that has each packet once, as those that are written for Wireshark.

All their packets then go out, as they were seen at their senders, or all come in.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tshark
from helpers.traffic import ACK, CLIENT, RST, SERVER, SYN, Packets

import stratokit as sk
from stratokit.engine.convert import convert_files
from stratokit.streams import tcp
from stratokit.streams.sides import with_sides

SAMPLES = Path(__file__).parents[2] / "sample_captures"
NAMES = ("mixed", "tls", "nginx-curl", "slow-server")


@pytest.mark.parametrize("name", NAMES)
def test_an_export_says_what_the_capture_did(name, tmp_path):
    original = sk.open(SAMPLES / f"{name}.parquet")
    exported = tmp_path / "a.pcapng"
    convert_files([SAMPLES / f"{name}.parquet"], exported)
    export = sk.open(exported)
    for table, columns in {
        "http": ["method", "host", "path", "status", "request_body_bytes", "response_body_bytes", "comm"],
        "tls": ["version", "sni", "alpn", "ja3", "ja4"],
        "dns": ["qname", "qtype", "rcode", "outcome", "comm"],
        "tcp": ["conn_state", "payload_c2s", "payload_s2c", "resets"],
        "flows": ["proto", "client_port", "server_port", "packets_c2s", "packets_s2c", "pid"],
    }.items():
        before, after = (capture.table(table).collect() for capture in (original, export))
        assert after.select(columns).equals(before.select(columns)), table


@pytest.mark.parametrize("name", NAMES)
def test_an_export_with_directions_is_as_one_without(name, tmp_path):
    tshark.need("editcap")
    convert_files([SAMPLES / f"{name}.parquet"], tmp_path / "a.pcapng")
    tshark.run("editcap", "-F", "nsecpcap", str(tmp_path / "a.pcapng"), str(tmp_path / "a.pcap"))
    with_ways, without = (sk.open(tmp_path / f"a.{suffix}") for suffix in ("pcapng", "pcap"))
    assert with_ways.table("packets").collect()["direction"].null_count() == 0
    for table in ("tcp", "segments"):
        found, expected = (capture.table(table).collect() for capture in (with_ways, without))
        leave = {"direction"} & set(found.columns)
        assert found.drop(leave).equals(expected.drop(leave)), table
    analysis = ["frame", "tcp_analysis"]
    found, expected = (c.table("packets", columns=analysis).collect() for c in (with_ways, without))
    assert found.equals(expected)


@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize("begins", [SYN, ACK])
def test_all_packets_of_both_ends_pass_the_same_way(way, begins):
    packets = Packets()
    packets.segment(CLIENT, SERVER, 1, b"", begins, direction=way)
    packets.segment(CLIENT, SERVER, 2, b"", RST, direction=way)
    packets.segment(SERVER, CLIENT, 9, b"answer", ACK, direction=way)
    packets.segment(SERVER, CLIENT, 15, b"", RST, direction=way)
    assert with_sides(packets.rows("packet").collect())["view"].to_list() == [0] * 4
    found = tcp.build(packets).collect()
    assert found["view"].to_list() == ["wire"]
    assert found["resets"].to_list() == [2]
    assert found["payload_s2c"].to_list() == [6]


def test_what_one_end_saw_stays_its_view():
    packets = Packets()
    packets.segment(CLIENT, SERVER, 1, b"", SYN, direction="in")
    packets.segment(SERVER, CLIENT, 9, b"", SYN | ACK, direction="out")
    assert tcp.build(packets).collect()["view"].to_list() == ["server"]
    assert with_sides(packets.rows("packet").collect())["view"].to_list() == [2, 2]
