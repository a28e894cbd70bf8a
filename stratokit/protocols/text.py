"""Text columns from places in a buffer: (start, size) pairs become one Arrow string array.

Bytes that are no UTF-8 (RFC 3629) are read as ISO-8859-1, as HTTP once defined its field values and as no
text gets lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.kernels import kernel, read_only, routine

if TYPE_CHECKING:
    from numpy.typing import NDArray


@routine
def _is_utf8(data: np.ndarray, start: int, end: int) -> bool:
    """RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF."""
    i = start
    while i < end:
        c = data[i]
        if c < 0x80:
            i += 1
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= c <= 0xDF:
            more = 1
        elif 0xE0 <= c <= 0xEF:
            more = 2
            low = 0xA0 if c == 0xE0 else low
            high = 0x9F if c == 0xED else high
        elif 0xF0 <= c <= 0xF4:
            more = 3
            low = 0x90 if c == 0xF0 else low
            high = 0x8F if c == 0xF4 else high
        else:
            return False
        if i + more >= end:
            return False
        for k in range(1, more + 1):
            if data[i + k] < low or data[i + k] > high:
                return False
            low, high = 0x80, 0xBF
        i += more + 1
    return True


@kernel
def same(data: np.ndarray, start: int, text: np.ndarray) -> bool:
    """Whether `text` stands at `start`; the caller knows that so many bytes are there."""
    i = 0
    while i < text.size and data[start + i] == text[i]:
        i += 1
    return i == text.size


@kernel
def _gather(data: np.ndarray, start: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(start.size + 1, np.int64)
    as_is = np.ones(start.size, np.bool_)
    for i in range(start.size):
        total = max(size[i], 0)
        as_is[i] = _is_utf8(data, start[i], start[i] + total)
        if not as_is[i]:
            for k in range(start[i], start[i] + size[i]):
                total += data[k] >> 7
        offsets[i + 1] = offsets[i] + total
    out = np.empty(offsets[-1], np.uint8)
    for i in range(start.size):
        at = offsets[i]
        for k in range(start[i], start[i] + size[i]):
            if as_is[i] or data[k] < 0x80:
                out[at] = data[k]
            else:
                out[at] = 0xC0 | data[k] >> 6
                at += 1
                out[at] = 0x80 | data[k] & 0x3F
            at += 1
    return offsets, out


def arrow_texts(data: NDArray[np.uint8], start: NDArray[np.int64], size: NDArray[np.int64]) -> pa.Array:
    """As `text_column`, without polars, whose threads may all be waiting for the caller."""
    offsets, out = _gather(read_only(data, np.uint8), read_only(start, np.int64), read_only(size, np.int64))
    there = size >= 0
    validity = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.Array.from_buffers(
        pa.large_string(), start.size, [validity, pa.py_buffer(offsets), pa.py_buffer(out)]
    )


def text_column(data: NDArray[np.uint8], start: NDArray[np.int64], size: NDArray[np.int64]) -> pl.Series:
    """Texts data[start : start + size]; null where the size is negative.

    >>> data = np.frombuffer(b"GET /caf\\xe9", np.uint8)
    >>> text_column(data, np.array([0, 4, 0]), np.array([3, 5, -1])).to_list()
    ['GET', '/café', None]
    """
    return pl.Series(arrow_texts(data, start, size))
