"""Frames of WebSocket (RFC 6455 section 5.2) in byte runs, as messages: one pass over each direction.

    FIN 1, RSV 3, opcode 4 | MASK 1, size 7 | size 0, 16 or 64 | masking key 0 or 32 | payload

Missing bytes inside a payload are stepped over. Where a header is missing, reading goes on at the next run
that begins with a chain of frames; what lies before belongs to no message and is counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, routine
from stratokit.protocols.buffers import be16, with_room, with_rows
from stratokit.protocols.http2_frames import be32
from stratokit.protocols.http_bodies import AT_END, LOST, step

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# A message: positions are in the buffer, LAST is that of its last byte that is there; REASON in the texts.
FLOW, SIDE, OPCODE, FIRST, LAST, FRAMES, SIZE, COMPRESSED, CUT, CLOSE_CODE, REASON, REASON_SIZE = range(12)
FIELDS = 12
# Of one group of conversations: an empty frame takes 2 bytes of traffic, and 96 here.
MESSAGES_LIMIT = 1 << 22
# How much is used of the rows and texts; bytes that belong to no message; messages above the limit.
ROWS, BYTES, SKIPPED, DROPPED = range(4)
_CONTROL_LIMIT_BYTES = 125
NO_FRAME, CUT_FRAME = -1, -2  # instead of the position of a payload


@routine
def header(data: np.ndarray, p: int, end: int) -> tuple[int, Any]:
    """(where the payload of the frame at p begins, its size); or NO_FRAME, or CUT_FRAME."""
    if end - p < 2:
        return CUT_FRAME, i64(0)
    opcode, size, masked = data[p] & 15, i64(data[p + 1]) & 127, data[p + 1] >> 7
    control = opcode >= CLOSE
    if data[p] & 0x30 or 2 < opcode < CLOSE or opcode > PONG:
        return NO_FRAME, i64(0)
    if control and (size > _CONTROL_LIMIT_BYTES or not data[p] & 0x80):
        return NO_FRAME, i64(0)
    body = p + 2 + (2 if size == 126 else 8 if size == 127 else 0) + 4 * masked
    if body > end:
        return CUT_FRAME, i64(0)
    if size == 126:
        size = be16(data, p + 2)
    elif size == 127:
        if data[p + 2] or data[p + 3]:  # above 2^48: nobody sends that
            return NO_FRAME, i64(0)
        size = be32(data, p + 2) << 32 | be32(data, p + 6)
    return body, size


@routine
def _begins_frames(data: np.ndarray, p: int, end: int) -> bool:
    """Whether at least two frames follow each other from p on, or one ends just at `end`."""
    count = 0
    while p < end and count < 3:
        body, size = header(data, p, end)
        if body < 0:
            return body == CUT_FRAME and count >= 2
        count += 1
        p = body + size
    return count >= 2 or p == end


@routine
def _new(row: np.ndarray, flow: int, side: int, data: np.ndarray, p: int) -> None:
    row[FLOW], row[SIDE], row[OPCODE], row[FIRST] = flow, side, data[p] & 15, p
    row[FRAMES], row[SIZE], row[COMPRESSED], row[CUT] = 0, 0, data[p] >> 6 & 1, 0
    row[CLOSE_CODE], row[REASON], row[REASON_SIZE] = -1, -1, -1


@routine
def _close(data: np.ndarray, p: int, body: int, size: int, row: np.ndarray, text: np.ndarray, t: int) -> int:
    """Code and reason of a Close frame that is there in full (section 5.5.1); where the text ends."""
    if size < 2:
        return t
    masked = data[p + 1] & 0x80
    for i in range(size):
        text[t + i] = data[body + i] ^ (data[body - 4 + i % 4] if masked else 0)
    row[CLOSE_CODE] = be16(text, t)
    row[REASON], row[REASON_SIZE] = t + 2, size - 2
    return t + size


@routine
def _add(row: np.ndarray, data: np.ndarray, p: int, size: int, last: int, whole: bool) -> Any:
    """Add a frame to its message; whether that is complete."""
    row[LAST] = last
    row[FRAMES] += 1
    row[SIZE] += size
    row[CUT] |= not whole
    return data[p] & 0x80 != 0


@routine
def _next_run(runs: Any, r: int, last_run: int, counts: np.ndarray) -> int:
    """The next run behind r that begins with frames; `last_run` where there is none."""
    data, run_start, _, _ = runs
    r += 1
    while r < last_run and not _begins_frames(data, run_start[r], run_start[r + 1]):
        counts[SKIPPED] += run_start[r + 1] - run_start[r]
        r += 1
    return r


@routine
def _read_stream(runs: Any, run_range: Any, flow: int, side: int, kept: Any, counts: np.ndarray) -> Any:
    """Append the messages of one direction to `kept`, (rows, text); `counts` says how much is used."""
    data, run_start, _, _ = runs
    rows, text = kept
    r, last_run = run_range
    p = run_start[r]
    current = -1  # the message whose continuation is to come
    while r < last_run:
        end = run_start[r + 1]
        body, size = header(data, p, end)
        if body < 0:
            counts[SKIPPED] += end - p
            r = _next_run(runs, r, last_run, counts)
            p, current = run_start[r], -1
            continue
        if counts[ROWS] >= MESSAGES_LIMIT:
            counts[DROPPED] += 1
            break
        rows, text = with_rows(rows, counts[ROWS], 1), with_room(text, counts[BYTES], 128)
        start, opcode = p, data[p] & 15
        whole = body + size <= end
        r, p, came_to, _ = step(runs, r, last_run, body, size)
        at = current if opcode == CONTINUATION and current >= 0 else counts[ROWS]
        row = rows[at]
        if at == counts[ROWS]:
            _new(row, flow, side, data, start)
            counts[ROWS] += 1
        done = _add(row, data, start, size, max(p - 1, start), whole and (current == at or opcode > 0))
        if opcode == CLOSE and whole:
            counts[BYTES] = _close(data, start, body, size, row, text, counts[BYTES])
        if opcode < CLOSE:
            current = -1 if done else at
        if came_to == AT_END:
            row[CUT] = 1
            break
        if came_to == LOST or p == run_start[r + 1]:
            if came_to == LOST:
                r -= 1  # the run that it came to is looked at anew
            r = _next_run(runs, r, last_run, counts)
            p = run_start[r]
            current = -1 if came_to == LOST or r < last_run else current
    if current >= 0:
        rows[current, CUT] = 1
    return rows, text


@kernel
def read_conversations(
    runs: Any, run_bounds: np.ndarray, asking: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(messages, texts, counts) of all conversations in the runs; SIDE is 0 for the one who asked to upgrade.

    Args:
        runs: (data, run_start, run_offset, source) of streams.byte_runs.ByteRuns.
        asking: which of the two streams of each conversation is the client's, 0 or 1.
    """
    kept = (np.empty((64, FIELDS), np.int64), np.empty(1 << 12, np.uint8))
    counts = np.zeros(4, np.int64)
    for flow in range(asking.size):
        for side in range(2):
            s = 2 * flow + (asking[flow] if side == 0 else 1 - asking[flow])
            if run_bounds[s] < run_bounds[s + 1]:
                run_range = (run_bounds[s], run_bounds[s + 1])
                kept = _read_stream(runs, run_range, flow, side, kept, counts)
    return kept[0][: counts[ROWS]], kept[1][: counts[BYTES]], counts
