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


def segment(path, number, lead=(), events=(), recording="r", closing=True):
    """A segment: what leads to its first row, and its rows."""
    writer = spool.SpoolWriter(path)
    place = {"recording": recording, "number": number, "leads": number > 1}
    writer.write_json(spool.OPENING, {"segment": place})
    writer.write_json(spool.TABLE, {"table": "processes", "rows": [number]})
    for payload in lead:
        writer.write(spool.EVENTS, payload)
    if number > 1:
        writer.write_json(spool.BEGIN, {"monotonic_ns": 10 * number})
    for at, payload in enumerate(events):
        writer.write(spool.EVENTS, payload)
        writer.write_json(spool.COUNTERS, {"monotonic_ns": 10 * number + at + 1})
    if closing:
        writer.write_json(spool.CLOSING, {"number": number})
    writer.close()
    return path


def chain(*paths, since_ns=None):
    """Rows, what leads to them, processes, and the chain."""
    found = spool.SpoolChain(paths, since_ns)
    chunks = list(found.chunks())
    rows = [bytes(c.payload) for c in chunks if c.type == spool.EVENTS and not c.lead]
    lead = [bytes(c.payload) for c in chunks if c.type == spool.EVENTS and c.lead]
    tables = [c.json()["rows"] for c in chunks if c.type == spool.TABLE]
    return rows, lead, tables, found


def test_segments_are_read_as_one_or_alone(tmp_path):
    one = segment(tmp_path / "1", 1, events=[b"a", b"b"])
    two = segment(tmp_path / "2", 2, lead=[b"b"], events=[b"c"])
    three = segment(tmp_path / "3", 3, lead=[b"c"], events=[b"d"], closing=False)
    rows, lead, tables, found = chain(three, one, two)  # in whatever order they are named
    assert (rows, lead, tables) == ([b"a", b"b", b"c", b"d"], [], [[1]])
    assert (found.damage.segments, found.damage.finished, found.last_number) == (0, False, 3)
    rows, lead, tables, found = chain(two, three)
    assert (rows, lead, tables) == ([b"c", b"d"], [b"b"], [[2]])
    rows, lead, tables, found = chain(two)
    assert (rows, lead, found.damage.finished) == ([b"c"], [b"b"], True)
    assert chain(one, three)[3].damage.segments == 1


def test_a_segment_that_never_began_has_no_rows(tmp_path):
    one = segment(tmp_path / "1", 1, events=[b"a"])
    path = tmp_path / "2"
    segment(path, 2, lead=[b"x", b"y"], events=[b"z"])
    begin = next(c for c in spool.SpoolReader(path).chunks() if c.type == spool.BEGIN)
    path.write_bytes(path.read_bytes()[: begin.offset])  # the recorder was killed while it looked around
    assert chain(one, path)[0] == [b"a"]
    assert chain(path)[:2] == ([], [b"x", b"y"])


def test_rows_from_a_sample_on(tmp_path):
    one = segment(tmp_path / "1", 1, events=[b"a", b"b", b"c"])
    two = segment(tmp_path / "2", 2, lead=[b"c"], events=[b"d"])
    rows, lead, _, found = chain(one, two, since_ns=12)  # the sample behind b
    assert (rows, lead, found.is_cut) == ([b"c", b"d"], [b"a", b"b"], True)
    rows, lead, _, _ = chain(two, since_ns=21)
    assert (rows, lead) == ([], [b"c", b"d"])


def test_a_spool_in_memory(tmp_path):
    writer = spool.SpoolWriter(tmp_path / "a.spool", in_memory=True)
    assert not list(tmp_path.iterdir())
    writer.write(spool.EVENTS, b"x")
    assert [bytes(c.payload) for c in spool.SpoolReader(writer.path).chunks()] == [b"x"]
    writer.close()
    assert not writer.path.exists()


def test_blocks_behind_the_end_go_when_it_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "RESERVE_BYTES", 1 << 20)
    monkeypatch.setattr(spool, "RESERVE_SHARE", 1)
    path = tmp_path / "a.spool"
    writer = spool.SpoolWriter(path)
    payload = os.urandom(700_001)
    for _ in range(4):
        writer.write(spool.EVENTS, payload)
        assert path.stat().st_size == writer.bytes_written  # whatever is reserved
    writer.close()
    found = path.stat()
    assert found.st_size == writer.bytes_written
    assert found.st_blocks * 512 < writer.bytes_written + (1 << 18)
    assert [data for _, data in read(path)[0]] == [payload] * 4


def test_where_nothing_can_be_reserved_it_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise AttributeError("no such function")

    monkeypatch.setattr(spool, "RESERVE_BYTES", 1 << 10)
    for reserve in (refuse, lambda *_: -1):
        monkeypatch.setattr(spool, "_allocate", reserve)
        path = tmp_path / f"{reserve.__name__}.spool"
        write(path, b"x" * 5000, b"y" * 5000)
        assert [data for kind, data in read(path)[0] if kind == spool.EVENTS] == [b"x" * 5000, b"y" * 5000]
