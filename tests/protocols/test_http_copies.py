"""The parser of HTTP/1 copies what it reads before it reads it: whatever stood there changes nothing."""

from __future__ import annotations

import time

import numpy as np
import pytest
from helpers.corpus import CORPUS, MARKS, files
from helpers.traffic import Connection, Packets

from stratokit.engine.capture import Capture
from stratokit.protocols import http1
from stratokit.protocols.over_tcp import HEAD_BYTES, Heads
from stratokit.streams import reassembly

SIZE_MAX = 3_000_000
LEFT = [b"HTTP/1.1 200 OK\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"0\r\n\r\n", b"\n", b"\r", b"x", b" "]


def some() -> list[str]:
    names = [name for name in files("http") if (CORPUS / name).stat().st_size < SIZE_MAX]
    return names[:: max(len(names) // 25, 1)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS) for name in some()])
def test_nothing_is_read_that_was_not_copied(name: str) -> None:
    for streams in reassembly.batches(Capture.open(CORPUS / name)):
        heads = Heads(*streams.heads(HEAD_BYTES), streams.began, streams.on_port)
        asks = http1.recognise(heads)
        ours = asks >= 0
        if not ours.any():
            continue
        whole = http1.parse(streams.byte_runs(ours), asks[ours])
        expected = {table: part() for table, part in whole.parts.items()}  # type: ignore[operator]
        may = http1.leads_on(streams.byte_runs(ours, only=asks[ours]), asks[ours])
        for pattern in LEFT:
            runs = streams.byte_runs(ours, later=True)
            runs.data[:] = np.resize(np.frombuffer(pattern, np.uint8), runs.data.size)
            found = http1.parse(runs, asks[ours])
            assert found.counters == whole.counters
            assert len(found.inner) == len(whole.inner)
            for one, other in zip(found.inner, whole.inner, strict=True):
                assert one.runs.data.tobytes() == other.runs.data.tobytes()
            for table in ("http", "http_bodies"):
                assert found.parts[table]().equals(expected[table])  # type: ignore[operator]
            runs = streams.byte_runs(ours, only=asks[ours], later=True)
            runs.data[:] = np.resize(np.frombuffer(pattern, np.uint8), runs.data.size)
            assert (http1.leads_on(runs, asks[ours]) == may).all()


def test_what_is_lost_again_and_again_is_copied_once() -> None:
    """Each broken chunk makes the parser look for the next status line in all that follows."""
    packets = Packets()
    connection = Connection(packets)
    broken = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n"
    connection.ask(b"GET / HTTP/1.1\r\n\r\n")
    connection.answer(broken * 30_000, list(range(40, 30_000 * len(broken), 20)))
    (streams,) = reassembly.batches(packets)
    runs = streams.byte_runs(np.ones(1, np.bool_), later=True)
    http1.parse(streams.byte_runs(np.ones(1, np.bool_), later=True), np.zeros(1, np.int64))  # compiles
    begin = time.process_time()
    found = http1.parse(runs, np.zeros(1, np.int64)).parts["http"]()  # type: ignore[operator]
    assert found.height == 30_000
    assert time.process_time() - begin < 1
