"""Packet files as a source of rows: only what is asked for, in windows, in parallel, always the same."""

from __future__ import annotations

import gzip
import struct
import threading
import time

import polars as pl
import pytest
from helpers import frames
from helpers.pcapng_bytes import Section

from stratokit.engine import in_order, packet_windows
from stratokit.engine.capture import Capture
from stratokit.errors import FormatError
from stratokit.formats import pcap

COUNT = 500


def pcap_bytes(count: int = COUNT) -> bytes:
    """Conversations of UDP, a few packets each, nanoseconds."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)]
    for i in range(count):
        payload = bytes([i & 255]) * (i % 40)
        frame = frames.eth(frames.ipv4(frames.udp(payload, 1000 + i // 5), 17))
        parts.append(struct.pack("<IIII", i, i, len(frame), len(frame)) + frame)
    return b"".join(parts)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap_bytes())
    return path


@pytest.fixture
def asked(monkeypatch):
    """Columns that the windows were decoded for."""
    found = []
    original = packet_windows.windows_of

    def spy(reader, names, **options):
        found.append(set(names))
        return original(reader, names, **options)

    monkeypatch.setattr("stratokit.engine.packet_files.windows_of", spy)
    return found


def test_only_columns_of_the_query_are_made(path, asked):
    rows = Capture.open(path).rows("packet")
    assert rows.filter(pl.col("dst_port") == 53).select(pl.col("orig_len").sum()).collect().item() > 0
    assert asked == [{"dst_port", "orig_len"}]
    assert rows.select(pl.len()).collect().item() == COUNT
    assert "data" not in asked[1]


def test_frames_are_not_looked_into_for_what_the_record_says(path, monkeypatch):
    monkeypatch.setattr(packet_windows, "dissect", lambda *_: pytest.fail("dissected"))
    rows = Capture.open(path).rows("packet").select("frame", "ts", "cap_len", "data", "kind").collect()
    assert rows["frame"].to_list() == list(range(1, COUNT + 1))
    assert rows["data"].bin.size().to_list() == rows["cap_len"].to_list()
    assert rows["kind"].unique().to_list() == ["packet"]


def test_a_limit_ends_the_reading(path, monkeypatch):
    monkeypatch.setattr(pcap, "BATCH_FRAMES", 10)
    taken = []
    original = pcap.PcapReader._batch
    monkeypatch.setattr(pcap.PcapReader, "_batch", lambda *a: taken.append(1) or original(*a))
    rows = Capture.open(path).rows("packet")
    assert rows.head(7).select("frame").collect()["frame"].to_list() == list(range(1, 8))
    assert len(taken) < 10


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 7, 1 << 18])
def test_rows_depend_on_neither_windows_nor_threads(path, monkeypatch, threads, batch):
    expected = Capture.open(path).rows("packet").collect()
    monkeypatch.setattr(in_order, "processors", lambda: threads)
    monkeypatch.setattr(pcap, "BATCH_FRAMES", batch)
    assert Capture.open(path).rows("packet").collect().equals(expected)
    assert expected["flow_id"].to_list() == [i // 5 for i in range(COUNT)]


def test_packed_files_give_the_same(path, tmp_path):
    packed = tmp_path / "x.pcap.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    rows = [Capture.open(p).rows("packet").collect() for p in (path, packed)]
    assert rows[0].equals(rows[1])


def test_where_reading_ended_and_why_is_a_row(path):
    content = path.read_bytes()
    path.write_bytes(content + bytes(8) + b"\xff\xff\xff\xff" + bytes(40))
    capture = Capture.open(path)
    assert capture.rows("packet").select(pl.len()).collect().item() == COUNT
    (loss,) = capture.rows("loss").collect().to_dicts()
    assert (loss["counter"], loss["file_offset"]) == ("file_damaged", len(content))
    assert loss["reason"]
    assert capture.info()["damage"]["offset"] == len(content)


def test_a_file_of_which_nothing_can_be_read_is_an_error(path):
    path.write_bytes(pcap_bytes(1)[:-1])
    with pytest.raises(FormatError, match=r"nothing could be read: .* \(byte 24\)"):
        Capture.open(path).info()


def test_simple_packets_have_no_time(tmp_path):
    s = Section()
    path = tmp_path / "x.pcapng"
    path.write_bytes(s.header() + s.interface() + s.simple_packet(bytes(60)) + s.packet(bytes(60), time=5))
    capture = Capture.open(path)
    assert capture.rows("packet").collect()["ts"].to_physical().to_list() == [None, 5000]
    assert (capture.info()["first_ts"], capture.info()["last_ts"]) == (5000, 5000)


def test_comments_of_ptcpdump_say_whose_packet_it_is(tmp_path):
    s = Section()
    comments = (
        b"PID: 501\nCmd: /usr/bin/curl\nArgs: curl example.org",
        b"ThreadId: 502\nThreadName: resolver",
        b"ContainerName: app\nContainerId: 3fa\nContainerImage: shop:1",
        b"PodName: web-1\nPodNamespace: shop",
    )
    path = tmp_path / "x.pcapng"
    content = s.header() + s.interface() + s.packet(bytes(60), *((1, text) for text in comments))
    content += s.packet(bytes(60), (1, comments[0])) + s.packet(bytes(60), (1, b"PID: unknown\nPodName: "))
    path.write_bytes(content)
    names = ("pid", "tid", "comm", "container_id", "pod", "namespace")
    rows = Capture.open(path).rows("packet").select(names).collect().rows()
    assert rows == [
        (501, 502, "resolver", "3fa", "web-1", "shop"),
        (501, None, "curl", None, None, None),
        (None,) * 6,
    ]


def test_options_of_packets_become_columns(tmp_path):
    s = Section()
    path = tmp_path / "x.pcapng"
    content = s.header() + s.interface((2, b"eth0")) + s.process(501, b"curl")
    content += s.packet(bytes(60), (2, s.number(2)), (8, s.number(501) + s.number(7)), (0x8001, s.number(0)))
    path.write_bytes(content + s.packet(bytes(60)))
    rows = Capture.open(path).rows("packet").select("interface", "direction", "pid", "tid", "comm").collect()
    assert rows.rows() == [("eth0", "out", 501, 7, "curl"), ("eth0", None, None, None, None)]


def test_work_in_order_is_bounded_and_ends_with_its_reader():
    running, most, lock = [], [], threading.Lock()

    def work(part, turn):
        with lock:
            running.append(part)
        time.sleep(0.001 * (part % 3))
        with turn.taken():
            most.append(part)
        return part

    parts = in_order.map_in_order(iter(range(1000)), work, 3)
    assert [next(parts) for _ in range(20)] == list(range(20))
    parts.close()
    assert len(running) < 30
    assert most == sorted(most)


def test_a_failure_is_told_where_it_stands():
    def work(part, turn):
        if part == 5:
            raise ValueError("part 5")
        with turn.taken():
            return part

    parts = in_order.map_in_order(range(50), work, 4)
    assert [next(parts) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="part 5"):
        next(parts)
