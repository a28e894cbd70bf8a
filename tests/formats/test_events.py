"""Records out of ring-buffer spans: by the layout that the file itself states, within bounds whatever the
bytes say.
"""

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stratokit.formats import events
from stratokit.record.opening import layouts
from stratokit.schema import derive, load

KNOWN = events.layouts({"events": layouts()})


def record(body: bytes, flags: int = 0) -> bytes:
    return struct.pack("<II", len(body) | flags, 0) + body + bytes(-len(body) % 8)


def packet(data: bytes, cap_len: int | None = None) -> bytes:
    row = np.zeros(1, derive.numpy_dtype(load.events()["packet"]))
    row["event"] = load.events()["packet"].id
    row["cap_len"] = len(data) if cap_len is None else cap_len
    return row.tobytes() + data


def test_records_and_sections():
    span = record(packet(b"abc")) + record(packet(b"")) + record(packet(b"x" * 100))
    found, bad = events.split(memoryview(span), KNOWN)
    data, offsets = events.gather(found["packet"].data, *found["packet"].sections["data"])
    assert bad == 0
    assert offsets.tolist() == [0, 3, 3, 103]
    assert bytes(data) == b"abc" + b"x" * 100


def test_discarded_records_are_skipped_and_busy_ones_end_the_span():
    discarded, busy = 1 << 30, 1 << 31
    span = record(packet(b"a"), discarded) + record(packet(b"b"))
    found, bad = events.split(memoryview(span), KNOWN)
    assert (found["packet"].fixed.size, bad) == (1, 0)
    found, bad = events.split(memoryview(span + record(packet(b"c"), busy)), KNOWN)
    assert (found["packet"].fixed.size, bad) == (1, 1)


def test_a_section_that_lies_is_counted_not_read():
    span = record(packet(b"abc", cap_len=1 << 20)) + record(packet(b"ok"))
    found, bad = events.split(memoryview(span), KNOWN)
    assert (found["packet"].fixed.size, bad) == (1, 1)


def test_unknown_events_are_counted():
    body = bytearray(packet(b""))
    body[8:10] = (999).to_bytes(2, "little")
    assert events.split(memoryview(record(bytes(body))), KNOWN) == ({}, 1)


@given(st.binary(max_size=400))
def test_any_bytes_give_rows_or_a_count(data):
    found, bad = events.split(memoryview(data), KNOWN)
    for batch in found.values():
        for start, length in batch.sections.values():
            assert ((start + length) <= len(data)).all()
    assert bad >= 0


def test_an_older_layout_is_read_by_what_the_file_says():
    """A file whose packet event lacked its last field."""
    said = layouts()
    said["packet"]["fields"] = [f for f in said["packet"]["fields"] if f[0] != "gso_segments"]
    known = events.layouts({"events": said})
    found, _ = events.split(memoryview(record(packet(b"abc"))), known)
    assert "gso_segments" not in found["packet"].fixed.dtype.names
    assert found["packet"].sections["data"][1].tolist() == [3]
