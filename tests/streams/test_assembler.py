"""The assembler against a model that writes each byte into a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.streams.assembler import Policy, assemble

INTERVALS = st.lists(st.tuples(st.integers(-30, 60), st.integers(1, 20)), max_size=14)


@settings(max_examples=400, deadline=None)
@given(st.lists(INTERVALS, max_size=4))
def test_each_position_belongs_to_the_interval_that_came_first(streams: list[list[tuple[int, int]]]) -> None:
    flat = [interval for stream in streams for interval in stream]
    start = np.array([a for a, _ in flat], np.int64)
    size = np.array([n for _, n in flat], np.int64)
    bounds = np.cumsum([0, *(len(stream) for stream in streams)])
    pieces, piece_bounds = assemble(start, size, bounds)
    for s in range(len(streams)):
        owner: dict[int, int] = {}
        for i in range(bounds[s], bounds[s + 1]):
            for position in range(start[i], start[i] + size[i]):
                owner.setdefault(position, i)
        mine = pieces[piece_bounds[s] : piece_bounds[s + 1]].tolist()
        assert [at for at, _, _ in mine] == sorted(at for at, _, _ in mine)
        assert len(mine) <= max(2 * len(streams[s]) - 1, 0)
        spread = [(at + k, i) for at, n, i in mine for k in range(n)]
        assert dict(spread) == owner
        assert len(spread) == len(owner)


def received(stream: list[tuple[int, int]], policy: str) -> dict[int, int]:
    """Owner of each position, one segment after the other, byte after byte."""
    owner: dict[int, int] = {}
    waiting: list[tuple[int, int, int]] = []
    ready = min([0, *(at for at, _ in stream)])
    for i, (at, size) in enumerate(stream):
        begin = max(at, ready)
        if begin < at + size:
            waiting.append((begin, at + size, i))
        while any(a <= ready < b for a, b, _ in waiting):
            owner[ready] = preferred(waiting, ready, policy)
            ready += 1
    for position in range(ready, max((b for _, b, _ in waiting), default=ready)):
        if any(a <= position < b for a, b, _ in waiting):
            owner[position] = preferred(waiting, position, policy)
    return owner


def preferred(waiting: list[tuple[int, int, int]], position: int, policy: str) -> int:
    holding = [(a, a - b if policy == "linux" else 0, i) for a, b, i in waiting if a <= position < b]
    return min(holding)[2]


@settings(max_examples=400, deadline=None)
@given(INTERVALS, st.sampled_from(["bsd", "linux"]))
def test_systems_keep_what_was_delivered_and_prefer_what_begins_first(
    stream: list[tuple[int, int]], policy: Policy
) -> None:
    start, size = (np.array([pair[k] for pair in stream], np.int64) for k in (0, 1))
    pieces, _ = assemble(start, size, np.array([0, len(stream)]), policy)
    assert {at + k: i for at, n, i in pieces.tolist() for k in range(n)} == received(stream, policy)


@given(INTERVALS)
def test_the_last_to_come_can_win_everywhere(stream: list[tuple[int, int]]) -> None:
    start, size = (np.array([pair[k] for pair in stream], np.int64) for k in (0, 1))
    pieces, _ = assemble(start, size, np.array([0, len(stream)]), "last")
    owner = {at + k: i for i, (at, n) in enumerate(stream) for k in range(n)}
    assert {at + k: i for at, n, i in pieces.tolist() for k in range(n)} == owner


def test_hostile_orders_take_time_in_proportion() -> None:
    n = 200_000
    backwards = np.arange(n)[::-1].copy()
    pieces, _ = assemble(backwards, np.full(n, 1 << 40), np.array([0, n]))
    assert len(pieces) == n
    assert (pieces[:, 1] == 1).sum() == n - 1
