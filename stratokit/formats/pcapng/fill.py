"""Enhanced packet blocks in bulk: sizes first, then one pass that fills one buffer.

An enhanced packet block, little-endian, every part padded to 4 bytes:

    0   4  type 6              12  8  time: high word, low word     28  -  frame
    4   4  block length        20  4  captured length                -  -  options: code 2, length 2, value
    8   4  interface id        24  4  original length                -  4  block length again
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.formats.packet_rows import ETHERNET_HEADER, put_ethernet
from stratokit.kernels import kernel, routine

i64: Any = np.int64
u64: Any = np.uint64

HEAD, TAIL = 28, 4
DROPCOUNT_OPTION = 12
COMMENT_CODE = 1
OPTION_MAX = 65535
NEWLINE, TAB = 10, 9


@routine
def _line_end(text: np.ndarray, at: int, end: int) -> int:
    """End of the comment that begins at `at`; a line that begins with a tab continues the one before it."""
    while at < end:
        if text[at] == NEWLINE and not (at + 1 < end and text[at + 1] == TAB):
            break
        at += 1
    return at


@routine
def _comments_size(text: np.ndarray, at: int, end: int) -> int:
    size = 0
    while at < end:
        stop = _line_end(text, at, end)
        length = 0
        for k in range(at, stop):
            length += not (text[k] == TAB and k > at and text[k - 1] == NEWLINE)
        size += 4 + (min(length, OPTION_MAX) + 3 & ~3)
        at = stop + 1
    return size


@kernel
def sizes(
    cap_lens: np.ndarray,
    tail_lens: np.ndarray,
    dropcounts: np.ndarray,
    comments: np.ndarray,
    comment_ends: np.ndarray,
    ends: np.ndarray,
) -> None:
    """Where each block ends when all follow one another from 0; `ends` is one longer than the packets."""
    at = 0
    ends[0] = 0
    for i in range(len(cap_lens)):
        options = i64(tail_lens[i])
        if dropcounts[i]:
            options += DROPCOUNT_OPTION
        options += _comments_size(comments, comment_ends[i], comment_ends[i + 1])
        if options:
            options += 4  # end of options
        at += HEAD + (i64(cap_lens[i]) + 3 & ~3) + options + TAIL
        ends[i + 1] = at


@routine
def _put16(out: np.ndarray, at: int, value: int) -> None:
    out[at] = value & 255
    out[at + 1] = value >> 8 & 255


@routine
def _put32(out: np.ndarray, at: int, value: int) -> None:
    out[at] = value & 255
    out[at + 1] = value >> 8 & 255
    out[at + 2] = value >> 16 & 255
    out[at + 3] = value >> 24 & 255


@routine
def _copy(out: np.ndarray, at: int, data: np.ndarray, start: int, size: int) -> int:
    """Copy and pad with zeros to 4 bytes; returns where that ends."""
    for k in range(size):
        out[at + k] = data[start + k]
    end = at + (size + 3 & ~3)
    for k in range(at + size, end):
        out[k] = 0
    return end


@routine
def _put_comments(out: np.ndarray, at: int, text: np.ndarray, start: int, end: int) -> int:
    """A comment option for each line, continuation lines put back; returns where that ends."""
    while start < end:
        stop = _line_end(text, start, end)
        length = 0
        for k in range(start, stop):
            if text[k] == TAB and k > start and text[k - 1] == NEWLINE:
                continue
            if length < OPTION_MAX:
                out[at + 4 + length] = text[k]
                length += 1
        _put16(out, at, COMMENT_CODE)
        _put16(out, at + 2, length)
        padded = at + 4 + (length + 3 & ~3)
        for k in range(at + 4 + length, padded):
            out[k] = 0
        at = padded
        start = stop + 1
    return at


@kernel
def fill(
    out: np.ndarray,
    ends: np.ndarray,
    first: int,
    last: int,
    data: np.ndarray,
    starts: np.ndarray,
    cap_lens: np.ndarray,
    orig_lens: np.ndarray,
    headers: np.ndarray,
    ts_ns: np.ndarray,
    interfaces: np.ndarray,
    tails: np.ndarray,
    tail_starts: np.ndarray,
    tail_lens: np.ndarray,
    dropcounts: np.ndarray,
    comments: np.ndarray,
    comment_ends: np.ndarray,
) -> None:
    """Write the blocks of packets `first` to `last`.

    `headers` are 14 where an Ethernet header is put before raw IP; `cap_lens` and `orig_lens` count it.
    `tails` holds ready-made options, packet i's at tail_starts[i].
    """
    base = ends[first]
    for i in range(first, last):
        at = ends[i] - base
        length = ends[i + 1] - ends[i]
        time = u64(ts_ns[i])
        _put32(out, at, 6)
        _put32(out, at + 4, length)
        _put32(out, at + 8, i64(interfaces[i]))
        _put32(out, at + 12, i64(time >> u64(32)))
        _put32(out, at + 16, i64(time & u64(0xFFFFFFFF)))
        _put32(out, at + 20, i64(cap_lens[i]))
        _put32(out, at + 24, i64(orig_lens[i]))
        end = at + length
        at += HEAD
        size = i64(cap_lens[i])
        if headers[i]:
            # 14 is no multiple of 4, so header and frame are padded as one.
            size -= ETHERNET_HEADER
            at = put_ethernet(out, at, data, starts[i], size)
            for k in range(size):
                out[at + k] = data[starts[i] + k]
            at += size
            for _ in range(-(size + ETHERNET_HEADER) & 3):
                out[at] = 0
                at += 1
        else:
            at = _copy(out, at, data, starts[i], size)
        if at < end - TAIL:
            at = _copy(out, at, tails, tail_starts[i], i64(tail_lens[i]))
            if dropcounts[i]:
                _put16(out, at, 4)
                _put16(out, at + 2, 8)
                _put32(out, at + 4, i64(dropcounts[i]) & 0xFFFFFFFF)
                _put32(out, at + 8, i64(dropcounts[i]) >> 32)
                at += DROPCOUNT_OPTION
            at = _put_comments(out, at, comments, comment_ends[i], comment_ends[i + 1])
            _put32(out, at, 0)
        _put32(out, end - TAIL, length)
