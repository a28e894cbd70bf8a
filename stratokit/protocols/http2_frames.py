"""Frames of HTTP/2 (RFC 9113 section 4): header, plausibility, finding one where the place is lost.

length 24 | type 8 | flags 8 | reserved 1, stream 31 | payload
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, routine

PREFACE = np.frombuffer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", np.uint8)
HEADER_BYTES = 9
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS = 4, 3  # settings (section 6.5.2)

# Which flags a type may have, and the size of its payload where that is fixed, else -1.
_FLAGS = np.array([0x09, 0x2D, 0x00, 0x00, 0x01, 0x0C, 0x01, 0x00, 0x00, 0x04], np.int64)
_SIZES = np.array([-1, -1, 5, 4, -1, -1, 8, -1, 4, -1], np.int64)
# Where the place is lost, a frame longer than peers allow by default (section 4.2) is taken for none.
SEARCH_LIMIT_BYTES = 1 << 14
_CHAIN = 4


@kernel
def be32(data: np.ndarray, p: int) -> Any:
    """Four bytes in network order."""
    return i64(data[p]) << 24 | i64(data[p + 1]) << 16 | i64(data[p + 2]) << 8 | i64(data[p + 3])


@kernel
def frame_size(data: np.ndarray, p: int) -> Any:
    """Size of the payload of the frame whose header begins at p."""
    return i64(data[p]) << 16 | i64(data[p + 1]) << 8 | i64(data[p + 2])


@routine
def is_preface(data: np.ndarray, p: int, end: int) -> bool:
    """Whether the client's preface (section 3.4) stands at p, as far as there are bytes; 16 at least."""
    size = min(end - p, PREFACE.size)
    for i in range(size):
        if data[p + i] != PREFACE[i]:
            return False
    return size >= 16


@routine
def valid_header(data: np.ndarray, p: int) -> Any:
    """Whether the 9 bytes at p may be a frame's header: what a type fixes is as it must be."""
    kind, size, stream = i64(data[p + 3]), frame_size(data, p), be32(data, p + 5) & 0x7FFFFFFF
    if kind > CONTINUATION:
        return True  # of an extension (section 5.5)
    if kind in (SETTINGS, PING, GOAWAY):
        if stream != 0:
            return False
    elif kind != WINDOW_UPDATE and stream == 0:
        return False
    if kind == SETTINGS:
        return size % 6 == 0 and (size == 0 or data[p + 4] & ACK == 0)
    if kind == GOAWAY:
        return size >= 8
    return _SIZES[kind] < 0 or size == _SIZES[kind]


@routine
def _likely(data: np.ndarray, p: int) -> Any:
    """As `valid_header`, and nothing about it is unusual."""
    kind = data[p + 3]
    return (
        kind <= CONTINUATION
        and frame_size(data, p) <= SEARCH_LIMIT_BYTES
        and i64(data[p + 4]) & ~_FLAGS[kind] == 0
        and data[p + 5] < 0x80
        and valid_header(data, p)
    )


@routine
def begins_frames(data: np.ndarray, p: int, end: int) -> bool:
    """Whether a chain of likely frames begins at p: several up to `end`, or one that ends just there."""
    count = 0
    while p + HEADER_BYTES <= end and count < _CHAIN:
        if not _likely(data, p):
            return False
        count += 1
        p += HEADER_BYTES + frame_size(data, p)
    return count >= 2 or (count == 1 and p == end)


@routine
def find_frame(data: np.ndarray, p: int, end: int) -> int:
    """Where the next chain of likely frames begins, at or behind p, or `end`."""
    while p + HEADER_BYTES <= end:
        if data[p + 3] <= CONTINUATION and begins_frames(data, p, end):
            return p
        p += 1
    return end
