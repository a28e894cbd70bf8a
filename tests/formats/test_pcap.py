"""pcap: every variant is read, damage is named, and what is written is read by others."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from helpers import frames, tshark
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.errors import FormatError, UsageError
from stratokit.formats import pcap, registry
from stratokit.formats.pcap import PcapReader, PcapWriter

START = 1_700_000_000_123_456_789
FRAMES = [frames.eth(frames.ipv4(frames.tcp(bytes(n)))) for n in (0, 1, 700, 3)]
TIMES = [START, START + 1000, START - 5000, START + 10**12]


def read(path: Path) -> tuple[list[tuple[bytes, int, int]], PcapReader]:
    """(frame, original length, time) of every packet."""
    rows = []
    with PcapReader(path) as reader:
        for batch in reader.batches():
            for i, at in enumerate(batch.offsets.tolist()):
                data = batch.data[at : at + int(batch.cap_lens[i])].tobytes()
                rows.append((data, int(batch.orig_lens[i]), int(batch.ts_ns[i])))
    return rows, reader


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [True, False])
def test_byte_orders_and_resolutions(tmp_path: Path, order: str, nanoseconds: bool) -> None:
    origs = [len(f) + 7 for f in FRAMES]
    content = frames.pcap(FRAMES, 113, TIMES, origs, order, nanoseconds, snaplen=96)
    rows, reader = read(save(tmp_path / "x", content))
    unit = 1 if nanoseconds else 1000
    assert rows == [(f, o, t // unit * unit) for f, o, t in zip(FRAMES, origs, TIMES, strict=True)]
    assert (reader.interfaces[0].link_type, reader.interfaces[0].snaplen) == (113, 96)
    assert reader.damage is None


def test_kuznetzov_records_are_longer(tmp_path: Path) -> None:
    content = struct.pack("<IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    for frame in FRAMES:
        content += struct.pack("<IIIIIHBB", 5, 6, len(frame), len(frame), 2, 0x0800, 0, 0) + frame
    rows, _ = read(save(tmp_path / "x", content))
    assert rows == [(f, len(f), 5_000_006_000) for f in FRAMES]


def test_old_versions_have_the_lengths_the_other_way_round(tmp_path: Path) -> None:
    for minor in (2, 3):
        content = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, minor, 0, 0, 65535, 1)
        content += struct.pack("<IIII", 1, 0, 99, 4) + b"abcd"
        assert read(save(tmp_path / "x", content))[0] == [(b"abcd", 99, 1_000_000_000)]


def test_check_sequence_bits_are_no_link_type(tmp_path: Path) -> None:
    content = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 0x24000001)
    assert read(save(tmp_path / "x", content))[1].interfaces[0].link_type == 1


def test_every_cut_delivers_what_is_whole(tmp_path: Path) -> None:
    whole = frames.pcap(FRAMES, times_ns=TIMES)
    ends = [24]
    for frame in FRAMES:
        ends.append(ends[-1] + 16 + len(frame))
    for size in range(24, len(whole) + 1):
        rows, reader = read(save(tmp_path / "x", whole[:size]))
        complete = max(n for n, end in enumerate(ends) if end <= size)
        assert len(rows) == complete
        if size in ends:
            assert reader.damage is None
        else:
            assert reader.damage is not None
            assert (reader.damage.counter, reader.damage.offset) == ("file_cut", ends[complete])


def test_a_lying_length_is_damage(tmp_path: Path) -> None:
    good = frames.pcap(FRAMES)
    rows, reader = read(save(tmp_path / "x", good + struct.pack("<IIII", 1, 1, 2**31, 2**31) + bytes(100)))
    assert len(rows) == 4
    assert reader.damage is not None
    assert (reader.damage.counter, reader.damage.offset) == ("file_damaged", len(good))


def test_a_window_boundary_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x", frames.pcap(FRAMES * 20))
    expected, _ = read(path)
    for window, batch in ((1, 1), (17, 3), (100, 1000), (5000, 7)):
        monkeypatch.setattr(pcap, "WINDOW_BYTES", window)
        monkeypatch.setattr(pcap, "BATCH_FRAMES", batch)
        assert read(path)[0] == expected


def lz4(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "lz4": lz4,
}


@pytest.mark.parametrize("name", PACKERS)
def test_compressed_files(tmp_path: Path, name: str) -> None:
    frame_list = [os.urandom(200) for _ in range(20_000)]
    packed = PACKERS[name](frames.pcap(frame_list))
    path = save(tmp_path / "no suffix", packed)
    form = registry.by_content(path)
    assert form.name == "pcap"
    rows, reader = read(path)
    assert [r[0] for r in rows] == frame_list
    assert reader.damage is None
    # Cut in the middle: what could be unpacked is there.
    rows, reader = read(save(path, packed[: len(packed) * 3 // 4]))
    assert reader.damage is not None
    assert reader.damage.counter == "file_cut"
    assert [r[0] for r in rows] == frame_list[: len(rows)]
    assert len(rows) > 5000


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    whole = frames.pcap(FRAMES)
    rows, _ = read(save(tmp_path / "x", gzip.compress(whole[:50]) + gzip.compress(whole[50:])))
    assert [r[0] for r in rows] == FRAMES


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_files_never_raise(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(frames.pcap([f[:60] for f in FRAMES], order=data.draw(st.sampled_from("<>"))))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = save(
        tmp_path_factory.getbasetemp() / "mutated.pcap", content[: data.draw(st.integers(24, len(content)))]
    )
    read(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="ends inside its header"):
        PcapReader(save(tmp_path / "x", frames.pcap([])[:23]))
    with pytest.raises(FormatError, match="does not begin as one"):
        PcapReader(save(tmp_path / "x", b"hello world" * 10))
    with pytest.raises(FormatError, match="of no known format"):
        registry.by_content(tmp_path / "x")
    with pytest.raises(FormatError, match="is empty"):
        registry.by_content(save(tmp_path / "x", b""))
    with pytest.raises(FormatError, match="No such file"):
        registry.by_content(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"must end in one of .*\.pcapng"):
        registry.by_suffix("x.doc")


def table(frame_list: list[bytes], link_types: list[int], numbers: list[int] | None = None) -> pa.Table:
    count = len(frame_list)
    return pa.table(
        {
            "frame": pa.array(numbers or range(1, count + 1), pa.uint64()),
            "ts": pa.array([START + i for i in range(count)], pa.timestamp("ns", "UTC")),
            "link_type": pa.array(link_types, pa.uint16()),
            "orig_len": pa.array([len(f) + 2 for f in frame_list], pa.uint32()),
            "data": pa.array(frame_list, pa.binary()),
            "comm": ["x"] * count,
        }
    )


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    ip = [frames.ipv4(frames.tcp(b"a")), frames.ipv6(frames.udp(b"b"), 17)]
    path = tmp_path / "x.pcap"
    with PcapWriter(path, {}) as writer:
        writer.write(table([*ip, FRAMES[2], ip[0]], [101, 101, 1, 101], [1, 2, 3, 1]))
    rows, reader = read(path)
    header = bytes(12)
    assert [r[0] for r in rows] == [header + b"\x08\0" + ip[0], header + b"\x86\xdd" + ip[1], FRAMES[2]]
    assert [r[1] for r in rows] == [len(ip[0]) + 16, len(ip[1]) + 16, len(FRAMES[2]) + 2]
    assert [r[2] for r in rows] == [START, START + 1, START + 2]
    assert reader.interfaces[0].link_type == 1
    assert [f[1] for f in tshark.fields(path, "frame.time_epoch", "frame.len")] == [str(r[1]) for r in rows]
    assert not tshark.run("tcpdump", "-n", "-r", str(path))[1]


def test_one_link_type_a_file(tmp_path: Path) -> None:
    def write(link_types: list[int], ethernet: bool) -> None:
        with PcapWriter(tmp_path / "x.pcap", {}, ethernet=ethernet) as writer:
            writer.write(table([b"\x45abc", b"\x45abc"], link_types))

    write([101, 101], ethernet=False)
    assert read(tmp_path / "x.pcap")[1].interfaces[0].link_type == 101
    with pytest.raises(FormatError, match=r"write a \.pcapng file"):
        write([113, 1], ethernet=True)
    PcapWriter(tmp_path / "empty.pcap", {}).close()
    assert tshark.fields(tmp_path / "empty.pcap", "frame.number") == []
