"""Payload that was recorded once, out of the sender, stands in both rows; what is missing is counted."""

import itertools
import struct

import numpy as np
import pytest
from helpers.spool_bytes import syscall_rows

import stratokit as sk
from stratokit.engine.ingest.payloads import SENT_NS, WINDOWS_MOST, Payloads
from stratokit.formats import events
from stratokit.record.opening import layouts
from stratokit.schema import derive, load

PACKET = load.events()["packet"]
OUT, IN = 2, 1


def segment(payload, seq, *, six=False, options=b"\1" * 12, ttl=64):
    tcp = struct.pack(">HHIIBBHHH", 80, 4000, seq, 2, (20 + len(options)) << 2, 0x18, 100, seq & 0xFFFF, 0)
    tcp += options + payload
    if six:
        return struct.pack(">IHBB", 6 << 28, len(tcp), 6, ttl) + bytes(15) + b"\1" + bytes(15) + b"\1" + tcp
    ends = b"\x7f\0\0\1" * 2
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 7, 0x4000, ttl, 6, ttl) + ends + tcp


def record(data, ts_ns, direction, sent_ns=0, kept=None):
    row = np.zeros(1, derive.numpy_dtype(PACKET))
    row["event"], row["ts_ns"], row["direction"] = PACKET.id, ts_ns, direction
    row["orig_len"], row["sent_ns"], row["ifindex"] = len(data), sent_ns, 1
    data = data[:kept]
    row["cap_len"] = len(data)
    body = row.tobytes() + data
    return struct.pack("<II", len(body), 0) + body + bytes(-len(body) % 8)


def batch(*records):
    found, bad = events.split(memoryview(b"".join(records)), events.layouts({"events": layouts()}))
    assert bad == 0
    return found["packet"]


def whole(payloads, *records):
    data, offsets, lengths = payloads.whole(batch(*records))
    assert list(np.diff(offsets)) == list(lengths)
    return [bytes(data[a:b]) for a, b in itertools.pairwise(offsets)]


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("options", [b"", b"\1" * 12, b"\1" * 40])
def test_payload_is_put_in(six, options):
    head = (40 if six else 20) + 20 + len(options)
    first, second = (segment(bytes([65 + n]) * 300, n, six=six, options=options) for n in (0, 1))
    came = segment(
        b"B" * 300, 1, six=six, options=options, ttl=63
    )  # what changes on the way is the row's own
    payloads = Payloads()
    rows = whole(
        payloads,
        record(first, 10, OUT),
        record(second, 11, OUT),
        record(came, 12, IN, 11, head),
        record(first, 13, IN, 10, head),
        record(b"E\0 nothing of TCP", 14, IN),
    )
    assert rows == [first, second, came, first, b"E\0 nothing of TCP"]
    assert payloads.missing == 0


def test_it_may_be_some_windows_back():
    payloads = Payloads()
    data = segment(b"x" * 200, 5)
    assert whole(payloads, record(data, 10, OUT)) == [data]
    for n in range(WINDOWS_MOST - 2):
        whole(payloads, record(segment(b"y" * 200, 100 + n), 20, OUT))
    assert whole(payloads, record(data, 10 + SENT_NS, IN, 10, 52)) == [data]
    # What came too long ago is not held.
    assert whole(payloads, record(data, 21 + 2 * SENT_NS, IN, 10, 52)) == [data[:52]]
    assert payloads.missing == 1


def test_of_another_segment_none_is_taken():
    payloads = Payloads()
    data, other = segment(b"x" * 200, 5), segment(b"y" * 200, 6)
    rows = whole(
        payloads,
        record(data, 10, OUT),
        record(data, 12, IN, 11, 52),  # another time
        record(other, 12, IN, 10, 52),  # another segment
        record(segment(b"x" * 201, 5), 12, IN, 10, 52),  # another length
        record(data, 12, IN, 10, 40),  # not its headers
    )
    assert rows == [data, data[:52], other[:52], segment(b"", 5)[:2] + rows[3][2:], data[:40]]
    assert [len(row) for row in rows[1:]] == [52, 52, 52, 40]
    assert payloads.missing == 4


def test_the_capture_counts_what_is_missing(tmp_path):
    data = segment(b"x" * 200, 5)
    syscall_rows(tmp_path, [record(data, 10, OUT), record(data, 12, IN, 10, 52), record(data, 13, IN, 9, 52)])
    capture = sk.open(tmp_path / "made.parquet")
    rows = capture.rows("packet").collect().sort("ts")
    assert rows.select("direction", "cap_len", "orig_len", "payload_len", "data").rows() == [
        ("out", 252, 252, 200, data),
        ("in", 252, 252, 200, data),
        ("in", 52, 252, 200, data[:52]),
    ]
    assert rows["frame"].to_list()[:2] == [1, 1]
    losses = dict(capture.table("losses").select("counter", "amount").collect().iter_rows())
    assert losses["packet_payload_missing"] == 1
