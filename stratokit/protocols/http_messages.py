"""HTTP/1 messages in byte runs, and which response answers which request: one pass over each conversation.

A message is known by its start line, and its end by RFC 9112 section 6.3. Where bytes are missing, a body of
known length is stepped over; anything else is cut there, and reading goes on at the next start line. What had
to be skipped is counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, routine
from stratokit.protocols.buffers import with_rows
from stratokit.protocols.http_bodies import LOST, skip_body
from stratokit.protocols.http_lines import (
    CR,
    CUT,
    HEAD_FIELDS,
    HEAD_LIMIT_BYTES,
    LF,
    TOO_LONG,
    UPGRADE,
    find_request,
    find_status,
    is_text,
    line_end,
    read_head,
    request_line,
    status_at,
    version_at,
)
from stratokit.streams.byte_runs import fill, fill_lines, piece_at

# A message is a row of these: positions are in the buffer; LAST is that of its last byte that is there.
FLOW, START, LAST, BYTES, BODY_BYTES, VERSION, STATUS, CUT_SHORT, PEER = range(9)
METHOD, TARGET = 9, 11  # each a position, and its size behind it
HEAD = 13  # the fields of http_lines.read_head
COLUMNS = HEAD + HEAD_FIELDS
NO_PEER = -1

_CONNECT = np.frombuffer(b"CONNECT", np.uint8)
_HEAD = np.frombuffer(b"HEAD", np.uint8)


@routine
def _start_line(data: np.ndarray, p: int, end: int, is_request: bool, message: np.ndarray) -> int:
    """Read the start line at p into `message`; the position behind it, `end` where it is cut, or -1."""
    if is_request:
        method_end, target, target_end, feed = request_line(data, p, end)
        if method_end < 0:
            return -1
        message[METHOD], message[METHOD + 1] = p, method_end - p
        message[TARGET], message[TARGET + 1] = target, target_end - target
        message[VERSION] = version_at(data, max(feed - (9 if data[feed - 1] == CR else 8), p), feed)
        return min(feed + 1, end)
    status = status_at(data, p, end)
    if status < 0:
        return -1
    limit = min(end, p + HEAD_LIMIT_BYTES)
    feed = line_end(data, p, limit)
    if feed < 0 and limit < end:
        return -1
    message[STATUS] = status
    message[VERSION] = version_at(data, p, end)
    return feed + 1 if feed >= 0 else end


@routine
def _is_tunnel_request(data: np.ndarray, message: np.ndarray) -> bool:
    """Whether another protocol may follow: CONNECT (RFC 9110 section 9.3.6) or Upgrade (section 7.8)."""
    return message[HEAD + UPGRADE] >= 0 or is_text(data, message[METHOD], message[METHOD + 1], _CONNECT)


@routine
def _is_bodiless(data: np.ndarray, status: int, request: np.ndarray) -> bool:
    """Whether a response has no body whatever its head says."""
    if status < 200 or status in (204, 304) or is_text(data, request[METHOD], request[METHOD + 1], _HEAD):
        return True
    return status < 300 and is_text(data, request[METHOD], request[METHOD + 1], _CONNECT)


@routine
def _place(
    data: np.ndarray, source: Any, p: int, end: int, lost: bool, is_request: bool, search: bool
) -> tuple[int, bool]:
    """Where the next message begins, at or behind p, and whether bytes before it belong to none."""
    if not lost:
        while p < end and data[p] in (CR, LF):  # RFC 9112 section 2.2: empty lines may stand before
            p += 1
        if p == end:
            return p, False
        here = request_line(data, p, end)[0] if is_request else status_at(data, p, end)
        if here >= 0:
            return p, False
    if not search:
        return end, True
    fill(data, source, p, end)
    return (find_request(data, p, end) if is_request else find_status(data, p, end)), True


@routine
def _arrival(arrivals: Any, position: int) -> Any:
    """When the byte at a position of the buffer could be read."""
    piece_start, piece_ts = arrivals
    return piece_ts[piece_at(piece_start, position)]


@routine
def _answered(requests: np.ndarray, first: int, began: int, in_doubt: bool, arrivals: Any) -> int:
    """Which request, from `first` on, is answered by a response that began at that time; or NO_PEER.

    Answers come in the order of the requests (RFC 9112 section 9.3). After missing bytes, which may have been
    answers, it is the last request before.
    """
    if first >= requests.shape[0] or _arrival(arrivals, requests[first, START]) > began:
        return NO_PEER
    if in_doubt:
        while first + 1 < requests.shape[0] and _arrival(arrivals, requests[first + 1, START]) <= began:
            first += 1
    return first


@routine
def _next_head(
    runs: Any, r: int, last_run: int, p: int, lost: bool, search: bool, is_request: bool, message: np.ndarray
) -> tuple[Any, Any, Any, int, bool]:
    """Read the next start line and head into `message`.

    Returns:
        Run, position of the body or CUT, bytes skipped before, whether a message may have been missed before.
        The run is -1 when there are no more messages.
    """
    data, run_start, _, source = runs
    skipped = 0
    doubt = False
    while True:
        end = run_start[r + 1]
        fill_lines(data, source, p, end, True)
        start, astray = _place(data, source, p, end, lost, is_request, search)
        if astray and not search:
            return -1, 0, 0, skipped, doubt
        if astray:
            skipped += start - p
            doubt = True
        if start < end:
            behind = _start_line(data, start, end, is_request, message)
            body = read_head(data, behind, end, message[HEAD:]) if behind >= 0 else TOO_LONG
            if body != TOO_LONG:
                return r, start, body, skipped, doubt
            skipped += end - start
        if r + 1 == last_run:
            return -1, 0, 0, skipped, doubt
        r += 1
        p, lost, doubt = run_start[r], False, True


@routine
def _asked_by(
    runs: Any,
    requests: np.ndarray,
    next_request: int,
    message: np.ndarray,
    place: Any,
    in_doubt: bool,
    arrivals: Any,
) -> tuple[int, bool]:
    """(the request that a response answers, whether it has no body)."""
    data, run_start, _, source = runs
    r, start, body = place
    peer = _answered(requests, next_request, _arrival(arrivals, start), in_doubt, arrivals)
    if peer != NO_PEER:
        return peer, _is_bodiless(data, message[STATUS], requests[peer])
    # An unseen request may have been HEAD: then the next response follows at once.
    if body != CUT:
        fill_lines(data, source, body, run_start[r + 1], False)
    follows = body != CUT and status_at(data, body, run_start[r + 1]) >= 0
    return peer, follows or message[STATUS] < 200 or message[STATUS] in (204, 304)


@routine
def _read_stream(
    runs: Any, run_range: Any, requests: np.ndarray, is_request: bool, arrivals: Any, rows: np.ndarray, n: int
) -> tuple[np.ndarray, int, int]:
    """Append the messages of one stream to `rows`: (rows, their number, bytes skipped).

    For a stream of responses, `requests` are those of the same conversation; PEER counts among them.
    """
    data, run_start, _, _ = runs
    r, last_run = run_range
    p = run_start[r]
    lost, in_doubt, other_protocol, bodiless = False, False, False, False
    next_request, skipped = 0, 0
    while True:
        rows = with_rows(rows, n, 1)
        message = rows[n]
        for k in range(COLUMNS):
            message[k] = -1
        r, start, body, astray, doubt = _next_head(
            runs, r, last_run, p, lost, not other_protocol, is_request, message
        )
        skipped += astray
        if r < 0:
            return rows, n, skipped
        peer = NO_PEER
        if not is_request:
            place = (r, start, body)
            peer, bodiless = _asked_by(
                runs, requests, next_request, message, place, in_doubt or doubt, arrivals
            )
        message[START], message[PEER] = start, peer
        if body == CUT:
            p, lost = run_start[r + 1], False
            message[BYTES], message[CUT_SHORT] = p - start, 1
        else:
            r, p, came_to, whole, size, span = skip_body(
                runs, r, last_run, body, message[HEAD:], bodiless, is_request
            )
            lost = came_to == LOST
            message[BODY_BYTES], message[CUT_SHORT] = size, not whole
            message[BYTES] = body - start + span
        message[LAST] = p - 1
        status = message[STATUS]
        if is_request:
            other_protocol = _is_tunnel_request(data, message)
        elif status < 200 and status != 101:
            continue  # interim: the answer is still to come (RFC 9110 section 15.2)
        elif peer != NO_PEER:
            next_request = peer + 1
            method = requests[peer, METHOD]
            is_connect = is_text(data, method, requests[peer, METHOD + 1], _CONNECT)
            other_protocol = status == 101 or (is_connect and status < 300)
        in_doubt = lost
        n += 1


@kernel
def read_conversations(
    runs: Any, run_bounds: np.ndarray, asking: np.ndarray, arrivals: Any
) -> tuple[np.ndarray, np.ndarray, int]:
    """(requests, responses, bytes skipped) of all conversations in the runs; PEER is an index of requests.

    Args:
        runs: (data, run_start, run_offset, source) of streams.byte_runs.ByteRuns.
        asking: which of the two streams of each conversation has the requests, 0 or 1.
        arrivals: (piece_start, when each piece could be read).
    """
    requests = np.empty((64, COLUMNS), np.int64)
    responses = np.empty((64, COLUMNS), np.int64)
    asked, answered, skipped = 0, 0, i64(0)
    for flow in range(asking.size):
        first_request, first_response = asked, answered
        for turn in range(2):
            # Not True and False: numba would compile everything below once for each.
            is_request = turn == 0
            s = 2 * flow + (asking[flow] if is_request else 1 - asking[flow])
            stream = (run_bounds[s], run_bounds[s + 1])
            if stream[0] == stream[1]:
                continue
            mine = requests[first_request:asked]
            rows, n = (requests, asked) if is_request else (responses, answered)
            rows, n, lost = _read_stream(runs, stream, mine, is_request, arrivals, rows, n)
            skipped += lost
            if is_request:
                requests, asked = rows, n
            else:
                responses, answered = rows, n
        for i in range(first_request, asked):
            requests[i, FLOW] = flow
        for i in range(first_response, answered):
            responses[i, FLOW] = flow
            if responses[i, PEER] != NO_PEER:
                responses[i, PEER] += first_request
    return requests[:asked], responses[:answered], skipped
