"""Bytes and text as Arrow views, which polars takes over as they are: nothing is copied.

A view is 16 bytes: length 4, then either up to 12 bytes themselves, or their first 4, buffer number 4 and
offset in that buffer 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from stratokit.kernels import kernel

i64: Any = np.int64
INLINE_MAX = 12


@kernel
def _fill(data: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, views: np.ndarray) -> None:
    for i in range(len(offsets)):
        at, length = offsets[i], i64(lengths[i])
        for k in range(4):
            views[i, k] = length >> 8 * k & 255
        if length <= INLINE_MAX:
            for k in range(length):
                views[i, 4 + k] = data[at + k]
            for k in range(4 + length, 16):
                views[i, k] = 0
        else:
            for k in range(4):
                views[i, 4 + k] = data[at + k]
                views[i, 8 + k] = 0
                views[i, 12 + k] = at >> 8 * k & 255


def bytes_views(data: np.ndarray, offsets: np.ndarray, lengths: np.ndarray) -> pa.Array:
    """data[offsets[i] : offsets[i] + lengths[i]] as an array that keeps `data` alive.

    Raises:
        ValueError: `data` is too large for the offset of a view.
    """
    if len(data) >= 1 << 31:
        raise ValueError("a window is too large for views")
    views = np.empty((len(offsets), 16), np.uint8)
    _fill(data, offsets, lengths, views)
    buffers = [None, pa.py_buffer(views), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary_view(), len(offsets), buffers)


def spread(column: pa.DictionaryArray) -> pa.Array:
    """Dictionary-coded text as plain text: one view a row, the text itself once."""
    values = column.dictionary.cast(pa.string_view())
    if len(values) == 0:
        return pa.nulls(len(column), pa.string_view())
    views = np.frombuffer(values.buffers()[1], "V16")[: len(values)]
    indices = column.indices.fill_null(0) if column.indices.null_count else column.indices
    rows = views[indices.to_numpy()]
    valid = column.is_valid().buffers()[1] if column.null_count or values.null_count else None
    return pa.Array.from_buffers(
        pa.string_view(), len(column), [valid, pa.py_buffer(rows), *values.buffers()[2:]]
    )
