"""DNS messages in datagrams as columns (RFC 1035 section 4, RFC 6891 for the extended response code)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from stratokit.dissect.layers import i64
from stratokit.protocols.buffers import be16, with_room
from stratokit.protocols.dns_records import (
    NAME_LIMIT_BYTES,
    OPT,
    skip_name,
    write_name,
    write_record,
)

HEADER_BYTES = 12
ANSWERS_LIMIT = 256  # answers of one message that are kept as text
IS_RESPONSE, TRUNCATED = 0x8000, 0x0200
_SURE, _NOT = 1, 2

# A message is a row of these; FLAGS is the second word of the header, MALFORMED where something did not fit.
ID, FLAGS, RCODE, QTYPE, NAME, NAME_SIZE, NAME_HASH, MALFORMED = range(8)
COLUMNS = 8


@njit(nogil=True, cache=True)
def _hash(text: np.ndarray, begin: int, end: int) -> Any:
    """FNV-1a of a name in lower case, for names are compared without case (RFC 4343)."""
    value = np.uint64(0xCBF29CE484222325)
    for k in range(begin, end):
        c = text[k]
        if 65 <= c <= 90:
            c |= 0x20
        value = (value ^ np.uint64(c)) * np.uint64(0x100000001B3)
    return i64(value)


@njit(nogil=True, cache=True)
def _read_records(
    data: np.ndarray, start: int, p: int, end: int, row: np.ndarray, counts: Any, out: np.ndarray, ends: Any
) -> tuple[int, np.ndarray, int]:
    """Walk the records behind the question: (position behind them or -1, buffer, answers kept).

    `ends` is (where each answer's text ends in the buffer, their number so far, the end of the last).
    """
    answers, others = counts
    text_ends, first, n = ends
    kept = 0
    for k in range(answers + others):
        p = skip_name(data, p, end)
        if p < 0 or p + 10 > end:
            return -1, out, kept
        kind, size = be16(data, p), be16(data, p + 8)
        if kind == OPT and k >= answers:
            row[RCODE] |= i64(data[p + 4]) << 4  # the upper eight bits of twelve
        p += 10
        if p + size > end:
            return -1, out, kept
        if k < answers and kept < ANSWERS_LIMIT:
            out, n = write_record(data, start, end, kind, p, size, out, n)
            text_ends[first + kept] = n
            kept += 1
        p += size
    return p, out, kept


@njit(nogil=True, cache=True)
def _read_head(
    data: np.ndarray, start: int, end: int, row: np.ndarray, names: np.ndarray, n: int
) -> tuple[int, int]:
    """Read header and questions; the name goes to names[n:]: (position behind them or -1, new n)."""
    if end - start < HEADER_BYTES:
        return -1, n
    row[ID], row[FLAGS] = be16(data, start), be16(data, start + 2)
    row[RCODE] = row[FLAGS] & 15
    row[QTYPE], row[NAME], row[NAME_SIZE], row[NAME_HASH] = -1, n, -1, 0
    questions = be16(data, start + 4)
    p = start + HEADER_BYTES
    if questions == 0:
        return (p if row[FLAGS] & IS_RESPONSE else -1), n
    p, after = write_name(data, start, p, end, names, n)
    if p < 0 or p + 4 > end:
        return -1, n
    row[QTYPE], row[NAME_SIZE], row[NAME_HASH] = be16(data, p), after - n, _hash(names, n, after)
    p += 4
    for _ in range(questions - 1):
        p = skip_name(data, p, end)
        if p < 0 or p + 4 > end:
            return -1, n
        p += 4
    return p, after


@njit(nogil=True, cache=True)
def _is_surely_dns(data: np.ndarray, start: int, row: np.ndarray, behind: int, question_end: int) -> bool:
    """Whether a message could not well be anything else: it fits to the byte and has no odd value."""
    if row[MALFORMED] or behind < 0 or be16(data, start + 4) != 1 or row[FLAGS] & 0x7840:  # opcode, Z
        return False
    if not row[FLAGS] & IS_RESPONSE and (be16(data, start + 6) or row[FLAGS] & 15):
        return False
    return row[QTYPE] > 0 and be16(data, question_end - 2) in (1, 3, 4, 254, 255)  # RFC 6895 section 3.2


@njit(nogil=True, cache=True)
def read_messages(
    data: np.ndarray, bounds: np.ndarray, flow: np.ndarray, flows: int, known: np.ndarray
) -> Any:
    """Messages among the datagrams data[bounds[i] : bounds[i + 1]].

    Args:
        flow: conversation of each datagram, below `flows`.
        known: where the port says DNS; of other conversations the first datagram must be DNS beyond doubt.

    Returns:
        (messages, their datagrams, text of names, text of answers, ends of the answers in it, and bounds of
        each message's answers).
    """
    verdict = np.zeros(flows, np.uint8)
    rows = np.empty((flow.size, COLUMNS), np.int64)
    source = np.empty(flow.size, np.int64)
    answer_bounds = np.zeros(flow.size + 1, np.int64)
    names, answers = np.empty(1 << 12, np.uint8), np.empty(1 << 12, np.uint8)
    ends = np.empty(1 << 10, np.int64)
    m, named, answered, last_end = 0, i64(0), 0, i64(0)
    for i in range(flow.size):
        if not known[i] and verdict[flow[i]] == _NOT:
            continue
        start, end, row = bounds[i], bounds[i + 1], rows[m]
        names = with_room(names, named, 4 * NAME_LIMIT_BYTES)
        if answered + ANSWERS_LIMIT > ends.size:
            larger = np.empty(2 * ends.size, np.int64)
            for k in range(answered):
                larger[k] = ends[k]
            ends = larger
        question_end, after_name = _read_head(data, start, end, row, names, named)
        kept = 0
        if question_end >= 0:
            counts = (be16(data, start + 6), be16(data, start + 8) + be16(data, start + 10))
            behind, answers, kept = _read_records(
                data, start, question_end, end, row, counts, answers, (ends, answered, last_end)
            )
            row[MALFORMED] = behind != end
        if not known[i] and verdict[flow[i]] == 0:
            sure = question_end >= 0 and _is_surely_dns(data, start, row, behind, question_end)
            verdict[flow[i]] = _SURE if sure else _NOT
        if question_end < 0 or (not known[i] and verdict[flow[i]] == _NOT):
            continue
        source[m] = i
        named = after_name
        answered += kept
        if kept:
            last_end = ends[answered - 1]
        m += 1
        answer_bounds[m] = answered
    return rows[:m], source[:m], names[:named], answers[:last_end], ends[:answered], answer_bounds[: m + 1]
