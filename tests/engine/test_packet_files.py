"""Packet files of other programs as captures."""

from __future__ import annotations

import struct

import pytest
import synthetic
from synthetic import MS, T0

from stratokit.engine.capture import Capture
from stratokit.engine.convert import convert, convert_files
from stratokit.reports.run import run


@pytest.fixture
def shop(tmp_path):
    return Capture.open(synthetic.small_shop(tmp_path / "shop.parquet"))


@pytest.fixture
def pcap(tmp_path, shop):
    """The packets of the shop as another program would have recorded them: raw IP, nanoseconds."""
    path = tmp_path / "shop.pcap"
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101)]
    for ts, data in shop.rows("packet").select("ts", "data").collect().with_columns(pl_ns()).iter_rows():
        parts += [struct.pack("<IIII", ts // 10**9, ts % 10**9, len(data), len(data)), data]
    path.write_bytes(b"".join(parts))
    return path


def pl_ns():
    import polars as pl

    return pl.col("ts").to_physical()


def test_packets_get_what_their_bytes_say(pcap, shop):
    names = ["frame", "ts", "src_ip", "dst_port", "tcp_flags", "tcp_seq", "payload_len", "flow_id", "ip_ttl"]
    here = Capture.open(pcap).table("packets").select(names).collect()
    assert here.equals(shop.table("packets").select(names).collect())
    assert Capture.open(pcap).table("packets").collect()["direction"].null_count() == 14


def test_facts_and_losses_of_a_packet_file(pcap):
    facts = Capture.open(pcap).info()
    assert facts["rows"] == {"interface": 1, "packet": 14}
    assert (facts["first_ts"], facts["last_ts"]) == (T0, T0 + 281 * MS)
    assert not run(Capture.open(pcap), ["protocols"]).counts_losses


def test_a_packet_file_that_was_cut_says_so(pcap):
    data = pcap.read_bytes()
    pcap.write_bytes(data[:-5])
    result = run(Capture.open(pcap), ["protocols"])
    assert result.facts["rows"]["packet"] == 13
    assert result.losses["counter"].to_list() == ["file_cut"]
    assert result.losses["is_loss"].to_list() == [True]


def test_converted_it_gives_the_same_report(pcap, tmp_path):
    calls = []
    convert_files([pcap], tmp_path / "out.parquet", lambda done, total: calls.append((done, total)))
    before, after = run(Capture.open(pcap)), run(Capture.open(tmp_path / "out.parquet"))
    for one, other in zip(before.sections, after.sections, strict=True):
        assert one.note == other.note
        if one.frame is not None:
            assert other.frame is not None
            assert one.frame.equals(other.frame), one.report.name
    size = pcap.stat().st_size
    assert calls[-1] == (size, size)


def test_a_filtered_capture_keeps_only_its_packets(shop, tmp_path):
    convert(shop.where("http"), tmp_path / "http.parquet")
    kept = Capture.open(tmp_path / "http.parquet")
    assert kept.table("packets").collect()["frame"].to_list() == [8, 9, 10, 11]
    assert kept.info()["rows"]["syscall"] == 4
