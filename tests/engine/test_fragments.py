"""Fragments and ICMP errors from a file to its tables, over windows of any size."""

from __future__ import annotations

import struct
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from helpers import frames

from stratokit.engine.capture import Capture
from stratokit.engine.convert import convert_files
from stratokit.engine.losses import loss_totals
from stratokit.formats import pcap

NAME = b"\4long\7example\0"
QUERY = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + NAME + b"\0\x10\0\1"
TEXT = b"\xff" + b"t" * 255
ANSWER = struct.pack(">6H", 7, 0x8180, 1, 8, 0, 0) + NAME + b"\0\x10\0\1"
ANSWER += (b"\xc0\x0c\0\x10\0\1\0\0\0\x3c" + struct.pack(">H", len(TEXT)) + TEXT) * 8
CLIENT, SERVER, ROUTER = "10.0.0.1", "10.0.0.53", "10.9.9.9"


def answer_in_fragments() -> list[bytes]:
    segment = frames.udp(ANSWER, 53, 40000)
    return [
        frames.ipv4(
            segment[at : at + 600],
            17,
            SERVER,
            CLIENT,
            fragment=at // 8 | (0x2000 if at + 600 < len(segment) else 0),
            number=9,
        )
        for at in range(0, len(segment), 600)
    ]


@pytest.fixture(params=[1, 3, 10_000])
def capture(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Capture:
    monkeypatch.setattr(pcap, "BATCH_FRAMES", request.param)
    syn = frames.ipv4(frames.tcp(source=5000), 6, CLIENT, SERVER)
    other = frames.ipv4(frames.tcp(source=5000), 6, CLIENT, "10.0.0.54")
    unreachable = frames.ipv4(frames.icmp(syn[:28], 3, 1), 1, ROUTER, CLIENT)
    unknown = frames.ipv4(frames.icmp(frames.ipv4(frames.tcp(source=6000)), 3, 1), 1, ROUTER, CLIENT)
    ping = frames.ipv4(frames.icmp(b"", 8), 1, CLIENT, SERVER)
    exceeded = frames.ipv4(frames.icmp(ping, 11), 1, ROUTER, CLIENT)
    alone = frames.ipv4(b"x" * 16, 17, CLIENT, SERVER, fragment=0x2000 | 5, number=77)
    query = frames.ipv4(frames.udp(QUERY, 40000, 53), 17, CLIENT, SERVER)
    packets = [other, query, syn, *answer_in_fragments(), unreachable, unknown, ping, exceeded, alone]
    path = tmp_path / "x.pcap"
    path.write_bytes(frames.pcap(packets, link_type=101))
    return Capture.open(path)


def test_an_answer_in_fragments_is_read(capture: Capture) -> None:
    row = capture.table("dns").select("qname", "rcode", "response_frame", "answers").collect().to_dicts()[0]
    assert (row["qname"], row["rcode"], row["response_frame"]) == ("long.example", 0, 7)
    assert len(row["answers"]) == 8


def test_icmp_errors_name_the_conversation_they_are_about(capture: Capture) -> None:
    rows = capture.rows("packet").select("frame", "flow_id", "icmp_flow_id").collect()
    flow = dict(rows.select("frame", "flow_id").rows())
    assert rows.filter(pl.col("icmp_flow_id").is_not_null()).select("frame", "icmp_flow_id").rows() == [
        (8, flow[3]),
        (11, flow[10]),
    ]
    assert flow[3] != flow[1]


def test_fragments_that_stay_alone_are_counted(capture: Capture) -> None:
    rows = loss_totals(capture).select("counter", "amount").rows()
    assert rows == [("fragment_alone", 1)]


def _as_recorded(path: Path) -> None:
    """As a recording says what it was asked for; captures made of packet files are read as one."""
    groups = [pq.ParquetFile(path).read_row_group(n) for n in range(pq.read_metadata(path).num_row_groups)]
    schema = pq.read_schema(path)
    metadata = pq.read_metadata(path).metadata | {b"stratokit.options": b"{}"}
    with pq.ParquetWriter(path, schema.with_metadata(metadata)) as writer:
        for group in groups:
            writer.write_table(group)


def test_captures_behind_each_other_shift_both_numbers_of_conversations(capture: Capture) -> None:
    path = capture.paths[0]
    copies = [path.with_name(name) for name in ("x.parquet", "y.parquet")]
    for copy in copies:
        convert_files([path], copy)
        _as_recorded(copy)
    rows = Capture.open(copies).rows("packet").select("flow_id", "icmp_flow_id").collect()
    both = rows.filter(pl.col("icmp_flow_id").is_not_null())["icmp_flow_id"].to_list()
    flows = rows["flow_id"].max() // 2 + 1
    assert both[2:] == [number + flows for number in both[:2]]
