"""A pcapng file to a capture and back: what Wireshark shows is the same before and after."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers.pcapng_bytes import Section

from stratokit.engine.capture import Capture
from stratokit.engine.convert import convert_files
from stratokit.errors import FormatError
from stratokit.formats.pcapng import PcapngReader
from stratokit.formats.pcapng.reader import parse_options

ORDERS = pytest.mark.parametrize("order", ["<", ">"])


def there_and_back(source: Path, folder: Path, between: str = "parquet") -> Path:
    middle, back = folder / f"middle.{between}", folder / "back.pcapng"
    for path in (middle, back):
        path.unlink(missing_ok=True)
    convert_files([source], middle)
    convert_files([middle], back)
    return back


def blocks(path: Path) -> list[tuple[int, bytes]]:
    """(type, body) of all blocks of a little-endian file."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        kind, length = struct.unpack_from("<II", content, at)
        found.append((kind, content[at + 8 : at + length - 4]))
        at += length
    return found


def everything(s: Section) -> bytes:
    """A file with every block and option that has a place in a capture, in two sections."""
    n = s.number
    content = s.header((4, b"app"), (1, b"section comment"))
    content += s.interface(
        (2, b"eth0"),
        (3, b"uplink"),
        (4, bytes([10, 0, 0, 1, 255, 255, 255, 0])),
        (5, bytes(range(16)) + b"\x40"),
        (6, bytes.fromhex("020000000001")),
        (8, n(10**9, 8)),
        (9, b"\x09"),
        (11, b"\0tcp port 80"),
        (13, b"\4"),
        (14, struct.pack(s.order + "q", -3600)),
        (2988, n(32622) + b"of somebody"),
        snaplen=100,
    )
    content += s.interface((2, b"eth1"), (9, b"\x94"), link_type=113) + s.interface((9, b"\x03"))
    content += s.process(501, b"curl") + s.process(7, b"nginx")
    record = n(1, 2) + n(9, 2) + bytes([10, 0, 0, 1]) + b"web\0\0" + bytes(3)
    content += s.block(4, record + bytes(4) + s.options((2, b"dns"), (3, bytes([9, 9, 9, 9]))))
    content += s.block(10, n(0x544C534B) + n(5) + b"keys1" + bytes(3))
    content += s.packet(bytes(60), (1, b"first"), (1, b"second\nline"), time=10**18, orig_len=90)
    content += s.packet(
        bytes(range(61)),
        (2, n(0x0100_0205)),
        (3, b"\2abcd"),
        (4, n(2**40, 8)),
        (5, n(77, 8)),
        (6, n(3)),
        (7, b"\1" + n(2**33, 8)),
        (7, b"\0hw"),
        (8, n(501) + n(502)),
        (0x8001, n(1)),
        (0x8003, n(0)),
        (0x8006, n(5, 2)),
        (0x8009, b"func"),
        (2989, n(32622) + b"\1\2\3"),
        interface=1,
        time=(1_700_000_000 << 20) + 12345,
    )
    content += s.packet(bytes(10), interface=2, time=1_700_000_000_123)
    content += s.simple_packet(bytes(30), orig_len=30) + s.packet(b"", (1, b""), time=5)
    content += s.block(5, n(0) + n(1) + n(2) + s.options((2, n(1) + n(2)), (4, n(9, 8)), (7, n(2, 8))))
    content += s.block(0xBAD, n(32622) + b"12345678") + s.block(9, b"MESSAGE=hello\n\0\0")
    content += s.header() + s.interface((2, b"other")) + s.packet(b"abc", time=1)
    return content


@pytest.mark.parametrize("between", ["parquet", "pcapng"])
def test_every_block_comes_back(tmp_path, between):
    source = tmp_path / "x.pcapng"
    source.write_bytes(everything(Section("<")))
    assert blocks(there_and_back(source, tmp_path, between)) == blocks(source)


def test_byte_order_is_the_only_difference(tmp_path):
    found = {}
    for order in "<>":
        source = tmp_path / f"{ord(order)}.pcapng"
        source.write_bytes(everything(Section(order)))
        found[order] = blocks(there_and_back(source, tmp_path))
    assert found["<"] == found[">"]


@ORDERS
def test_an_obsolete_block_becomes_an_enhanced_one(tmp_path, order):
    s = Section(order)
    source = tmp_path / "x.pcapng"
    packet = s.obsolete_packet(bytes(20), (1, b"old"), (2, s.number(1)), time=4)
    source.write_bytes(s.header() + s.interface() + packet)
    (_, _, (kind, body)) = blocks(there_and_back(source, tmp_path))
    assert (kind, body[:20]) == (6, struct.pack("<5I", 0, 0, 4, 20, 20))
    dropped = (4, (7).to_bytes(8, "little"))
    assert parse_options(body[40:], "<") == [dropped, (1, b"old"), (2, bytes([1, 0, 0, 0]))]


@pytest.mark.parametrize("resolution", [0, 2, 6, 9, 12, 0x80, 0x8A, 0x9D, 0x9E, 0xA0])
def test_times_in_every_unit(tmp_path, resolution):
    s = Section()
    bits, digits = (resolution & 0x7F, 0) if resolution & 0x80 else (0, resolution)
    unit = 2**bits if resolution & 0x80 else 10**digits
    content = s.header() + s.interface((9, bytes([resolution])), (14, (50).to_bytes(8, "little")))
    for part in range(20):
        content += s.packet(b"x", time=1_700_000 * unit + unit * part // 20)
    source = tmp_path / "x.pcapng"
    source.write_bytes(content)
    back = there_and_back(source, tmp_path)
    times = []
    for path in (source, back):
        with PcapngReader(path) as reader:
            times.append([time for batch in reader.batches() for time in batch.ts_ns.tolist()])
    assert times[0] == times[1]
    exact = digits <= 9 and bits <= 29
    assert (blocks(back) == blocks(source)) == exact


def test_packets_keep_their_order_where_times_go_back(tmp_path, monkeypatch):
    monkeypatch.setattr("stratokit.formats.parquet.GROUP_ROWS", 7)
    s = Section()
    times = [(i * 37) % 101 for i in range(60)]
    source = tmp_path / "x.pcapng"
    packets = [s.packet(bytes([i]), time=time) for i, time in enumerate(times)]
    source.write_bytes(s.header() + s.interface() + b"".join(packets))
    assert blocks(there_and_back(source, tmp_path)) == blocks(source)


@pytest.mark.parametrize("between", ["parquet", "pcapng"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
@pytest.mark.parametrize("network", [1, 101, 12, 0x2400_0001])  # raw IP in two ways; a checksum of 4 bytes
def test_a_pcap_file_comes_back_byte_by_byte(tmp_path, between, magic, network):
    source, back = tmp_path / "x.pcap", tmp_path / "back.pcap"
    content = struct.pack("<IHHiIII", magic, 2, 4, 0, 0, 1000, network)
    for i in range(20):
        content += struct.pack("<IIII", 1_700_000_000 + i, 999_999, 40 + i, 90) + bytes([0x45] * (40 + i))
    source.write_bytes(content)
    convert_files([source], tmp_path / f"middle.{between}")
    convert_files([tmp_path / f"middle.{between}"], back)
    assert back.read_bytes() == content


def test_blocks_of_no_known_kind_are_counted(tmp_path):
    s = Section()
    source = tmp_path / "x.pcapng"
    unknown = s.block(0xBAD, s.number(1)) + s.block(0x1234, b"1234") + s.block(0x80000002, b"")
    source.write_bytes(s.header() + s.interface() + unknown + s.packet(b"abc"))
    assert convert_files([source], tmp_path / "x.parquet") == {"block_skipped": 3}
    for path in (source, tmp_path / "x.parquet"):
        assert Capture.open(path).info()["losses"] == {"block_skipped": 3}
        (row,) = Capture.open(path).table("losses").collect().to_dicts()
        assert (row["counter"], row["amount"], row["is_loss"]) == ("block_skipped", 3, False)


def test_metadata_that_do_not_fit_are_no_traceback(tmp_path):
    s = Section()
    source, middle = tmp_path / "x.pcapng", tmp_path / "x.parquet"
    source.write_bytes(s.header() + s.interface() + s.interface() + s.packet(b"abc", interface=1))
    convert_files([source], middle)
    table = pq.read_table(middle)
    text = json.loads(table.schema.metadata[b"stratokit.pcapng"])
    for key in text:
        text[key].pop()  # the second interface
    pairs = table.schema.metadata | {b"stratokit.pcapng": json.dumps(text).encode()}
    pq.write_table(table.replace_schema_metadata(pairs), middle)
    with pytest.raises(FormatError, match="do not fit"):
        convert_files([middle], tmp_path / "back.pcapng")
