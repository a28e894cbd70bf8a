"""Every pcapng and pcap file of the corpus to a capture and back: tshark, capinfos and we see the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import corpus

from stratokit.engine.convert import convert_files
from stratokit.formats import registry

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not (shutil.which("tshark") and shutil.which("capinfos")), reason="needs tshark"),
]
# Lines of capinfos that are of the file, not of what it holds.
OF_THE_FILE = ("File name", "File size", "SHA", "RIPEMD", "Data size (file)")


def there_and_back(source: Path, folder: Path, suffix: str) -> Path:
    middle, back = folder / "middle.parquet", folder / f"back.{suffix}"
    convert_files([source], middle)
    convert_files([middle], back)
    return back


def shown(path: Path) -> bytes:
    done = subprocess.run(["tshark", "-n", "-r", path, "-T", "json", "-x"], capture_output=True, check=False)
    return done.stdout


def told(path: Path) -> list[str]:
    done = subprocess.run(["capinfos", "-M", path], capture_output=True, text=True, check=False)
    lines = done.stdout.replace(" (gzip compressed)", "").splitlines()
    return [line for line in lines if not line.startswith(OF_THE_FILE)]


def read(path: Path) -> list[bytes]:
    """Times, lengths, link types and bytes of all packets, and what the interfaces are."""
    parts = []
    with registry.by_content(path).open_reader(path) as reader:
        for batch in reader.batches():
            arrays = (batch.ts_ns, batch.cap_lens, batch.orig_lens, batch.link_types)
            parts += [np.ascontiguousarray(array).tobytes() for array in arrays]
            ends = batch.offsets + batch.cap_lens
            parts += [batch.data[a:b].tobytes() for a, b in zip(batch.offsets, ends, strict=True)]
        parts += [str((i.link_type, i.options)).encode() for i in reader.interfaces]
    return parts


@pytest.mark.parametrize("source", corpus.of_kind("pcapng"))
def test_a_pcapng_file_comes_back(source, tmp_path):
    back = there_and_back(source, tmp_path, "pcapng")
    assert shown(back) == shown(source)
    # capinfos says nothing of a file with damage, which does not come back.
    assert told(back) == (told(source) or told(back))


@pytest.mark.parametrize("source", corpus.of_kind("pcap-"))
def test_a_pcap_file_comes_back(source, tmp_path):
    back = there_and_back(source, tmp_path, "pcap")
    assert read(back) == read(source)
