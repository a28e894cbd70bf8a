"""Packed files: what can be unpacked before damage is given, memory is bounded, errors are one sentence."""

from __future__ import annotations

import bz2
import collections
import contextlib
import gzip
import lzma
import random
import sys
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
import zstandard

from stratokit.errors import FormatError
from stratokit.formats import registry, source, unpack
from stratokit.formats.source import open_source


def lz4(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "lz4") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


PACKERS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "lz4": lz4,
}
packed = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that can be packed, but not to nothing."""
    chance = random.Random(seed)
    return b"".join(chance.randbytes(40) + bytes(chance.randrange(100)) for _ in range(size // 90))[:size]


def unpacked(path, step=50_000):
    """All bytes in windows of `step`, and why they ended."""
    found = open_source(path)
    parts, at = [], 0
    while len(part := found.window(at, step)):
        parts.append(part.tobytes())
        at += len(part)
    found.close()
    return b"".join(parts), found.broken


@packed
def test_all_bytes_come(tmp_path, pack):
    data = content(3_000_000)
    path = tmp_path / "x"
    path.write_bytes(pack(data))
    assert unpacked(path) == (data, "")


PADDED = [(name, padding) for name in ("gzip", "xz", "bzip2") for padding in (0, 1, 512)]


@pytest.mark.parametrize(("name", "padding"), [*PADDED, ("zstd", 0), ("lz4", 0)])
def test_members_follow_one_another(tmp_path, name, padding):
    parts = [content(100_000, seed) for seed in range(3)]
    path = tmp_path / "x"
    path.write_bytes(b"".join(PACKERS[name](part) + bytes(padding) for part in parts))
    assert unpacked(path) == (b"".join(parts), "")


@packed
def test_a_cut_file_gives_what_stands_before_the_cut(tmp_path, pack):
    data = content(400_000)
    whole = pack(data)
    path = tmp_path / "x"
    for cut in (len(whole) - 1, len(whole) * 3 // 4, len(whole) // 2):
        path.write_bytes(whole[:cut])
        found, broken = unpacked(path)
        assert data.startswith(found)
        assert broken or found == data  # a missing end marker is no loss
        if pack is not bz2.compress and cut < len(whole) - 1:
            assert len(found) > len(data) * cut // len(whole) - 300_000


def test_gzip_gives_every_byte_before_damage(tmp_path):
    data = content(1_000_000)
    whole = bytearray(gzip.compress(data))
    at = len(whole) // 2
    whole[at : at + 40] = bytes(40)
    path = tmp_path / "x"
    path.write_bytes(whole)
    found, broken = unpacked(path)
    assert broken
    oracle, state = b"", zlib.decompressobj(31)
    try:
        for i in range(len(whole)):
            oracle += state.decompress(whole[i : i + 1])
    except zlib.error:
        pass
    assert found == oracle
    assert len(found) > 400_000


def test_a_wrong_checksum_loses_nothing(tmp_path):
    data = content(100_000)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(data)[:-8] + bytes(8))
    found, broken = unpacked(path)
    assert found == data
    assert broken


@packed
def test_a_bomb_takes_no_memory_and_ends(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(source, "BOMB_BYTES", 8 << 20)
    monkeypatch.setattr(source, "BOMB_RATIO", 100)
    path = tmp_path / "x"
    path.write_bytes(pack(bytes(64 << 20)))
    tracemalloc.start()
    found = open_source(path)
    at = 0
    while len(part := found.window(at, 1 << 20)):
        at += len(part)
    found.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 7 << 20 <= at < 60 << 20
    assert "unpacks to more than" in found.broken
    assert peak < 16 << 20


def test_xz_with_a_dictionary_that_would_fill_memory_is_refused(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1 << 20}]
    whole = bytearray(lzma.compress(b"x" * 1000, filters=filters))
    # Block header: size 1, flags 1, filter id 1, size of properties 1, dictionary size 1; CRC32 at its end.
    assert whole[14:16] == b"\x21\x01"
    whole[16] = 40  # 4 GiB - 1
    size = (whole[12] + 1) * 4
    whole[12 + size - 4 : 12 + size] = zlib.crc32(whole[12 : 12 + size - 4]).to_bytes(4, "little")
    path = tmp_path / "x"
    path.write_bytes(whole)
    with pytest.raises(FormatError, match=r"cannot be unpacked: Memory usage limit"):
        registry.by_content(path)
    assert unpack.XZ_MEMORY_MAX < 1 << 30


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b", "cannot be unpacked: the compressed data end early"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff\xff", "cannot be unpacked: "),
        (b"snoop\0\0\0\0\0\0\2", "is a snoop file .*editcap"),
        (b"PK\3\4abc", "is a zip archive"),
        (b"\x0a\x0d\x0d\x0a", "no complete section header"),
        (b"hello world", "is of no known format"),
        (b"\0", "is of no known format"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path, content, message):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as error, registry.by_content(path).open_reader(path):
        pass
    assert "\n" not in str(error.value)


def test_windows_are_opened_while_the_memory_of_others_is_given_back(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(bytes(1 << 13))
    monkeypatch.setattr(source, "_forget", lambda _: None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as pool, contextlib.closing(open_source(path)) as opened:
            forgetting = pool.submit(lambda: [source.forget_pages() for _ in range(5000)])
            windows = collections.deque(maxlen=50)
            while not forgetting.done():
                windows.append(opened.window(0, 4096))
            assert len(forgetting.result()) == 5000
    finally:
        sys.setswitchinterval(before)
