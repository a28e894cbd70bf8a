"""What is kept of an HTTP/2 connection while it is read: a row a stream, one a connection, window events."""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import routine
from stratokit.protocols.text import same

# --- a stream ---------------------------------------------------------------------------------------
# Per side (0 asks, 1 answers) SIDE_FIELDS values; positions are in the buffer, LAST is that of a last byte.
START, LAST, BYTES, BODY, CUT, ENDED = range(6)
LEFT, HAVE, PREFIX, MESSAGES, MESSAGE_BYTES = range(6, 11)  # gRPC messages (see http2_streams)
WINDOW, BLOCKED_TS, BLOCKED_BY, OPENED_TS, STALL_NS = range(11, 16)
SIDE_FIELDS = 16
FLOW, STREAM, STATUS, RESET_CODE, RESET_SIDE, UNKNOWN, PUSHED = range(2 * SIDE_FIELDS, 2 * SIDE_FIELDS + 7)
# Texts: a place in the text buffer, and a size behind it, -1 for none.
TEXTS = 2 * SIDE_FIELDS + 7
METHOD, PATH, AUTHORITY, HOST, AGENT, ASKED_TYPE, TIMEOUT, TYPE, ENCODING, GRPC_STATUS, GRPC_MESSAGE = range(
    TEXTS, TEXTS + 22, 2
)
STREAM_FIELDS = TEXTS + 22

# --- a connection -----------------------------------------------------------------------------------
FRAMES, PINGS, GOAWAY_CODE, GOAWAY_LAST, GOAWAY_AT, MAX_STREAMS, KNOWN, FIRST, CONN_STALL_NS = range(9)
CONN_SIDE_FIELDS = 9
SKIPPED, UNREAD_BLOCKS, NUMBER = range(2 * CONN_SIDE_FIELDS, 2 * CONN_SIDE_FIELDS + 3)
CONN_FIELDS = 2 * CONN_SIDE_FIELDS + 3

# --- an event that moves a window (section 5.2) ------------------------------------------------------
ORDER, KIND, ROW, AMOUNT = range(4)
SENT, OPENED, INITIAL = range(3)
WHOLE_CONNECTION = -1


def _name(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


_METHOD, _PATH, _STATUS, _AUTHORITY = (
    _name(b":method"),
    _name(b":path"),
    _name(b":status"),
    _name(b":authority"),
)
_HOST, _AGENT, _TYPE, _ENCODING = (
    _name(b"host"),
    _name(b"user-agent"),
    _name(b"content-type"),
    _name(b"content-encoding"),
)
_GRPC_STATUS, _GRPC_MESSAGE, _TIMEOUT = _name(b"grpc-status"), _name(b"grpc-message"), _name(b"grpc-timeout")
_GRPC = _name(b"application/grpc")


@routine
def column_of(text: np.ndarray, start: int, size: int, side: int) -> int:
    """The column of a stream's row that a field of this name goes to, or -1; STATUS holds a number."""
    if side == 0:
        if size == 7 and same(text, start, _METHOD):
            return METHOD
        if size == 5 and same(text, start, _PATH):
            return PATH
        if size == 10 and same(text, start, _AUTHORITY):
            return AUTHORITY
        if size == 10 and same(text, start, _AGENT):
            return AGENT
        if size == 4 and same(text, start, _HOST):
            return HOST
        if size == 12 and same(text, start, _TYPE):
            return ASKED_TYPE
        return TIMEOUT if size == 12 and same(text, start, _TIMEOUT) else -1
    if size == 7 and same(text, start, _STATUS):
        return STATUS
    if size == 12 and same(text, start, _TYPE):
        return TYPE
    if size == 16 and same(text, start, _ENCODING):
        return ENCODING
    if size == 11 and same(text, start, _GRPC_STATUS):
        return GRPC_STATUS
    return GRPC_MESSAGE if size == 12 and same(text, start, _GRPC_MESSAGE) else -1


@routine
def is_grpc(text: np.ndarray, row: np.ndarray) -> bool:
    """Whether either side says that the bodies are gRPC messages."""
    for column in (ASKED_TYPE, TYPE):
        if row[column + 1] >= _GRPC.size and same(text, row[column], _GRPC):
            return True
    return False


@routine
def number(text: np.ndarray, start: int, size: int) -> Any:
    """A status code, or -1."""
    value = i64(0)
    if size != 3:
        return i64(-1)
    for i in range(start, start + size):
        if not 48 <= text[i] <= 57:
            return i64(-1)
        value = value * 10 + text[i] - 48
    return value


@routine
def clear(row: np.ndarray, flow: int, stream: int) -> None:
    """A stream of which nothing is known."""
    for k in range(STREAM_FIELDS):
        row[k] = -1
    row[FLOW], row[STREAM], row[UNKNOWN], row[PUSHED] = flow, stream, 0, 0
    for side in range(2):
        at = side * SIDE_FIELDS
        for k in (BYTES, BODY, CUT, ENDED, LEFT, HAVE, PREFIX, MESSAGES, MESSAGE_BYTES, WINDOW, STALL_NS):
            row[at + k] = 0


@routine
def clear_connection(conn: np.ndarray, flow: int) -> None:
    """A connection of which nothing was read."""
    conn[SKIPPED], conn[UNREAD_BLOCKS], conn[NUMBER] = 0, 0, flow
    for side in range(2):
        at = side * CONN_SIDE_FIELDS
        for k in (FRAMES, PINGS, KNOWN, CONN_STALL_NS):
            conn[at + k] = 0


# --- streams by number: open addressing ---------------------------------------------------------------


@routine
def slot_of(index: np.ndarray, flow: int, stream: int) -> Any:
    """The slot of a stream in `index`, a power of two of (key, row): its own, or the free one for it."""
    mask = index.shape[0] - 1
    key = i64(flow) << 31 | i64(stream)
    at = (key * 0x9E3779B1 >> 7) & mask
    while index[at, 0] != -1 and index[at, 0] != key:
        at = (at + 1) & mask
    return at


@routine
def new_index(rows: np.ndarray, count: int, size: int) -> np.ndarray:
    """An index of at least twice as many slots as `size`."""
    slots = 64
    while slots < 2 * size:
        slots *= 2
    index = np.full((slots, 2), -1, np.int64)
    for i in range(count):
        at = slot_of(index, rows[i, FLOW], rows[i, STREAM])
        index[at, 0] = i64(rows[i, FLOW]) << 31 | i64(rows[i, STREAM])
        index[at, 1] = i
    return index
