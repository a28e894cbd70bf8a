"""Flow control of HTTP/2 (RFC 9113 section 5.2): for how long a side had to wait before it could send more.

A side stands still when its DATA used up a window to the last byte, its stream's or the connection's, until
the peer opened it again; it counts when DATA follows. What was sent before the first byte that was captured
is not known, so a connection without its beginning has no such times.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.kernels import routine
from stratokit.protocols import http2_rows as row_of

DEFAULT_WINDOW_BYTES = 65535
_BY_STREAM, _BY_CONNECTION = 1, 2


@routine
def _sent(part: np.ndarray, whole: np.ndarray, initial: int, now: int, amount: int) -> None:
    """DATA of a stream: end its stall if it had one, use up the windows, begin one where they are empty."""
    if part[row_of.BLOCKED_TS] >= 0:
        opened = part[row_of.BLOCKED_TS]
        if part[row_of.BLOCKED_BY] & _BY_STREAM:
            opened = max(opened, part[row_of.OPENED_TS])
        if part[row_of.BLOCKED_BY] & _BY_CONNECTION:
            opened = max(opened, whole[1])
        part[row_of.STALL_NS] += opened - part[row_of.BLOCKED_TS]
        part[row_of.BLOCKED_TS] = -1
    whole[3] += whole[4]
    whole[4] = 0
    part[row_of.WINDOW] -= amount
    whole[0] -= amount
    by = (_BY_STREAM if initial + part[row_of.WINDOW] <= 0 else 0) | (_BY_CONNECTION if whole[0] <= 0 else 0)
    if by and amount:
        part[row_of.BLOCKED_TS], part[row_of.BLOCKED_BY] = now, by
    if by & _BY_CONNECTION and whole[2] < 0:
        whole[2] = now


@routine
def stalls(asked: np.ndarray, answered: np.ndarray, rows: np.ndarray, conn: np.ndarray, ts_ns: Any) -> None:
    """Fill STALL_NS of streams and CONN_STALL_NS of both sides from the events of the two directions."""
    # Per sending side: the connection's window; when it was opened and since when it is empty; the sum of
    # stalls; one that counts when DATA follows.
    wholes = np.zeros((2, 5), np.int64)
    wholes[:, 0] = DEFAULT_WINDOW_BYTES
    wholes[:, 2] = -1
    initial = np.full(2, DEFAULT_WINDOW_BYTES, np.int64)
    i, k = 0, 0
    while i < asked.shape[0] or k < answered.shape[0]:
        side = 1
        if k >= answered.shape[0] or (
            i < asked.shape[0] and asked[i, row_of.ORDER] <= answered[k, row_of.ORDER]
        ):
            side = 0
        event = asked[i] if side == 0 else answered[k]
        i, k = (i + 1, k) if side == 0 else (i, k + 1)
        now, at, amount = ts_ns[event[row_of.ORDER]], event[row_of.ROW], event[row_of.AMOUNT]
        # What is sent is the side's own; what is opened is the peer's to send.
        sender = side if event[row_of.KIND] == row_of.SENT else 1 - side
        whole = wholes[sender]
        begin = sender * row_of.SIDE_FIELDS
        if event[row_of.KIND] == row_of.SENT:
            if at >= 0:
                part = rows[at, begin : begin + row_of.SIDE_FIELDS]
                _sent(part, whole, initial[sender], now, amount)
            else:
                whole[0] -= amount
        elif event[row_of.KIND] == row_of.INITIAL:
            initial[sender] = amount
        elif at >= 0:
            part = rows[at, begin : begin + row_of.SIDE_FIELDS]
            empty = initial[sender] + part[row_of.WINDOW] <= 0
            part[row_of.WINDOW] += amount
            if empty and initial[sender] + part[row_of.WINDOW] > 0:
                part[row_of.OPENED_TS] = now
        else:
            whole[0] += amount
            if whole[2] >= 0 and whole[0] > 0:
                whole[1], whole[4] = now, now - whole[2]
                whole[2] = -1
    for side in range(2):
        conn[side * row_of.CONN_SIDE_FIELDS + row_of.CONN_STALL_NS] = wholes[side, 3]
