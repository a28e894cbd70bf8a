"""What frames of HTTP/2 bring to a stream: header blocks, in one or more pieces, and DATA (RFC 9113).

The functions share `books` (rows, index, events, text, notes), which have room for what a frame may bring,
and `tools` (HPACK's table and state, scratch rows, bytes and state of the block that is being put together).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import routine
from stratokit.protocols import hpack
from stratokit.protocols import http2_frames as h2
from stratokit.protocols import http2_rows as row_of
from stratokit.protocols.http2_notes import FIELD, MESSAGE, note
from stratokit.protocols.http_lines import HEAD_LIMIT_BYTES

# Of one group of conversations; an opened stream takes 10 bytes of traffic, and half a kilobyte here.
STREAMS_LIMIT = 1 << 20

# How much of the growing arrays is used, and the streams above the limit.
ROWS, EVENTS, TEXT, DROPPED, NOTES = range(5)
# The frame that is being read: whole where all of it is there, at the end where the capture ends in it.
START, BODY, KIND, FLAGS, STREAM, SIZE, LAST, WHOLE, AT_THE_END = range(9)
# A header block that is being put together: its stream (or the promised one) and side, the stream that its
# frames are on, bytes so far, whether the side ends with it.
BLOCK_STREAM, BLOCK_SIDE, BLOCK_ON, BLOCK_BYTES, BLOCK_ENDS = range(5)


@routine
def _text_of(data: np.ndarray, block: Any, side: int, books: Any, row: np.ndarray, t: int, noted: Any) -> int:
    """Read the fields of a header block into `row`: where the text ends, negative where it is no such block.

    An interim response (1xx) leaves the row as it was. `noted` is (notes, how many there are, last byte).
    """
    p, end = block
    text, table, state, scratch = books
    notes, counts, last = noted
    field = np.empty(hpack.FIELD_FIELDS, np.int64)
    for k in range(row.size):
        scratch[k] = row[k]
    fine = True
    while fine and p < end:
        p, t = hpack.next_field(data, p, end, text, t, table, state, field)
        fine = p != hpack.ERROR
        if not fine or field[hpack.NAME] == -2:
            break
        size = field[hpack.NAME + 1]
        counts[NOTES] = note(notes, counts[NOTES], FIELD, last, field)
        column = row_of.column_of(text, field[hpack.NAME], size, side) if size > 0 else -1
        if size < 0:
            scratch[row_of.UNKNOWN] += 1
        elif column == row_of.STATUS:
            scratch[column] = row_of.number(text, field[hpack.VALUE], field[hpack.VALUE + 1])
        elif column >= 0 and scratch[column + 1] < 0:
            scratch[column], scratch[column + 1] = field[hpack.VALUE], field[hpack.VALUE + 1]
    if side == 0 or not 100 <= scratch[row_of.STATUS] < 200:
        for k in range(row.size):
            row[k] = scratch[k]
    return t if fine else -1 - t


@routine
def _count_messages(data: np.ndarray, p: int, end: int, part: np.ndarray, noted: Any) -> None:
    """gRPC: messages that begin in a piece of body, each with a flag and a size of four bytes before it."""
    notes, counts, last = noted
    said = np.zeros(hpack.FIELD_FIELDS, np.int64)
    while p < end:
        if part[row_of.LEFT] > 0:
            taken = min(part[row_of.LEFT], end - p)
            part[row_of.LEFT] -= taken
            p += taken
        else:
            before = part[row_of.PREFIX] if part[row_of.HAVE] else i64(0)
            part[row_of.PREFIX] = before << 8 | data[p]
            part[row_of.HAVE] += 1
            p += 1
            if part[row_of.HAVE] < 5:
                continue
            part[row_of.LEFT], part[row_of.HAVE] = part[row_of.PREFIX] & 0xFFFFFFFF, 0
            part[row_of.MESSAGES] += 1
            part[row_of.MESSAGE_BYTES] += part[row_of.LEFT]
        if part[row_of.LEFT] == 0:
            said[0], said[1] = part[row_of.PREFIX] >> 32, part[row_of.PREFIX] & 0xFFFFFFFF
            counts[NOTES] = note(notes, counts[NOTES], MESSAGE, last, said)


@routine
def row_for(
    rows: np.ndarray, index: np.ndarray, counts: np.ndarray, flow: int, stream: int, opens: bool
) -> Any:
    """The row of a stream; where there is none and the frame does not open one, or there are too many, -1."""
    at = row_of.slot_of(index, flow, stream)
    if index[at, 0] != -1:
        return index[at, 1]
    n = counts[ROWS]
    if not opens or n >= STREAMS_LIMIT:
        counts[DROPPED] += opens
        return -1
    index[at, 0], index[at, 1] = i64(flow) << 31 | i64(stream), n
    row_of.clear(rows[n], flow, stream)
    counts[ROWS] += 1
    return n


@routine
def _payload(data: np.ndarray, frame: np.ndarray) -> tuple[int, int]:
    """Bounds of what a frame carries, without padding and priority; -1 where it contradicts itself."""
    begin, end = frame[BODY], frame[BODY] + frame[SIZE]
    if frame[FLAGS] & h2.PADDED and frame[KIND] != h2.CONTINUATION:
        if frame[SIZE] < 1 or begin >= data.size:
            return -1, end
        end -= i64(data[begin])
        begin += 1
    if frame[KIND] == h2.HEADERS and frame[FLAGS] & h2.WITH_PRIORITY:
        begin += 5
    if frame[KIND] == h2.PUSH_PROMISE:
        begin += 4
    return (begin, end) if begin <= end else (-1, end)


@routine
def _seen(part: np.ndarray, frame: np.ndarray) -> None:
    """Count a frame of one side of a stream."""
    if part[row_of.START] < 0:
        part[row_of.START] = frame[START]
    part[row_of.LAST] = frame[LAST]
    part[row_of.BYTES] += h2.HEADER_BYTES + frame[SIZE]
    part[row_of.CUT] |= 1 - frame[WHOLE]


@routine
def lose_fields(tools: Any, conn: np.ndarray) -> None:
    """A header block cannot be read, so the table of those that follow is not known."""
    _, state, _, _, block = tools
    hpack.reset(state, False)
    block[BLOCK_STREAM] = -1
    conn[row_of.UNREAD_BLOCKS] += 1


@routine
def take_data(
    data: np.ndarray, frame: np.ndarray, row: np.ndarray, side: int, text: np.ndarray, noted: Any
) -> None:
    """A DATA frame of a known stream; `noted` as for its header blocks."""
    part = row[side * row_of.SIDE_FIELDS : (side + 1) * row_of.SIDE_FIELDS]
    _seen(part, frame)
    begin, end = _payload(data, frame)
    if begin >= 0:
        part[row_of.BODY] += end - begin
    if not frame[WHOLE] or begin < 0:
        part[row_of.MESSAGES] = -1
    elif part[row_of.MESSAGES] >= 0 and row_of.is_grpc(text, row):
        _count_messages(data, begin, end, part, noted)
    if frame[FLAGS] & h2.END_STREAM and not frame[AT_THE_END]:
        part[row_of.ENDED] = 1


@routine
def _end_of_block(
    source: np.ndarray, bounds: Any, last: int, books: Any, tools: Any, counts: np.ndarray, conn: np.ndarray
) -> None:
    """Read the fields of a header block that is there in full, with the byte `last`."""
    rows, index, _, text, notes = books
    table, state, scratch, _, block = tools
    side = block[BLOCK_SIDE]
    at = row_for(rows, index, counts, conn[row_of.NUMBER], block[BLOCK_STREAM], False)
    row = rows[at] if at >= 0 else scratch[1]  # of a stream too many, only the table is kept up
    noted = (notes, counts, last)
    t = _text_of(source, bounds, side, (text, table, state, scratch[0]), row, counts[TEXT], noted)
    if t < 0:
        t = -1 - t
        lose_fields(tools, conn)
    counts[TEXT] = t
    block[BLOCK_STREAM] = -1
    part = row[side * row_of.SIDE_FIELDS : (side + 1) * row_of.SIDE_FIELDS]
    if side == 1 and row[row_of.STATUS] < 0 and not block[BLOCK_ENDS]:
        part[row_of.START], part[row_of.BYTES] = -1, 0  # it was interim: the answer is still to come
    elif block[BLOCK_ENDS]:
        part[row_of.ENDED] = 1


@routine
def _promised(data: np.ndarray, frame: np.ndarray) -> Any:
    """The stream that a PUSH_PROMISE promises, or 0."""
    p = frame[BODY] + (1 if frame[FLAGS] & h2.PADDED else 0)
    there = frame[WHOLE] and p + 4 <= frame[BODY] + frame[SIZE]
    return h2.be32(data, p) & 0x7FFFFFFF if there else i64(0)


@routine
def take_headers(
    data: np.ndarray,
    frame: np.ndarray,
    side: int,
    books: Any,
    tools: Any,
    counts: np.ndarray,
    conn: np.ndarray,
) -> None:
    """A frame with a header block, or a piece of one: HEADERS, PUSH_PROMISE, CONTINUATION."""
    rows, index, _, _, _ = books
    _, _, _, block_bytes, block = tools
    first = frame[KIND] != h2.CONTINUATION
    if first:
        promise = frame[KIND] == h2.PUSH_PROMISE
        block[BLOCK_STREAM] = _promised(data, frame) if promise else frame[STREAM]
        block[BLOCK_SIDE] = 0 if promise else side
        block[BLOCK_ON], block[BLOCK_BYTES] = frame[STREAM], 0
        block[BLOCK_ENDS] = promise or frame[FLAGS] & h2.END_STREAM != 0
    elif block[BLOCK_STREAM] < 0:
        return  # what it continues is not there
    flow = conn[row_of.NUMBER]
    at = row_for(rows, index, counts, flow, block[BLOCK_STREAM], first) if block[BLOCK_STREAM] > 0 else -1
    if at >= 0:
        begin_side = block[BLOCK_SIDE] * row_of.SIDE_FIELDS
        _seen(rows[at, begin_side : begin_side + row_of.SIDE_FIELDS], frame)
        rows[at, row_of.PUSHED] |= frame[KIND] == h2.PUSH_PROMISE
    begin, end = _payload(data, frame) if frame[WHOLE] else (-1, 0)
    if begin < 0 or block[BLOCK_BYTES] + end - begin > HEAD_LIMIT_BYTES:
        lose_fields(tools, conn)
        return
    if first and frame[FLAGS] & h2.END_HEADERS:
        _end_of_block(data, (begin, end), frame[LAST], books, tools, counts, conn)
        return
    for k in range(end - begin):
        block_bytes[block[BLOCK_BYTES] + k] = data[begin + k]
    block[BLOCK_BYTES] += end - begin
    if frame[FLAGS] & h2.END_HEADERS:
        _end_of_block(block_bytes, (0, block[BLOCK_BYTES]), frame[LAST], books, tools, counts, conn)
