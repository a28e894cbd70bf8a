"""Streams inside streams: what follows an Upgrade or a CONNECT, as streams of their own.

Bytes keep their map to the packets, so that whatever is read inside has the times of the packets outside.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.kernels import kernel
from stratokit.streams.byte_runs import ByteRuns, piece_at
from stratokit.streams.memory import copy_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.protocols.over_tcp import Heads


@dataclasses.dataclass(frozen=True, slots=True)
class Inner:
    """Streams for another parser: the named one, or the one that recognises them.

    `asking` is 0 or 1 for each conversation, as for StreamParser.parse.
    """

    runs: ByteRuns
    protocol: str | None
    asking: NDArray[np.int64]

    def heads(self, size: int) -> Heads:
        """The first bytes of each stream, up to the first gap."""
        from stratokit.protocols.over_tcp import Heads

        data, bounds = _heads(self.runs.data, self.runs.run_bounds, self.runs.run_start, size)
        return Heads(data, bounds, np.ones(bounds.size - 1, np.bool_))

    def chosen(self, wanted: NDArray[np.bool_]) -> ByteRuns:
        """The conversations that `wanted` marks."""
        flows = np.flatnonzero(wanted)
        return self.runs if wanted.all() else tails(self.runs, flows, np.full(2 * flows.size, -1))


def tails(runs: ByteRuns, flows: NDArray[np.int64], start: NDArray[np.int64]) -> ByteRuns:
    """Some conversations, each stream from a position in `runs.data` on.

    Args:
        flows: indices of conversations in `runs`.
        start: two positions for each, of its client's and its server's stream; -1 for all of it.
    """
    runs = runs.whole()
    streams = (flows[:, None] * 2 + np.arange(2)).ravel()
    data, run_bounds, run_start, run_offset, piece_start, source = _tails(
        runs.data, runs.run_bounds, runs.run_start, runs.run_offset, runs.piece_start, streams, start
    )
    return runs.with_bytes(
        data,
        piece_start,
        flow_id=runs.flow_id[flows],
        began=runs.began[streams],
        fin=runs.fin[streams],
        run_bounds=run_bounds,
        run_start=run_start,
        run_offset=run_offset,
        piece_row=runs.piece_row[source],
        piece_ready=runs.piece_ready[source],
    )


@kernel
def _tails(
    data: np.ndarray,
    run_bounds: np.ndarray,
    run_start: np.ndarray,
    run_offset: np.ndarray,
    piece_start: np.ndarray,
    streams: np.ndarray,
    start: np.ndarray,
) -> Any:
    """(data, run_bounds, run_start, run_offset, piece_start, which piece each was part of)."""
    total, runs, pieces = 0, 0, 0
    for k, s in enumerate(streams):
        for r in range(run_bounds[s], run_bounds[s + 1]):
            begin, end = max(run_start[r], start[k]), run_start[r + 1]
            if begin < end:
                total += end - begin
                runs += 1
                pieces += piece_at(piece_start, end - 1) - piece_at(piece_start, begin) + 1
    out = np.empty(total, np.uint8)
    out_bounds = np.zeros(streams.size + 1, np.int64)
    out_start = np.empty(runs + 1, np.int64)
    out_offset = np.empty(runs, np.int64)
    out_piece = np.empty(pieces, np.int64)
    source = np.empty(pieces, np.int64)
    at, n, m = 0, 0, 0
    for k, s in enumerate(streams):
        for r in range(run_bounds[s], run_bounds[s + 1]):
            begin, end = max(run_start[r], start[k]), run_start[r + 1]
            if begin >= end:
                continue
            out_start[n] = at
            out_offset[n] = run_offset[r] + begin - run_start[r]
            n += 1
            for piece in range(piece_at(piece_start, begin), piece_at(piece_start, end - 1) + 1):
                out_piece[m] = at + max(piece_start[piece] - begin, 0)
                source[m] = piece
                m += 1
            copy_bytes(out, at, data, begin, end - begin)
            at += end - begin
        out_bounds[k + 1] = n
    out_start[n] = at
    return out, out_bounds, out_start, out_offset, out_piece, source


@kernel
def _heads(
    data: np.ndarray, run_bounds: np.ndarray, run_start: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    bounds = np.zeros(run_bounds.size, np.int64)
    for s in range(run_bounds.size - 1):
        there = 0
        if run_bounds[s] < run_bounds[s + 1]:
            first = run_bounds[s]
            there = min(size, run_start[first + 1] - run_start[first])
        bounds[s + 1] = bounds[s] + there
    out = np.empty(bounds[-1], np.uint8)
    for s in range(run_bounds.size - 1):
        if bounds[s] < bounds[s + 1]:
            copy_bytes(out, bounds[s], data, run_start[run_bounds[s]], bounds[s + 1] - bounds[s])
    return out, bounds
