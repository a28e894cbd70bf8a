"""Facts of plain pcap files, told without the libraries that decode: the same as the long way tells them."""

from __future__ import annotations

import dataclasses
import random
import struct
import subprocess
import sys

import pytest

from stratokit.engine.capture import Capture
from stratokit.engine.quick_facts import quick_facts
from stratokit.errors import FormatError
from stratokit.formats import pcap_count

MAGICS = [("<", 0xA1B2C3D4), (">", 0xA1B2C3D4), ("<", 0xA1B23C4D), (">", 0xA1B23C4D), ("<", 0xA1B2CD34)]


def content(order: str, magic: int, seed: int) -> bytes:
    chance = random.Random(seed)
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    for _ in range(chance.randrange(30)):
        size = chance.choice([0, 1, 60, 1500])
        data += struct.pack(order + "IIII", chance.getrandbits(32), chance.getrandbits(29), size, size + 5)
        data += bytes(8 if magic == 0xA1B2CD34 else 0) + bytes(size)
    if seed % 3 == 0:  # damage: a cut, or a length that lies
        data = data[: chance.randrange(24, len(data) + 1)]
    if seed % 5 == 0:
        data += struct.pack(order + "IIII", 1, 1, 1 << 30, 1 << 30) + bytes(20)
    return data


def told(ask, path):
    try:
        found = ask(path)
    except FormatError as error:
        return str(error)
    return dataclasses.asdict(dataclasses.replace(found, carried={}))


@pytest.mark.parametrize("window", [64 << 10, 64 << 20])
def test_both_ways_tell_the_same(tmp_path, monkeypatch, window):
    monkeypatch.setattr(pcap_count, "WINDOW_BYTES", window)
    path = tmp_path / "x.pcap"
    for seed in range(150):
        path.write_bytes(content(*MAGICS[seed % len(MAGICS)], seed))
        quick = told(lambda path: quick_facts([path])[0], path)
        assert quick == told(lambda path: Capture.open(path).files[0], path), seed


def test_a_frame_may_be_longer_than_a_window(tmp_path, monkeypatch):
    monkeypatch.setattr(pcap_count, "WINDOW_BYTES", 4096)
    path = tmp_path / "x.pcap"
    records = b"".join(struct.pack("<IIII", i, 0, 200_000, 200_000) + bytes(200_000) for i in range(4))
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0, 1) + records)
    assert quick_facts([path])[0].rows == {"packet": 4, "interface": 1}


def test_other_files_take_the_long_way(tmp_path):
    path = tmp_path / "x.pcap"
    for other in (b"", b"abc", b"\x0a\x0d\x0d\x0a" + bytes(40), content("<", 0xA1B2C3D4, 1)[:20]):
        path.write_bytes(other)
        assert quick_facts([path]) is None
    assert quick_facts([tmp_path]) is None
    # Lengths in either order are for the long way.
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 3, 0, 0, 0, 1))
    assert quick_facts([path]) is None


def test_nothing_heavy_is_loaded(tmp_path):
    path = tmp_path / "x.pcap"
    path.write_bytes(content("<", 0xA1B2C3D4, 1))
    code = (
        "import sys, pathlib; from stratokit.engine.quick_facts import quick_facts;"
        "quick_facts([pathlib.Path(sys.argv[1])]);"
        "print({'polars', 'pyarrow', 'numba', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
