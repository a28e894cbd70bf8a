"""Where an HTTP/1 body ends (RFC 9112 section 6.3), stepping over what was not captured.

A stream is runs of bytes with gaps between them (streams.byte_runs.ByteRuns). `runs` is (data, run_start,
run_offset, source), and a place is a run and a position in `data`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import routine
from stratokit.protocols.http_lines import CHUNKED, CR, CUT, HEAD_FIELDS, LENGTH, LF, chunk_size, read_head
from stratokit.streams.byte_runs import fill, fill_lines

# What stepping over bytes came to: the place behind them; a place from where the next start line must be
# looked for, as the beginning of the next run when they end in the gap before it; or the end of the stream.
THERE, LOST, AT_END = 0, 1, 2


@routine
def offset_at(runs: Any, r: int, p: int) -> Any:
    """Offset in the stream of position p in run r."""
    _, run_start, run_offset, _ = runs
    return run_offset[r] + (p - run_start[r])


@routine
def step(runs: Any, r: int, last_run: int, p: int, size: int) -> tuple[int, int, int, bool]:
    """Step over `size` bytes: (run, position, THERE or LOST or AT_END, whether none were missing)."""
    _, run_start, run_offset, _ = runs
    target = offset_at(runs, r, p) + size
    whole = True
    while target > offset_at(runs, r, run_start[r + 1]):
        whole = False
        if r + 1 >= last_run:
            return r, run_start[r + 1], AT_END, False
        r += 1
        if target <= run_offset[r]:
            return r, run_start[r], LOST, False
    return r, run_start[r] + target - run_offset[r], THERE, whole


@routine
def _skip_chunks(runs: Any, r: int, last_run: int, p: int) -> tuple[int, int, int, bool, int]:
    """Step over chunks and trailers (RFC 9112 section 7.1): as `step`, and the size of the body.

    A gap inside a chunk is stepped over. One that hides a chunk-size line loses the place, as does a line
    that is none.
    """
    data, run_start, _, source = runs
    head = np.empty(HEAD_FIELDS, np.int64)
    body = i64(0)
    whole = True
    while True:
        end = run_start[r + 1]
        fill_lines(data, source, p, end, False)
        size, behind = chunk_size(data, p, end)
        after = i64(0)
        if size == 0:
            fill_lines(data, source, behind, end, True)
            after = read_head(data, behind, end, head)  # trailers end as a head does
        if CUT in (size, after):
            return r, end, LOST if r + 1 < last_run else AT_END, False, body
        if size < 0 or after < 0:
            return r, behind, LOST, False, body
        if size == 0:
            return r, after, THERE, whole, body
        before = offset_at(runs, r, behind)
        r, p, came_to, all_there = step(runs, r, last_run, behind, size)
        whole = whole and all_there
        body += size if came_to != AT_END else offset_at(runs, r, p) - before
        if came_to != THERE:
            return r, p, came_to, False, body
        end = run_start[r + 1]
        fill(data, source, p, min(p + 2, end))
        if p < end and data[p] == CR:
            p += 1
        if p < end and data[p] == LF:
            p += 1


@routine
def skip_body(
    runs: Any, r: int, last_run: int, p: int, head: np.ndarray, bodiless: bool, is_request: bool
) -> tuple[int, int, int, bool, int, int]:
    """Step over the body behind a head: as `step`, then the size of the body and its bytes on the stream."""
    _, run_start, _, _ = runs
    begin = offset_at(runs, r, p)
    if not bodiless and head[CHUNKED] == 1:
        first = r
        r, p, came_to, whole, body = _skip_chunks(runs, r, last_run, p)
        if came_to == LOST and r > first and p == run_start[r]:
            return r, p, came_to, whole, body, offset_at(runs, r - 1, p) - begin
        return r, p, came_to, whole, body, offset_at(runs, r, p) - begin
    size = i64(0)
    if not bodiless and head[LENGTH] >= 0 and head[CHUNKED] < 0:
        size = head[LENGTH]
    elif not bodiless and not is_request:  # it ends with the connection
        size = offset_at(runs, last_run - 1, run_start[last_run]) - begin
    r, p, came_to, whole = step(runs, r, last_run, p, size)
    if came_to == AT_END:
        size = offset_at(runs, r, p) - begin
    return r, p, came_to, whole, size, size
