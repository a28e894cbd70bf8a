"""DNS messages as columns (RFC 1035 section 4; RFC 6891 for EDNS, RFC 8914 for extended errors).

Bounds: of a message at most QUESTIONS_LIMIT questions and RECORDS_LIMIT records are kept, and of these no
more text than TEXT_BASE_BYTES and TEXT_TIMES the message's size. What is left out is counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, routine
from stratokit.protocols.buffers import be16, with_room
from stratokit.protocols.dns_rdata import be32, write_type
from stratokit.protocols.dns_records import OPT, write_record
from stratokit.protocols.dns_text import NAME_LIMIT_BYTES, skip_name, write_name

HEADER_BYTES = 12
QUESTIONS_LIMIT = 32
RECORDS_LIMIT = 256
TEXT_BASE_BYTES, TEXT_TIMES = 1 << 12, 16
IS_RESPONSE, AUTHORITATIVE, TRUNCATED = 0x8000, 0x0400, 0x0200
_SURE, _NOT = 1, 2
_EXTENDED_ERROR = 15  # option code, RFC 8914 section 2

# A message's question is a row of these; of further questions of the same message FIRST is 0. FLAGS is the
# second word of the header, ANSWERS how many answers it announces. SHORT: bytes are missing at the end, or do
# not fit.
ID, FLAGS, RCODE, QTYPE, QCLASS, NAME, NAME_SIZE, NAME_HASH, FIRST, SHORT, TTL = range(11)
EDNS_SIZE, EDNS_FLAGS, EDE, EDE_TEXT, EDE_TEXT_SIZE, MESSAGE, RECORDS, ANSWERS = range(11, 19)
COLUMNS = 19
# A record: section (0 answers, 1 authority, 2 additional), type, end of its text, hash of its owner's name.
SECTION, KIND, TEXT_END, OWNER_HASH = range(4)
RECORD_COLUMNS = 4


@routine
def _hash(text: np.ndarray, begin: int, end: int) -> Any:
    """FNV-1a of a name in lower case, for names are compared without case (RFC 4343)."""
    value = np.uint64(0xCBF29CE484222325)
    for k in range(begin, end):
        c = text[k]
        if 65 <= c <= 90:
            c |= 0x20
        value = (value ^ np.uint64(c)) * np.uint64(0x100000001B3)
    return i64(value)


@routine
def grown(rows: np.ndarray, n: int) -> np.ndarray:
    """`rows`, or a copy at least twice as long where there is no row n."""
    if n < rows.shape[0]:
        return rows
    larger = np.empty((max(2 * rows.shape[0], n + 1), rows.shape[1]), rows.dtype)
    for i in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            larger[i, k] = rows[i, k]
    return larger


@routine
def _read_options(data: np.ndarray, p: int, end: int, row: np.ndarray) -> None:
    """The first extended error among EDNS options."""
    while p + 4 <= end:
        size = be16(data, p + 2)
        if be16(data, p) == _EXTENDED_ERROR and 2 <= size <= end - p - 4:
            row[EDE], row[EDE_TEXT], row[EDE_TEXT_SIZE] = be16(data, p + 4), p + 6, size - 2
            return
        p += 4 + size


@routine
def _read_records(
    data: np.ndarray,
    start: int,
    p: int,
    end: int,
    row: np.ndarray,
    records: np.ndarray,
    out: np.ndarray,
    at: Any,
) -> tuple[int, np.ndarray, np.ndarray, int, int, int]:
    """Walk the records behind the questions.

    `at` is (number of records so far, end of their text, whether answers are known by their owners, as those
    of multicast are). Returns (position behind the last or -1, records, text, both numbers anew, records left
    out).
    """
    count, n, multicast = at
    first, room, left_out = count, n + TEXT_BASE_BYTES + TEXT_TIMES * (end - start), 0
    counts = (be16(data, start + 6), be16(data, start + 8), be16(data, start + 10))
    total = counts[0] + counts[1] + counts[2]
    named = n
    for k in range(total):
        owner = p
        p = skip_name(data, p, end)
        if p < 0 or p + 10 > end:
            return -1, records, out, count, n, left_out
        kind, size, ttl = be16(data, p), be16(data, p + 8), be32(data, p + 4)
        section = 0 if k < counts[0] else 1 if k < counts[0] + counts[1] else 2
        begin = p + 10
        if kind == OPT and section == 2:
            row[RCODE] |= (ttl >> 24) << 4  # the upper eight bits of twelve
            row[EDNS_SIZE], row[EDNS_FLAGS] = be16(data, p + 2), ttl & 0xFFFF
        p = begin + size
        if p > end:
            return -1, records, out, count, n, left_out
        if kind == OPT and section == 2:
            _read_options(data, begin, p, row)
            continue
        if section == 0:
            row[TTL] = ttl if row[TTL] < 0 else min(row[TTL], ttl)
        if count - first >= RECORDS_LIMIT or n >= room:
            left_out += 1
            continue
        records = grown(records, count)
        record = records[count]
        record[OWNER_HASH] = 0
        if section or multicast:
            out = with_room(out, n, 8 * NAME_LIMIT_BYTES)
            behind, named = write_name(data, start, owner, end, out, n)
            record[OWNER_HASH] = _hash(out, n, named) if behind >= 0 else 0
        if section:
            # The other sections speak of other names than the question's: name, type and data.
            n = named
            out[n] = 32
            n = write_type(kind, out, n + 1)
            out[n] = 32
            n += 1
        out, n = write_record(data, start, end, kind, begin, size, out, n)
        record[SECTION], record[KIND], record[TEXT_END] = section, kind, n
        count += 1
    return p, records, out, count, n, left_out


@routine
def _read_question(
    data: np.ndarray, start: int, p: int, end: int, row: np.ndarray, names: np.ndarray, n: int
) -> tuple[int, int]:
    """Read the question at p; the name goes to names[n:]: (position behind it or -1, new n)."""
    p, after = write_name(data, start, p, end, names, n)
    if p < 0 or p + 4 > end:
        return -1, n
    row[NAME], row[NAME_SIZE], row[NAME_HASH] = n, after - n, _hash(names, n, after)
    row[QTYPE], row[QCLASS] = be16(data, p), be16(data, p + 2)
    return p + 4, after


@routine
def _begin_row(data: np.ndarray, start: int, row: np.ndarray, i: int, names_end: int) -> None:
    row[ID], row[FLAGS], row[MESSAGE] = be16(data, start), be16(data, start + 2), i
    row[RCODE], row[FIRST], row[SHORT], row[ANSWERS] = row[FLAGS] & 15, 1, 0, be16(data, start + 6)
    row[NAME], row[NAME_SIZE], row[NAME_HASH] = names_end, -1, 0
    for column in (QTYPE, QCLASS, TTL, EDNS_SIZE, EDNS_FLAGS, EDE, EDE_TEXT_SIZE):
        row[column] = -1
    row[EDE_TEXT] = 0


@routine
def _is_surely_dns(data: np.ndarray, start: int, row: np.ndarray, question_end: int) -> bool:
    """Whether a message could not well be anything else: it fits to the byte and has no odd value."""
    if row[SHORT] or be16(data, start + 4) != 1 or row[FLAGS] & 0x7840:  # opcode, Z
        return False
    if not row[FLAGS] & IS_RESPONSE and (be16(data, start + 6) or row[FLAGS] & 15):
        return False
    return row[QTYPE] > 0 and be16(data, question_end - 2) in (1, 3, 4, 254, 255)  # RFC 6895 section 3.2


@routine
def is_message(data: np.ndarray, start: int, end: int) -> bool:
    """Whether data[start:end] is a DNS message beyond doubt."""
    if end - start < HEADER_BYTES + 5 or be16(data, start + 4) != 1:
        return False
    names, texts = np.empty(4 * NAME_LIMIT_BYTES, np.uint8), np.empty(1 << 12, np.uint8)
    row, records = np.empty(COLUMNS, np.int64), np.empty((16, RECORD_COLUMNS), np.int64)
    _begin_row(data, start, row, 0, 0)
    p, _ = _read_question(data, start, start + HEADER_BYTES, end, row, names, 0)
    if p < 0:
        return False
    behind = _read_records(data, start, p, end, row, records, texts, (0, i64(0), False))[0]
    row[SHORT] = behind != end
    return _is_surely_dns(data, start, row, p)


@routine
def _read_questions(
    data: np.ndarray, message: Any, rows: np.ndarray, m: int, names: np.ndarray, named: int
) -> tuple[int, int, int, int, int]:
    """Read questions to rows[m:]; `message` is (number, start, end).

    Returns (position behind the first or -1, behind the last or -1, end of names, rows, questions left out).
    """
    i, start, end = message
    budget = TEXT_BASE_BYTES + TEXT_TIMES * (end - start)
    _begin_row(data, start, rows[m], i, named)
    questions, after, p = be16(data, start + 4), named, start + HEADER_BYTES
    if questions:
        p, after = _read_question(data, start, p, end, rows[m], names, named)
    elif not rows[m, FLAGS] & IS_RESPONSE and be16(data, start + 6) == 0:
        p = -1  # of queries only inverse ones ask by an answer instead (RFC 1035 section 6.4)
    first_end, more, left_out = p, 1, 0
    for _ in range(1, questions):
        if p < 0:
            break
        behind = -1
        if not left_out and more < QUESTIONS_LIMIT and after - named <= budget:
            _begin_row(data, start, rows[m + more], i, after)
            behind, after = _read_question(data, start, p, end, rows[m + more], names, after)
            rows[m + more, FIRST], rows[m + more, ANSWERS] = 0, -1
        if behind >= 0:
            more += 1
        else:  # too many, or a name that is none: what follows can be read all the same
            behind = skip_name(data, p, end)
            behind = behind + 4 if 0 <= behind <= end - 4 else -1
            left_out += 1
        p = behind
    return first_end, p, after, more, left_out


@kernel
def read_messages(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    flow: np.ndarray,
    verdict: np.ndarray,
    known: np.ndarray,
    multicast: np.ndarray,
) -> Any:
    """Messages data[starts[i] : ends[i]].

    Args:
        flow: conversation of each.
        verdict: of each conversation, zeros before its first message; for the messages that follow.
        known: where the port says DNS; of other conversations the first datagram must be DNS beyond doubt.
        multicast: where answers are found by the names of their records.

    Returns:
        (questions, text of names, records, their text, counts). The records of question row k are those from
        its RECORDS on, up to the next row's; counts are of messages on known ports that could not be read,
        and of questions and records left out.
    """
    rows = np.empty((flow.size + 1, COLUMNS), np.int64)
    records = np.empty((flow.size + 16, RECORD_COLUMNS), np.int64)
    names, texts = np.empty(1 << 12, np.uint8), np.empty(1 << 12, np.uint8)
    counts = np.zeros(3, np.int64)
    m, named, count, text_end = 0, i64(0), 0, i64(0)
    for i in range(flow.size):
        start, end = starts[i], ends[i]
        doubted = not known[i]
        if doubted and verdict[flow[i]] == _NOT:
            continue
        if end - start < HEADER_BYTES:
            counts[0] += known[i]
            continue
        rows = grown(rows, m + QUESTIONS_LIMIT)
        names = with_room(names, named, 4 * NAME_LIMIT_BYTES * QUESTIONS_LIMIT)
        row = rows[m]
        question_end, p, after, more, unasked = _read_questions(data, (i, start, end), rows, m, names, named)
        if question_end < 0:
            counts[0] += known[i]
            verdict[flow[i]] = verdict[flow[i]] or _NOT
            continue
        behind, left_out, kept, written = i64(-1), 0, count, text_end
        if p >= 0:
            behind, records, texts, kept, written, left_out = _read_records(
                data, start, p, end, row, records, texts, (count, text_end, multicast[i])
            )
        row[SHORT] = behind != end
        if row[SHORT] and be16(data, start + 4) == 0 and not row[FLAGS] & IS_RESPONSE:
            counts[0] += known[i]
            verdict[flow[i]] = verdict[flow[i]] or _NOT
            continue
        if doubted and verdict[flow[i]] == 0 and _is_surely_dns(data, start, row, question_end):
            verdict[flow[i]] = _SURE
        if doubted and verdict[flow[i]] != _SURE:
            verdict[flow[i]] = _NOT
            continue
        row[RECORDS] = count
        for q in range(1, more):
            rows[m + q, RECORDS] = kept
        counts[1] += unasked
        counts[2] += left_out
        m, named, count, text_end = m + more, after, kept, written
    return rows[:m], names[:named], records[:count], texts[:text_end], counts
