"""The assembler against a model that writes each byte into a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stratokit.streams.assembler import assemble

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


def test_hostile_orders_take_time_in_proportion() -> None:
    n = 200_000
    backwards = np.arange(n)[::-1].copy()
    pieces, _ = assemble(backwards, np.full(n, 1 << 40), np.array([0, n]))
    assert len(pieces) == n
    assert (pieces[:, 1] == 1).sum() == n - 1
