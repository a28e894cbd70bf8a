"""The lines of an HTTP/1 message as kernels: start line, fields that matter, chunk sizes (RFC 9112).

All read a buffer from `p` up to `end` and never beyond. What they return are positions in the buffer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import routine

LF, CR, SP, TAB, COLON, SLASH = 10, 13, 32, 9, 58, 47

# A head longer than this is taken for something else (servers refuse from 8 KiB on; the largest limit in
# common use is 1 MiB, for cookies gone wrong). A chunk-size line needs 16 digits and an extension.
HEAD_LIMIT_BYTES = 1 << 20
CHUNK_LINE_LIMIT_BYTES = 4096

# What a head says; positions and sizes of texts are -1 where it does not say.
HOST, AGENT, TYPE, ENCODING, UPGRADE = 0, 2, 4, 6, 8  # each a position, and its size behind it
LENGTH, CHUNKED = 10, 11
HEAD_FIELDS = 12
NO_LENGTH, BAD_LENGTH = -1, -2

CUT, TOO_LONG = -1, -2  # instead of the end of a head

_HTTP1 = np.frombuffer(b"HTTP/1.", np.uint8)
_METHODS = np.frombuffer(
    b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK "
    b"REPORT SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE MKCALENDAR PURGE ",
    np.uint8,
)
_HOST = np.frombuffer(b"host", np.uint8)
_AGENT = np.frombuffer(b"user-agent", np.uint8)
_TYPE = np.frombuffer(b"content-type", np.uint8)
_LENGTH = np.frombuffer(b"content-length", np.uint8)
_ENCODING = np.frombuffer(b"content-encoding", np.uint8)
_CODING = np.frombuffer(b"transfer-encoding", np.uint8)
_UPGRADE = np.frombuffer(b"upgrade", np.uint8)
_CHUNKED = np.frombuffer(b"chunked", np.uint8)


@routine
def line_end(data: np.ndarray, p: int, end: int) -> int:
    """Where the line feed stands, or -1."""
    for i in range(p, end):
        if data[i] == LF:
            return i
    return -1


@routine
def _begins(data: np.ndarray, p: int, end: int, text: np.ndarray) -> bool:
    """Whether `text`, in lower case where the case does not matter, stands at p."""
    if p + text.size > end:
        return False
    k = 0
    while k < text.size and (data[p + k] == text[k] or (data[p + k] | 0x20) == text[k]):
        k += 1
    return k == text.size


@routine
def is_text(data: np.ndarray, start: int, size: int, text: np.ndarray) -> bool:
    """Whether exactly `text`, in that case, stands at `start`."""
    k = 0
    while k < size and k < text.size and data[start + k] == text[k]:
        k += 1
    return k == size == text.size


@routine
def version_at(data: np.ndarray, p: int, end: int) -> Any:
    """The digit behind "HTTP/1." at p, or -1."""
    if p + 8 > end or not _begins(data, p, end, _HTTP1) or not 48 <= data[p + 7] <= 57:
        return -1
    return i64(data[p + 7]) - 48


@routine
def status_at(data: np.ndarray, p: int, end: int) -> int:
    """The code of a status line "HTTP/1.x code" that begins at p, or -1 (RFC 9112 section 4)."""
    if version_at(data, p, end) < 0:
        return -1
    p += 8
    if p >= end or data[p] != SP:
        return -1
    while p < end and data[p] == SP:
        p += 1
    if p + 3 > end or (p + 3 < end and data[p + 3] not in (SP, CR, LF)):
        return -1
    code = 0
    for k in range(3):
        if not 48 <= data[p + k] <= 57:
            return -1
        code = code * 10 + data[p + k] - 48
    return code if code >= 100 else -1


@routine
def _is_method_byte(c: int) -> bool:
    return 65 <= c <= 90 or c in (45, 95)  # capital letters, "-", "_"


@routine
def known_method(data: np.ndarray, p: int, end: int) -> int:
    """Size of the well-known method with a space behind it that begins at p, or 0."""
    k = 0
    while k < _METHODS.size:
        i = p
        while i < end and _METHODS[k] != SP and data[i] == _METHODS[k]:
            i += 1
            k += 1
        if _METHODS[k] == SP and i > p and i < end and data[i] == SP:
            return i - p
        while _METHODS[k] != SP:
            k += 1
        k += 1
    return 0


@routine
def _cut_request_line(data: np.ndarray, p: int, space: int, end: int) -> tuple[int, int, int, int]:
    """As `request_line`, of one whose line feed is missing; of a target that is cut the size is -1."""
    target = space + 1
    if target >= end or data[target] != SLASH or not known_method(data, p, end):
        return -1, 0, 0, 0
    stop = target
    while stop < end and data[stop] != SP:
        stop += 1
    k = 0
    while k < _HTTP1.size and stop + 1 + k < end and data[stop + 1 + k] == _HTTP1[k]:
        k += 1
    is_whole = stop < end and (k == _HTTP1.size or stop + 1 + k == end)
    return space, target, (stop if is_whole else target - 1), end


@routine
def request_line(data: np.ndarray, p: int, end: int) -> tuple[int, int, int, int]:
    """(end of method, start of target, end of target, line feed) of a request line at p (RFC 9112 section 3).

    The first is -1 where no request line begins at p. A target may hold spaces, and the version may be
    missing behind a well-known method and a path, as careless clients send. Where such a line is cut, its end
    stands for the line feed.
    """
    i = p
    while i < end and i - p < 32 and _is_method_byte(data[i]):
        i += 1
    if i == p or i >= end or data[i] != SP:
        return -1, 0, 0, 0
    feed = line_end(data, i, min(end, p + HEAD_LIMIT_BYTES))
    if feed < 0:
        return _cut_request_line(data, p, i, end) if end - p < HEAD_LIMIT_BYTES else (-1, 0, 0, 0)
    last = feed - 1 if data[feed - 1] == CR else feed
    while last > i and data[last - 1] == SP:
        last -= 1
    version = last - 8
    if version <= i or data[version - 1] != SP or version_at(data, version, last) < 0:
        if known_method(data, p, end) and data[i + 1] == SLASH:
            return i, i + 1, last, feed
        return -1, 0, 0, 0
    target = i
    while target < version and data[target] == SP:
        target += 1
    stop = version - 1
    while stop > target and data[stop - 1] == SP:
        stop -= 1
    return (i, target, stop, feed) if target < stop else (-1, 0, 0, 0)


@routine
def find_request(data: np.ndarray, p: int, end: int) -> int:
    """Where the next request line begins, or `end`; each line is looked at once."""
    while p < end:
        feed = line_end(data, p, end)
        if feed < 0:
            return end
        last = feed - 1 if feed > p and data[feed - 1] == CR else feed
        version = last - 8
        if version > p + 1 and data[version - 1] == SP and version_at(data, version, last) >= 0:
            start = version - 1
            while start > p and data[start - 1] == SP:
                start -= 1
            while start > p and data[start - 1] != SP:  # the target
                start -= 1
            while start > p and data[start - 1] == SP:
                start -= 1
            token = start
            while start > p and _is_method_byte(data[start - 1]) and token - start < 32:
                start -= 1
            # the end of a body may stand before the method, in capitals
            for i in range(start, token):
                if known_method(data, i, end) == token - i:
                    return i
            if start < token and (start == p or data[start - 1] <= SP):
                return start
        p = feed + 1
    return end


@routine
def find_status(data: np.ndarray, p: int, end: int) -> int:
    """Where the next status line begins, or `end`."""
    for i in range(p, end - 11):
        if data[i] == 72 and status_at(data, i, end) >= 0:
            return i
    return end


@routine
def _number(data: np.ndarray, p: int, end: int) -> Any:
    """Decimal number; a list of them counts by its first (RFC 9112 section 6.3)."""
    value = i64(0)
    i = p
    while i < end and 48 <= data[i] <= 57:
        if value > 1 << 58:
            return BAD_LENGTH
        value = value * 10 + data[i] - 48
        i += 1
    if i == p or (i < end and data[i] not in (44, SP, TAB)):
        return BAD_LENGTH
    return value


@routine
def _text_field(data: np.ndarray, p: int, colon: int) -> int:
    """Which text of `head` the field name p..colon is for, or -1."""
    size = colon - p
    if size == 4 and _begins(data, p, colon, _HOST):
        return HOST
    if size == 10 and _begins(data, p, colon, _AGENT):
        return AGENT
    if size == 12 and _begins(data, p, colon, _TYPE):
        return TYPE
    if size == 16 and _begins(data, p, colon, _ENCODING):
        return ENCODING
    return UPGRADE if size == 7 and _begins(data, p, colon, _UPGRADE) else -1


@routine
def _field(data: np.ndarray, p: int, colon: int, value: int, end: int, head: np.ndarray) -> int:
    """Keep what the field line p..colon: value..end says, if it matters; which text it was, or -1."""
    size = colon - p
    text = _text_field(data, p, colon)
    if text == HOST and head[HOST] >= 0:
        return -1
    if text >= 0:
        head[text], head[text + 1] = value, end - value
    elif size == 14 and _begins(data, p, colon, _LENGTH):
        head[LENGTH] = _number(data, value, end)
    elif size == 17 and _begins(data, p, colon, _CODING):
        # chunked is the last coding, or the body ends with the connection
        head[CHUNKED] = 1 if end - value >= 7 and _begins(data, end - 7, end, _CHUNKED) else 2
    return text


@routine
def read_head(data: np.ndarray, p: int, end: int, head: np.ndarray) -> int:
    """Read field lines from p (RFC 9112 section 5); the position behind the empty line, or CUT, TOO_LONG."""
    for k in range(HEAD_FIELDS):
        head[k] = -1
    limit = min(end, p + HEAD_LIMIT_BYTES)
    text = -1
    while True:
        feed = line_end(data, p, limit)
        if feed < 0:
            return CUT if limit == end else TOO_LONG
        last = feed - 1 if feed > p and data[feed - 1] == CR else feed
        if last == p:
            return feed + 1
        colon = p
        while colon < last and data[colon] != COLON:
            colon += 1
        while last > p and data[last - 1] in (SP, TAB):
            last -= 1
        if data[p] in (SP, TAB):  # it continues the value before (obs-fold, RFC 9112 section 5.2)
            if text >= 0 and last > p:
                head[text + 1] = last - head[text]
        elif colon < last:
            value = colon + 1
            while value < last and data[value] in (SP, TAB):
                value += 1
            while colon > p and data[colon - 1] in (SP, TAB):
                colon -= 1
            text = _field(data, p, colon, value, last, head)
        else:
            text = -1
        p = feed + 1


@routine
def chunk_size(data: np.ndarray, p: int, end: int) -> tuple[int, int]:
    """(size, position behind the line) of the chunk-size line at p (RFC 9112 section 7.1).

    The size is CUT where the line does not end, TOO_LONG where it is none.
    """
    limit = min(end, p + CHUNK_LINE_LIMIT_BYTES)
    feed = line_end(data, p, limit)
    if feed < 0:
        return (CUT if limit == end else TOO_LONG), p
    value = i64(0)
    i = p
    while i < feed:
        c = data[i]
        digit = c - 48 if 48 <= c <= 57 else (c | 0x20) - 87 if 97 <= (c | 0x20) <= 102 else -1
        if digit < 0:
            break
        if value > 1 << 56:
            return TOO_LONG, p
        value = value * 16 + digit
        i += 1
    if i == p or data[i] not in (59, SP, TAB, CR, LF):
        return TOO_LONG, p
    return value, feed + 1
