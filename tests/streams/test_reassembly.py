"""Reassembly: whatever is done to the segments of a known byte stream, its bytes come out, or a gap does."""

from __future__ import annotations

import itertools
import random

import numpy as np
import polars as pl
import pytest
from helpers.traffic import (
    ACK,
    CLIENT,
    FIN,
    ISN,
    LOCAL_CLIENT,
    LOCAL_SERVER,
    RST,
    SERVER,
    SYN,
    Connection,
    Packets,
    cut,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.streams import reassembly, segments
from stratokit.streams.byte_runs import ByteRuns
from stratokit.streams.sides import CLIENT as CLIENT_VIEW
from stratokit.streams.sides import SERVER as SERVER_VIEW
from stratokit.streams.sides import with_sides

TEXT = bytes(random.Random(1).randbytes(700))


def byte_runs(packets: Packets) -> ByteRuns:
    (streams,) = reassembly.batches(packets)
    return streams.byte_runs(np.ones(streams.flow_id.size, np.bool_))


def stream(runs: ByteRuns, number: int) -> list[tuple[int, bytes]]:
    """(offset, bytes) of each run."""
    return [
        (int(runs.run_offset[r]), runs.data[runs.run_start[r] : runs.run_start[r + 1]].tobytes())
        for r in range(runs.run_bounds[number], runs.run_bounds[number + 1])
    ]


def test_both_directions_in_order() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(TEXT, [1, 400])
    connection.answer(TEXT[::-1], [300])
    connection.close()
    runs = byte_runs(packets)
    assert stream(runs, 0) == [(0, TEXT)]
    assert stream(runs, 1) == [(0, TEXT[::-1])]
    assert runs.began.tolist() == [True, True]
    assert runs.fin.tolist() == [len(TEXT), len(TEXT)]


@settings(max_examples=150, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(TEXT)), max_size=12),
    repeats=st.lists(st.tuples(st.integers(0, len(TEXT) - 1), st.integers(1, 300)), max_size=6),
    seed=st.integers(0, 2**32),
    syn_first=st.booleans(),
)
def test_any_cutting_reordering_and_repeating_gives_the_bytes(
    cuts: list[int], repeats: list[tuple[int, int]], seed: int, syn_first: bool
) -> None:
    parts, at = [], 0
    for part in cut(TEXT, cuts):
        parts.append((at, part))
        at += len(part)
    parts += [(at, TEXT[at : at + size]) for at, size in repeats]
    random.Random(seed).shuffle(parts)
    packets = Packets()
    if syn_first:
        packets.segment(CLIENT, SERVER, ISN, b"", SYN)
    for at, part in parts:
        packets.segment(CLIENT, SERVER, ISN + 1 + at, part)
    if not syn_first:
        packets.segment(CLIENT, SERVER, ISN, b"", SYN)
    runs = byte_runs(packets)
    assert stream(runs, 0) == [(0, TEXT)]
    brought = runs.piece_row[np.searchsorted(runs.piece_start, np.arange(len(TEXT)), "right") - 1]
    for position, row in enumerate(brought):
        at, part = parts[row - syn_first]
        assert at <= position < at + len(part)
        assert not any(a <= position < a + len(b) for a, b in parts[: row - syn_first])


def test_bytes_that_were_not_captured_are_a_gap_of_their_size() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"before")
    connection.lose(CLIENT, 100)
    connection.ask(b"after")
    assert stream(byte_runs(packets), 0) == [(0, b"before"), (106, b"after")]


def test_segments_cut_by_the_capture_leave_gaps() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"abcdef")
    packets.added[-1]["data"] = packets.added[-1]["data"][:-4]
    connection.ask(b"ghi")
    assert stream(byte_runs(packets), 0) == [(0, b"ab"), (6, b"ghi")]


def test_of_differing_bytes_the_first_that_came_are_kept() -> None:
    packets = Packets()
    packets.segment(CLIENT, SERVER, ISN, b"", SYN)
    packets.segment(CLIENT, SERVER, ISN + 1 + 2, b"cd")
    packets.segment(CLIENT, SERVER, ISN + 1, b"XXXXXX")
    assert stream(byte_runs(packets), 0) == [(0, b"XXcdXX")]


def test_bytes_are_ready_when_all_before_them_have_arrived() -> None:
    packets = Packets()
    packets.segment(CLIENT, SERVER, ISN, b"", SYN)
    for offset, part in ((0, b"ab"), (4, b"ef"), (2, b"cd"), (6, b"gh")):
        packets.segment(CLIENT, SERVER, ISN + 1 + offset, part)
    runs = byte_runs(packets)
    assert runs.frame[runs.ready_row_at(np.array([0, 2, 4, 5, 6]))].tolist() == [2, 4, 4, 4, 5]
    assert runs.frame[runs.piece_row].tolist() == [2, 4, 3, 5]


def test_data_in_the_syn_is_the_beginning() -> None:
    packets = Packets()
    packets.segment(CLIENT, SERVER, ISN, b"fast", SYN)
    packets.segment(CLIENT, SERVER, ISN + 5, b"open")
    assert stream(byte_runs(packets), 0) == [(0, b"fastopen")]


def test_keep_alive_probes_and_resets_bring_no_bytes() -> None:
    packets = Packets()
    connection = Connection(packets)
    packets.segment(CLIENT, SERVER, ISN, b"\0")  # one byte before the first
    connection.ask(b"data")
    packets.segment(CLIENT, SERVER, ISN + 4, b"\0")
    packets.segment(CLIENT, SERVER, ISN + 5, b"go away", RST)
    assert stream(byte_runs(packets), 0) == [(0, b"data")]


def test_without_a_syn_offsets_count_from_the_first_byte_seen() -> None:
    packets = Packets()
    packets.segment(CLIENT, SERVER, 5000, b"later")
    packets.segment(CLIENT, SERVER, 4995, b"first")
    packets.segment(CLIENT, SERVER, 5005, b"", FIN | ACK)
    runs = byte_runs(packets)
    assert stream(runs, 0) == [(-5, b"firstlater")]
    assert not runs.began[0]
    assert runs.fin[0] == 5


def test_forged_numbers_open_no_hole_beyond_any_window() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"good")
    packets.segment(CLIENT, SERVER, ISN + 1 + 4 + (1 << 31) - 1, b"forged")
    packets.segment(CLIENT, SERVER, ISN + 5 - (1 << 30) - 9, b"forged")
    connection.ask(b"bytes")
    (streams,) = reassembly.batches(packets)
    assert streams.losses["segment_outside_window"] == 2
    assert stream(byte_runs(packets), 0) == [(0, b"goodbytes")]


def test_a_long_stream_wraps_around_and_is_cut_at_the_limit() -> None:
    packets = Packets()
    packets.segment(CLIENT, SERVER, ISN, b"", SYN)
    step = 1 << 29
    for k in range(20):
        packets.segment(CLIENT, SERVER, ISN + 1 + k * step, b"x")
    runs = byte_runs(packets)
    assert stream(runs, 0) == [(0, b"x")]
    (streams,) = reassembly.batches(packets)
    assert streams.losses["stream_cut_bytes"] == 19
    assert step >= segments.STREAM_LIMIT_BYTES


def local(loss_at_client: bool = False, loss_at_server: bool = False) -> Packets:
    packets = Packets()
    connection = Connection(packets, LOCAL_CLIENT, LOCAL_SERVER)
    connection.ask(b"request")
    connection.answer(b"response", [3])
    for lost, direction in ((loss_at_client, "in"), (loss_at_server, "out")):
        if lost:
            packets.added.remove(
                next(r for r in packets.added if r["frame"] == 5 and r["direction"] == direction)
            )
    return packets


def test_a_local_conversation_is_put_together_once_from_its_clients_view() -> None:
    (streams,) = reassembly.batches(local())
    assert streams.view.tolist() == [CLIENT_VIEW]
    runs = byte_runs(local())
    assert stream(runs, 0) == [(0, b"request")]
    assert stream(runs, 1) == [(0, b"response")]


def test_the_more_complete_view_is_taken() -> None:
    (streams,) = reassembly.batches(local(loss_at_client=True))
    assert streams.view.tolist() == [SERVER_VIEW]
    assert stream(byte_runs(local(loss_at_client=True)), 1) == [(0, b"response")]
    (streams,) = reassembly.batches(local(loss_at_server=True))
    assert streams.view.tolist() == [CLIENT_VIEW]


def test_conversations_come_in_groups_of_bounded_size() -> None:
    packets = Packets()
    for flow in range(10):
        connection = Connection(packets, flow=flow)
        connection.ask(b"q" * 60)
        connection.answer(b"a" * 40)
    groups = [s.flow_id.tolist() for s in reassembly.batches(packets, limit_bytes=300)]
    assert groups == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_of_a_mapped_capture_only_the_segments_count(monkeypatch: pytest.MonkeyPatch) -> None:
    packets = Packets()
    for flow in range(6):
        connection = Connection(packets, flow=flow)  # two segments that matter, then three more
        connection.ask(b"question" * 100, [1, 2])
    packets.is_mapped = True  # type: ignore[attr-defined]
    monkeypatch.setattr(reassembly, "BATCH_SEGMENTS", 10)
    groups = [s.flow_id.tolist() for s in reassembly.batches(packets, limit_bytes=300)]
    assert groups == [[0, 1], [2, 3], [4, 5]]


def test_heads_end_at_the_first_gap() -> None:
    packets = Packets()
    connection = Connection(packets)
    connection.ask(b"abcdef", [2])
    connection.answer(b"ab")
    connection.lose(SERVER, 1)
    connection.answer(b"de")
    (streams,) = reassembly.batches(packets)
    data, bounds = streams.heads(5)
    assert [bytes(data[a:b]) for a, b in itertools.pairwise(bounds)] == [b"abcde", b"ab"]


def test_nothing_to_put_together() -> None:
    packets = Packets()
    packets.segment(CLIENT, SERVER, 1, b"", ACK)
    assert list(reassembly.batches(packets)) == []
    assert with_sides(packets.rows("packet").collect().clear()).height == 0
    assert pl.DataFrame(packets.added).height == 1
