"""Judging segments batch after batch: how they are cut says nothing, and a late SYN tells the client."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
from helpers.traffic import (
    ACK,
    CLIENT,
    FIN,
    LOCAL_CLIENT,
    LOCAL_SERVER,
    RST,
    SERVER,
    SYN,
    Connection,
    Packets,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.streams import segment_table, tcp
from stratokit.streams.connections import COLUMNS, Judge
from stratokit.streams.tcp_state import POOL_MAX, Pool

ENDS = ((CLIENT, SERVER), (SERVER, CLIENT), (LOCAL_CLIENT, LOCAL_SERVER), (LOCAL_SERVER, LOCAL_CLIENT))
SEGMENTS = st.lists(
    st.tuples(
        st.sampled_from(ENDS),
        st.sampled_from([SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, RST]),
        st.integers(0, 12),
        st.integers(0, 12),
        st.sampled_from([b"", b"", b"x", b"four"]),
        st.sampled_from([0, 100]),
    ),
    max_size=30,
)


def rows_of(segments: list[Any]) -> pl.DataFrame:
    packets = Packets()
    for (src, dst), flags, seq, ack, payload, window in segments:
        flow = ENDS.index((src, dst)) // 2
        packets.segment(src, dst, seq, payload, flags, flow, tcp_ack=ack, tcp_window=window)
    return packets.rows("packet").select(COLUMNS).collect()


def told(rows: pl.DataFrame, places: list[int]) -> tuple[pl.DataFrame, list[np.ndarray]]:
    judge, found = Judge(), []
    for a, b in itertools.pairwise(places):
        batch = judge.feed(rows[a:b])
        found.append((batch.flags, batch.rtt_ns, batch.in_flight, batch.dup_ack))
    columns = [np.concatenate(arrays) for arrays in zip(*found, strict=True)]
    return tcp.frame_of(judge.connections()), columns


@settings(max_examples=150, deadline=None)
@given(SEGMENTS, st.lists(st.integers(0, 60), max_size=5))
def test_batches_are_judged_as_the_whole(segments: list[Any], cuts: list[int]) -> None:
    rows = rows_of(segments)
    n = rows.height
    whole, found = told(rows, [0, n])
    parts, again = told(rows, [0, *sorted(c for c in cuts if c < n), n])
    assert parts.equals(whole)
    for a, b in zip(found, again, strict=True):
        assert np.array_equal(a, b)


def test_a_late_syn_tells_who_the_client_is() -> None:
    packets = Packets()
    packets.segment(CLIENT, SERVER, 1, b"data", ACK)  # by its ports the client's
    packets.segment(SERVER, CLIENT, 100, b"", SYN)
    packets.segment(CLIENT, SERVER, 5, b"", SYN | ACK, tcp_ack=101)
    packets.segment(SERVER, CLIENT, 101, b"", ACK, tcp_ack=6)
    (row,) = tcp.build(packets).collect().to_dicts()
    assert (row["history"], row["syns"]) == ("dShA", 1)
    assert (row["payload_c2s"], row["payload_s2c"]) == (0, 4)
    assert row["handshake_rtt_ns"] == 2 * packets.step_ns
    assert segment_table.build(packets).collect()["from_client"].to_list() == [False, True, False, True]


def test_ports_used_again_are_told_also_when_the_other_side_begins() -> None:
    packets = Packets()
    Connection(packets, flow=0)
    Connection(packets, SERVER, CLIENT, flow=1)
    assert tcp.build(packets).collect()["reused_ports"].to_list() == [False, True]


def test_the_same_ports_in_another_vlan_are_not_used_again() -> None:
    packets = Packets()
    for flow in (0, 1):
        packets.segment(CLIENT, SERVER, flow, b"", SYN, flow, vlan=flow + 1)
    assert tcp.build(packets).collect()["reused_ports"].to_list() == [False, False]


def test_no_segments_no_rows() -> None:
    packets = Packets()
    packets.datagram(CLIENT, SERVER, b"udp")
    assert tcp.build(packets).collect().height == 0
    assert segment_table.build(packets).collect().height == 0


def test_unacknowledged_segments_have_a_bounded_place() -> None:
    pool = Pool()
    for _ in range(3):
        pool.make_room(1000)
    assert pool.entries.size == 1000 == pool.free[1]  # none was taken
    pool.free[1] = 0
    pool.make_room(1000)
    assert (pool.entries.size, pool.free.tolist()) == (2000, [1000, 1000])
    pool.entries = np.zeros(POOL_MAX, pool.entries.dtype)
    pool.free[1] = 0
    pool.make_room(1000)
    assert pool.entries.size == POOL_MAX
