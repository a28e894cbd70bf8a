"""HTTP/2 connections in byte runs (RFC 9113): one pass over each direction, then one over what moves windows.

Missing bytes inside DATA are stepped over. Any others lose the state of HPACK, and reading goes on at the
next chain of frames with an unknown table, as it begins where the capture began later than the connection.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, routine
from stratokit.protocols import hpack
from stratokit.protocols import http2_frames as h2
from stratokit.protocols import http2_rows as row_of
from stratokit.protocols.buffers import with_room, with_rows
from stratokit.protocols.hpack_tables import STATIC_TEXT
from stratokit.protocols.http2_blocks import (
    AT_THE_END,
    BLOCK_BYTES,
    BLOCK_ON,
    BLOCK_STREAM,
    BODY,
    DROPPED,
    EVENTS,
    FLAGS,
    KIND,
    LAST,
    NOTES,
    ROWS,
    SIZE,
    START,
    STREAM,
    TEXT,
    WHOLE,
    lose_fields,
    row_for,
    take_data,
    take_headers,
)
from stratokit.protocols.http2_notes import FRAME, PREFACE, note
from stratokit.protocols.http2_windows import stalls
from stratokit.protocols.http_bodies import AT_END, LOST, THERE, step
from stratokit.protocols.http_lines import HEAD_LIMIT_BYTES


@routine
def _settings(data: np.ndarray, p: int, end: int, side: np.ndarray, event: np.ndarray) -> bool:
    """Keep what a SETTINGS frame says; whether it moves windows."""
    moves = False
    while p + 6 <= end:
        name, value = i64(data[p]) << 8 | i64(data[p + 1]), h2.be32(data, p + 2)
        if name == h2.MAX_CONCURRENT_STREAMS:
            side[row_of.MAX_STREAMS] = value
        elif name == h2.INITIAL_WINDOW_SIZE:
            event[row_of.KIND], event[row_of.ROW] = row_of.INITIAL, row_of.WHOLE_CONNECTION
            event[row_of.AMOUNT] = value
            moves = True
        p += 6
    return moves


@routine
def _begin(data: np.ndarray, p: int, end: int, side: int) -> tuple[int, bool]:
    """(where frames begin, whether it is the beginning of the connection)."""
    if side == 0:
        if h2.is_preface(data, p, end):
            return min(p + h2.PREFACE.size, end), True
        return p, False
    # The server's preface is a SETTINGS frame (section 3.4).
    known = end - p >= h2.HEADER_BYTES and data[p + 3] == h2.SETTINGS and data[p + 4] == 0
    return p, known and h2.valid_header(data, p)


@routine
def _control(data: np.ndarray, frame: np.ndarray, row: np.ndarray, conn: np.ndarray, side: int) -> None:
    """RST_STREAM, PING and GOAWAY, which are there in full."""
    mine = conn[side * row_of.CONN_SIDE_FIELDS : (side + 1) * row_of.CONN_SIDE_FIELDS]
    kind, body = frame[KIND], frame[BODY]
    if kind == h2.RST_STREAM and row.size and row[row_of.RESET_CODE] < 0:
        row[row_of.RESET_CODE], row[row_of.RESET_SIDE] = h2.be32(data, body), side
    elif kind == h2.PING and not frame[FLAGS] & h2.ACK:
        mine[row_of.PINGS] += 1
    elif kind == h2.GOAWAY:  # the last one says more than the first (section 6.8)
        mine[row_of.GOAWAY_LAST] = h2.be32(data, body) & 0x7FFFFFFF
        mine[row_of.GOAWAY_CODE] = h2.be32(data, body + 4)
        mine[row_of.GOAWAY_AT] = body


@routine
def _frame(
    data: np.ndarray,
    frame: np.ndarray,
    side: int,
    books: Any,
    tools: Any,
    counts: np.ndarray,
    conn: np.ndarray,
) -> None:
    """Take what a frame says into the rows and events, which have room for it."""
    rows, index, events, text, notes = books
    kind, stream = frame[KIND], frame[STREAM]
    block = tools[4]
    if frame[WHOLE]:
        counts[NOTES] = note(notes, counts[NOTES], FRAME, frame[LAST], frame[KIND : KIND + 4])
    if block[BLOCK_STREAM] >= 0 and (kind != h2.CONTINUATION or stream != block[BLOCK_ON]):
        lose_fields(tools, conn)
    if kind in (h2.HEADERS, h2.PUSH_PROMISE, h2.CONTINUATION):
        take_headers(data, frame, side, books, tools, counts, conn)
        return
    at = row_for(rows, index, counts, conn[row_of.NUMBER], stream, False) if stream else -1
    row = rows[at] if at >= 0 else rows[0, :0]
    event = events[counts[EVENTS]]
    if kind == h2.DATA:
        event[row_of.KIND], event[row_of.ROW], event[row_of.AMOUNT] = row_of.SENT, at, frame[SIZE]
        counts[EVENTS] += 1
        if at >= 0:
            take_data(data, frame, row, side, text, (notes, counts, frame[LAST]))
    elif not frame[WHOLE]:
        return
    elif kind == h2.SETTINGS and not frame[FLAGS] & h2.ACK:
        begin = side * row_of.CONN_SIDE_FIELDS
        mine = conn[begin : begin + row_of.CONN_SIDE_FIELDS]
        counts[EVENTS] += _settings(data, frame[BODY], frame[BODY] + frame[SIZE], mine, event)
    elif kind == h2.WINDOW_UPDATE:
        event[row_of.KIND], event[row_of.ROW] = row_of.OPENED, at if stream else row_of.WHOLE_CONNECTION
        event[row_of.AMOUNT] = h2.be32(data, frame[BODY]) & 0x7FFFFFFF
        counts[EVENTS] += not stream or at >= 0
    else:
        _control(data, frame, row, conn, side)


@routine
def _find(runs: Any, place: Any, lost: bool, tools: Any, conn: np.ndarray) -> tuple[int, int]:
    """(run, position) of the next frame's header from `place`, (run, position, last run); run -1 for none."""
    data, run_start, _, _ = runs
    r, p, last_run = place
    while True:
        end = run_start[r + 1]
        if not lost and end - p >= h2.HEADER_BYTES and not h2.valid_header(data, p):
            lost = True
            lose_fields(tools, conn)
        if lost:
            found = h2.find_frame(data, p, end)
            conn[row_of.SKIPPED] += found - p
            p = found
        if end - p >= h2.HEADER_BYTES:
            return r, p
        conn[row_of.SKIPPED] += end - p
        if r + 1 >= last_run:
            return -1, p
        r += 1
        p, lost = run_start[r], True
        lose_fields(tools, conn)


@routine
def _next_frame(runs: Any, place: Any, frame: np.ndarray) -> tuple[int, int, bool]:
    """Read the header at `place` into `frame`: (run, position, is the place lost) behind it."""
    data, run_start, _, _ = runs
    r, p, last_run = place
    frame[START], frame[BODY], frame[SIZE] = p, p + h2.HEADER_BYTES, h2.frame_size(data, p)
    frame[KIND], frame[FLAGS] = data[p + 3], data[p + 4]
    frame[STREAM] = h2.be32(data, p + 5) & 0x7FFFFFFF
    came_to = THERE
    frame[WHOLE] = frame[BODY] + frame[SIZE] <= run_start[r + 1]
    if frame[WHOLE]:
        p = frame[BODY] + frame[SIZE]
    else:
        r, p, came_to, _ = step(runs, r, last_run, frame[BODY], frame[SIZE])
    frame[LAST] = max(p - 1, frame[START])
    frame[AT_THE_END] = came_to == AT_END
    return r, p, came_to == LOST


@routine
def _read_direction(
    runs: Any,
    run_range: Any,
    pieces: Any,
    side: int,
    conn: np.ndarray,
    books: Any,
    tools: Any,
    counts: np.ndarray,
) -> Any:
    """Read one direction; returns `books`, (rows, index, events, text, notes), which may have grown."""
    data, run_start, _, _ = runs
    piece_start, piece_ready = pieces
    rows, index, events, text, notes = books
    r, last_run = run_range
    begin = side * row_of.CONN_SIDE_FIELDS
    mine = conn[begin : begin + row_of.CONN_SIDE_FIELDS]
    p, known = _begin(data, run_start[r], run_start[r + 1], side)
    mine[row_of.FIRST], mine[row_of.KNOWN] = run_start[r], known
    hpack.reset(tools[1], known)
    tools[4][BLOCK_STREAM] = -1
    lost = not known
    if p > run_start[r] and notes.shape[0]:
        notes = with_rows(notes, counts[NOTES], 1)
        counts[NOTES] = note(notes, counts[NOTES], PREFACE, p - 1, tools[4])
    piece = np.searchsorted(piece_start, p, side="right") - 1
    frame = np.empty(9, np.int64)
    while True:
        r, p = _find(runs, (r, p, last_run), lost, tools, conn)
        if r < 0:
            break
        r, p, lost = _next_frame(runs, (r, p, last_run), frame)
        mine[row_of.FRAMES] += 1
        while piece + 1 < piece_start.size and piece_start[piece + 1] <= frame[START]:
            piece += 1
        rows = with_rows(rows, counts[ROWS], 1)
        events = with_rows(events, counts[EVENTS], 1)
        events[counts[EVENTS], row_of.ORDER] = piece_ready[piece]
        if 2 * (counts[ROWS] + 1) > index.shape[0]:
            index = row_of.new_index(rows, counts[ROWS], 2 * counts[ROWS] + 2)
        size = max(frame[SIZE], tools[4][BLOCK_BYTES] + frame[SIZE] if frame[KIND] == h2.CONTINUATION else 0)
        if frame[WHOLE] and frame[KIND] != h2.DATA:
            text = with_room(text, counts[TEXT], hpack.decoded_bytes(size))
        if notes.shape[0]:
            # The frame itself; a field takes a byte at least, a message of gRPC five, and the first ends one.
            most = 3 + (size // 5 if frame[KIND] == h2.DATA else size)
            notes = with_rows(notes, counts[NOTES], most)
        _frame(data, frame, side, (rows, index, events, text, notes), tools, counts, conn)
        if lost:
            lose_fields(tools, conn)
        if frame[AT_THE_END]:
            break
    return rows, index, events, text, notes


@routine
def _finish(rows: np.ndarray, first: int, n: int) -> None:
    """Sides that never ended are cut, unless the stream was reset."""
    for i in range(first, n):
        for side in range(2):
            part = rows[i, side * row_of.SIDE_FIELDS : (side + 1) * row_of.SIDE_FIELDS]
            if part[row_of.START] >= 0 and not part[row_of.ENDED] and rows[i, row_of.RESET_CODE] < 0:
                part[row_of.CUT] = 1


@kernel
def read_connections(
    runs: Any,
    run_bounds: np.ndarray,
    asking: np.ndarray,
    pieces: Any,
    ts_ns: np.ndarray,
    table: np.ndarray,
    notes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """(streams, connections, text, notes, streams above the limit), as http2_rows and http2_notes say.

    Args:
        runs: (data, run_start, run_offset, source) of streams.byte_runs.ByteRuns.
        asking: which of the two streams of each conversation is the client's, 0 or 1.
        pieces: (piece_start, row of the packet with which each piece could be read).
        ts_ns: times of these rows.
        table: of hpack.new_table().
        notes: of http2_notes.new_notes().
    """
    conns = np.full((asking.size, row_of.CONN_FIELDS), -1, np.int64)
    books = (
        np.empty((64, row_of.STREAM_FIELDS), np.int64),
        np.full((256, 2), -1, np.int64),
        np.empty((256, 4), np.int64),
        hpack.new_text(),
        notes,
    )
    counts = np.array([0, 0, STATIC_TEXT.size, 0, 0])
    tools = (
        table,
        np.zeros(hpack.STATE_FIELDS, np.int64),
        np.zeros((2, row_of.STREAM_FIELDS), np.int64),
        np.empty(HEAD_LIMIT_BYTES, np.uint8),
        np.zeros(5, np.int64),
    )
    for flow in range(asking.size):
        conn = conns[flow]
        row_of.clear_connection(conn, flow)
        first, turn = counts[ROWS], 0
        counts[EVENTS] = 0
        for side in range(2):
            s = 2 * flow + (asking[flow] if side == 0 else 1 - asking[flow])
            run_range = (run_bounds[s], run_bounds[s + 1])
            if run_range[0] < run_range[1]:
                books = _read_direction(runs, run_range, pieces, side, conn, books, tools, counts)
            if side == 0:
                turn = counts[EVENTS]
        stalls(books[2][:turn], books[2][turn : counts[EVENTS]], books[0], conn, ts_ns)
        _finish(books[0], first, counts[ROWS])
    noted = books[4][: counts[NOTES]]
    return books[0][: counts[ROWS]], conns, books[3][: counts[TEXT]], noted, counts[DROPPED]
