"""The spool survives whatever happens to its file."""

import os
import resource
import signal

import pytest

from stratokit.errors import FormatError
from stratokit.formats import spool


def write(path, *payloads, closed=True):
    writer = spool.SpoolWriter(path)
    writer.write_json(spool.OPENING, {"a": 1})
    for payload in payloads:
        writer.write(spool.EVENTS, payload)
    if closed:
        writer.write_json(spool.CLOSING, {})
    writer.close()
    return writer


def read(path):
    reader = spool.SpoolReader(path)
    return [(chunk.type, bytes(chunk.payload)) for chunk in reader.chunks()], reader.damage


def test_round_trip(tmp_path):
    path = tmp_path / "a.spool"
    payloads = [b"", b"x", os.urandom(7), os.urandom(spool.PIECE_BYTES * 2 + 5)]
    writer = write(path, *payloads)
    assert writer.bytes_written == path.stat().st_size
    chunks, damage = read(path)
    assert [p for t, p in chunks if t == spool.EVENTS] == payloads
    assert (damage.chunks, damage.cut_bytes, damage.finished) == (0, 0, True)


def test_file_is_private_and_never_overwritten(tmp_path):
    path = tmp_path / "a.spool"
    write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        spool.SpoolWriter(path)


def test_every_cut_keeps_the_chunks_before_it(tmp_path):
    path = tmp_path / "a.spool"
    write(path, b"a" * 40, b"b" * 24)
    whole = path.read_bytes()
    ends = [chunk.offset for chunk in spool.SpoolReader(path).chunks()] + [len(whole)]
    for cut in range(spool.HEAD_BYTES, len(whole)):
        path.write_bytes(whole[:cut])
        chunks, damage = read(path)
        # Padding behind a payload may be missing: the payload is whole without it.
        sure = sum(1 for end in ends[1:] if end <= cut)
        assert sure <= len(chunks) <= sure + 1
        assert damage.finished == (len(chunks) == 4)
        kept = ends[len(chunks)] if len(chunks) < len(ends) else cut
        assert damage.cut_bytes == max(cut - kept, 0)


def test_every_flipped_byte_costs_at_most_its_chunk(tmp_path):
    path = tmp_path / "a.spool"
    write(path, b"a" * 40, b"b" * 24)
    whole = path.read_bytes()
    for at in range(4, len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 0xFF
        path.write_bytes(broken)
        chunks, damage = read(path)
        assert len(chunks) >= 3
        assert len(chunks) + damage.chunks + bool(damage.cut_bytes) >= 4


def test_a_hole_where_a_head_should_be_is_a_cut(tmp_path):
    path = tmp_path / "a.spool"
    write(path, b"a" * 40, closed=False)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size + 4096)  # as after a kill between payload and head
    chunks, damage = read(path)
    assert len(chunks) == 2
    assert damage.cut_bytes == 4096


@pytest.mark.parametrize("content", [b"", b"SPK1", b"PAR1" * 20, b"\0" * 100])
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "a.spool"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="not a stratokit spool"):
        spool.SpoolReader(path)


def test_a_chunk_that_does_not_fit_is_taken_back(tmp_path):
    path = tmp_path / "a.spool"
    writer = write_open = spool.SpoolWriter(path)
    write_open.write_json(spool.OPENING, {})
    before = writer.bytes_written
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, old[1]))
    try:
        with pytest.raises(OSError, match="large") as caught:
            writer.write(spool.EVENTS, os.urandom(1 << 20))
        assert spool.is_disk_full(caught.value)
        assert path.stat().st_size == writer.bytes_written == before
        writer.write_json(spool.CLOSING, {"reason": "disk full"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    writer.close()
    chunks, damage = read(path)
    assert [t for t, _ in chunks] == [spool.OPENING, spool.CLOSING]
    assert damage.finished
