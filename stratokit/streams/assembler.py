"""Overlapping pieces of byte streams become runs of bytes: intervals in, intervals out, no packets.

Given intervals [start, start + size) of many streams in the order of their arrival, `assemble` gives disjoint
intervals in order of position that cover exactly the same positions, each taken from one of the intervals
that hold it: which one is the policy. Neighbours that touch but come from different intervals stay apart;
where two do not touch there is a gap.

Receivers differ (Novak and Sturges, Target-Based TCP Stream Reassembly, 2007). What was in order when it came
is with the application and stays; of what waits, BSD and Linux take the segment that begins first, and of two
that begin together BSD the earlier, Linux the longer.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Literal

import numpy as np

from stratokit.kernels import kernel, routine

if TYPE_CHECKING:
    from numpy.typing import NDArray

Policy = Literal["first", "last", "bsd", "linux"]


@kernel
def _untidy(start: np.ndarray, size: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Streams in which some interval begins before the end of the one that arrived before it."""
    found = np.zeros(bounds.size - 1, np.bool_)
    for s in range(bounds.size - 1):
        for i in range(bounds[s] + 1, bounds[s + 1]):
            if start[i] < start[i - 1] + size[i - 1]:
                found[s] = True
                break
    return found


@kernel
def _keep_delivered(start: np.ndarray, size: np.ndarray, bounds: np.ndarray) -> None:
    """Cut from each interval what was delivered before it came: all up to the first gap."""
    for s in range(bounds.size - 1):
        waiting = [(start[0], start[0])]
        waiting.pop()
        ready = np.int64(0)
        for i in range(bounds[s], bounds[s + 1]):
            ready = min(ready, start[i])
        for i in range(bounds[s], bounds[s + 1]):
            cut = min(max(ready - start[i], 0), size[i])
            start[i] += cut
            size[i] -= cut
            if size[i] > 0:
                heapq.heappush(waiting, (start[i], start[i] + size[i]))
            while waiting and waiting[0][0] <= ready:
                ready = max(ready, heapq.heappop(waiting)[1])


@routine
def _sweep(
    start: np.ndarray, size: np.ndarray, rank: np.ndarray, order: np.ndarray, out: np.ndarray, n: int
) -> int:
    """Walk the positions; of all intervals that hold one, that of the lowest rank wins.

    `order` are the intervals of a stream by start. Pieces go to out[n:]; returns the new n.
    """
    open_ = [(rank[order[0]], order[0])]
    open_.pop()
    begin = n
    pos = start[order[0]]
    k = 0
    while k < order.size or open_:
        if not open_:
            pos = max(pos, start[order[k]])
        while k < order.size and start[order[k]] <= pos:
            heapq.heappush(open_, (rank[order[k]], order[k]))
            k += 1
        while open_ and start[open_[0][1]] + size[open_[0][1]] <= pos:
            heapq.heappop(open_)
        if not open_:
            continue
        best = open_[0][1]
        end = start[best] + size[best]
        if k < order.size:
            end = min(end, start[order[k]])  # there a better one may begin
        if n > begin and out[n - 1, 2] == best and out[n - 1, 0] + out[n - 1, 1] == pos:
            out[n - 1, 1] += end - pos
        else:
            out[n, 0], out[n, 1], out[n, 2] = pos, end - pos, best
            n += 1
        pos = end
    return n


@kernel
def _pieces(
    start: np.ndarray,
    size: np.ndarray,
    bounds: np.ndarray,
    untidy: np.ndarray,
    rank: np.ndarray,
    order: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    # Every start and every end begins at most one piece; so n intervals make at most 2n - 1 pieces.
    out = np.empty((2 * start.size, 3), np.int64)
    piece_bounds = np.zeros(bounds.size, np.int64)
    n = 0
    for s in range(bounds.size - 1):
        if untidy[s]:
            n = _sweep(start, size, rank, order[bounds[s] : bounds[s + 1]], out, n)
        else:
            for i in range(bounds[s], bounds[s + 1]):
                out[n, 0], out[n, 1], out[n, 2] = start[i], size[i], i
                n += 1
        piece_bounds[s + 1] = n
    return out[:n], piece_bounds


def assemble(
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    bounds: NDArray[np.int64],
    policy: Policy = "first",
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Disjoint pieces of each stream, and the bounds of each stream's pieces.

    The work is n log n for any input; a stream in order costs one look at each interval.

    Args:
        start: where intervals begin; `size` > 0. Stream s has the intervals bounds[s] to bounds[s + 1].
        policy: what to take where intervals overlap: the first or the last to come, or as a system would.

    Returns:
        (pieces, piece_bounds): a piece is (start, size, index of the interval it was taken from).

    >>> at, size = np.array([0, 4, 2]), np.array([3, 3, 4])
    >>> assemble(at, size, np.array([0, 3]))[0].tolist()
    [[0, 3, 0], [3, 1, 2], [4, 3, 1]]
    """
    untidy = _untidy(start, size, bounds)
    order = rank = np.arange(start.size)
    if untidy.any():
        if policy in ("bsd", "linux"):
            start, size = start.copy(), size.copy()
            _keep_delivered(start, size, bounds)
        stream = np.repeat(np.arange(untidy.size), np.diff(bounds))
        rows = np.flatnonzero(untidy[stream])
        longer = -size if policy == "linux" else np.zeros_like(size)
        order = order.copy()
        order[rows] = rows[np.lexsort((longer[rows], start[rows], stream[rows]))]
        if policy == "last":
            rank = -rank
        elif policy != "first":
            rank = np.argsort(order)
    pieces, piece_bounds = _pieces(start, size, bounds, untidy, rank, order)
    return pieces, piece_bounds
