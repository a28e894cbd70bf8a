"""Packet files with damage of any kind: what stands before it is delivered, it is one loss, nothing raises.

A bounded run; the files that broke a reader are tests of their own.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
from pathlib import Path

import pytest
import zstandard
from helpers.pcapng_bytes import Section

from stratokit.engine.capture import Capture
from stratokit.engine.convert import convert_files
from stratokit.errors import FormatError

ROUNDS = 60
NUMBERS = (0, 1, 4, 8, 12, 15, 255, 65535, 65536, 262145, 1 << 24, 1 << 31, 0xFFFFFFFC, 0xFFFFFFFF)
PACKERS = (bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress)


def pcap(order: str, magic: int) -> tuple[bytes, list[int]]:
    """A file, and where each record ends."""
    content, ends = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1), []
    for i in range(12):
        content += struct.pack(order + "IIII", i, i, i * 9, i * 10)
        content += bytes(8 if magic == 0xA1B2CD34 else 0) + bytes([i]) * (i * 9)
        ends.append(len(content))
    return content, ends


def pcapng(order: str) -> tuple[bytes, list[int]]:
    s, n = Section(order), Section(order).number
    content, ends = s.header((4, b"app")) + s.interface((2, b"eth0"), (9, b"\x89")) + s.interface(), []
    content += s.process(7, b"nginx") + s.block(10, n(1) + n(5) + b"keys1" + bytes(3))
    content += s.block(4, n(1, 2) + n(8, 2) + b"\1\2\3\4abc\0" + bytes(4)) + s.block(0x1234, b"1234")
    for i in range(12):
        if i == 6:
            content += s.block(5, bytes(12)) + s.header() + s.interface((14, bytes(8)), snaplen=50)
        options = ((1, b"comment"), (2, n(1)), (4, n(3, 8)), (8, n(7) + n(8)), (0x8001, n(0)))
        kinds = (
            s.packet(bytes([i]) * (i * 9), *options),
            s.simple_packet(bytes([i]) * i * 4),
            s.obsolete_packet(bytes([i]) * 3),
        )
        content += kinds[i % 3]
        ends.append(len(content))
    return content, ends


FILES = {
    **{f"pcap {order} {magic:x}": pcap(order, magic) for order in "<>" for magic in (0xA1B2C3D4, 0xA1B2CD34)},
    **{f"pcapng {order}": pcapng(order) for order in "<>"},
}


def mutated(content: bytes, chance: random.Random) -> tuple[bytes, int]:
    """The content with damage, and where it begins."""
    at = chance.randrange(len(content))
    number = chance.choice(NUMBERS)
    kind = chance.randrange(6)
    head, tail = content[:at], content[at:]
    if kind == 0:
        return head, at
    if kind == 1:
        return head + bytes([tail[0] ^ 1 << chance.randrange(8)]) + tail[1:], at
    if kind == 2:
        return head + number.to_bytes(4, chance.choice(("little", "big"))) + tail[4:], at
    if kind == 3:
        return head + tail[chance.randrange(1, 40) :], at
    if kind == 4:
        return head + content[max(0, at - 50) : at] + tail, at
    return head + chance.randbytes(chance.randrange(1, 60)) + tail, at


def check(path: Path, before: list[bytes], expected_loss: bool) -> None:
    """Everything `before` is delivered, by each way to read the file; its losses say where it ended."""
    try:
        capture = Capture.open(path)
        facts = capture.info()
    except FormatError as error:
        said = str(error)
        facts = {}
    if not facts:
        assert not before, said
        assert "\n" not in said
        return
    rows = capture.rows("packet").select("data", "frame").collect()
    assert rows["data"].to_list()[: len(before)] == before
    assert facts["rows"].get("packet", 0) == rows.height
    damage = [r for r in capture.rows("loss").collect().to_dicts() if r["counter"].startswith("file_")]
    assert len(damage) <= 1
    assert damage or not expected_loss
    for row in damage:
        assert row["file_offset"] is not None
        assert row["reason"]
    middle, back = path.with_suffix(".parquet"), path.with_suffix(".back.pcapng")
    assert convert_files([path], middle) == facts["losses"]
    convert_files([middle], back)
    assert (
        Capture.open(back).rows("packet").select("data").collect()["data"].to_list() == rows["data"].to_list()
    )


@pytest.mark.parametrize("name", FILES)
def test_damage_anywhere(tmp_path, name):
    content, ends = FILES[name]
    path = tmp_path / "x"
    path.write_bytes(content)
    whole = Capture.open(path).rows("packet").select("data").collect()["data"].to_list()
    assert len(whole) == len(ends)
    for seed in range(ROUNDS):
        chance = random.Random(f"{name} {seed}")
        bad, at = mutated(content, chance)
        path.write_bytes(bad)
        intact = sum(end <= at for end in ends)
        # Numbers in records may be changed to others that are just as good.
        check(path, whole[:intact], expected_loss=False)


def block_ends(content: bytes) -> set[int]:
    """Where blocks of a little-endian pcapng file end."""
    ends = {0}
    while (at := max(ends)) < len(content):
        ends.add(at + struct.unpack_from("<I", content, at + 4)[0])
    return ends


@pytest.mark.parametrize("name", ["pcap < a1b2c3d4", "pcapng <"])
def test_cut_at_every_byte(tmp_path, name):
    content, ends = FILES[name]
    path = tmp_path / "x"
    path.write_bytes(content)
    whole = Capture.open(path).rows("packet").select("data").collect()["data"].to_list()
    boundaries = block_ends(content) if name.startswith("pcapng") else {24, *ends}
    for cut in range(1, len(content), 7):
        path.write_bytes(content[:cut])
        check(path, whole[: sum(end <= cut for end in ends)], expected_loss=cut not in boundaries)


@pytest.mark.parametrize("pack", PACKERS[1:], ids=lambda pack: pack.__module__)
def test_damage_of_packed_files(tmp_path, pack):
    content, _ = FILES["pcapng <"]
    path = tmp_path / "x"
    for seed in range(ROUNDS // 2):
        chance = random.Random(seed)
        bad, _ = mutated(pack(content), chance)
        path.write_bytes(bad)
        check(path, [], expected_loss=False)
