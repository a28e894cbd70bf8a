"""Bytes and text as Arrow views, which polars takes over as they are: nothing is copied.

A view is 16 bytes: length 4, then either up to 12 bytes themselves, or their first 4, buffer number 4 and
offset in that buffer 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from stratokit.kernels import kernel
from stratokit.loads import load32

i64: Any = np.int64
VIEW_BYTES, INLINE_MAX = 16, 12
# What the offset of a view reaches.
BUFFER_MAX = (1 << 31) - 1


@kernel
def _fill(data: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, views: np.ndarray) -> None:
    for i in range(len(offsets)):
        at, length = offsets[i], i64(lengths[i])
        views[i, 0] = length
        if length > INLINE_MAX:
            views[i, 1] = load32(data, at)
            views[i, 2] = 0
            views[i, 3] = at
        else:
            views[i, 1] = views[i, 2] = views[i, 3] = 0
            for k in range(length):
                views[i, 1 + k // 4] |= np.uint32(data[at + k]) << np.uint32(8 * (k % 4))


def bytes_views(
    data: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, valid: pa.Buffer | None = None
) -> pa.Array:
    """data[offsets[i] : offsets[i] + lengths[i]] as an array that keeps `data` alive.

    `valid` is Arrow's bitmap of the values that are not null.

    Raises:
        ValueError: `data` is too large for the offset of a view.
    """
    if len(data) > BUFFER_MAX:
        raise ValueError("a window is too large for views")
    views = np.empty((len(offsets), VIEW_BYTES // 4), np.uint32)
    _fill(data, offsets, lengths, views)
    buffers = [valid, pa.py_buffer(views), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary_view(), len(offsets), buffers)


def as_views(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A large_binary column as views into its own bytes, however many they are."""
    pieces = []
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, np.int64)[chunk.offset :][: len(chunk) + 1]
        bytes_ = np.frombuffer(data or b"", np.uint8)
        at = 0
        while at < len(chunk):
            to = max(int(np.searchsorted(ends, ends[at] + BUFFER_MAX, "right")) - 1, at + 1)
            part = chunk.slice(at, to - at)
            valid = part.is_valid().buffers()[1] if part.null_count else None
            lengths = np.diff(ends[at : to + 1]).astype(np.uint32)
            pieces.append(bytes_views(bytes_[ends[at] : ends[to]], ends[at:to] - ends[at], lengths, valid))
            at = to
    return pa.chunked_array(pieces, pa.binary_view())


def take_views(column: pa.ChunkedArray, rows: np.ndarray) -> pa.ChunkedArray:
    """`column` with its rows in another order, which Arrow's own `take` does not do for views."""
    array = column.combine_chunks()
    valid, views, *data = array.buffers()
    taken = np.frombuffer(views, f"V{VIEW_BYTES}")[array.offset :][rows]
    if valid is not None:
        valid = array.is_valid().take(pa.array(rows)).buffers()[1]
    taken_array = pa.Array.from_buffers(array.type, len(rows), [valid, pa.py_buffer(taken), *data])
    return pa.chunked_array([taken_array])


def spread(column: pa.DictionaryArray) -> pa.Array:
    """Dictionary-coded text as plain text: one view a row, the text itself once.

    By buffers alone where that is possible: to calculate pyarrow loads pyarrow.compute, which takes 30 ms.
    """
    texts, indices = column.dictionary, column.indices
    if len(texts) == 0:
        return pa.nulls(len(column), pa.string_view())
    views, data = _views_of(texts)
    valid, numbers = indices.buffers()
    rows = np.frombuffer(numbers, indices.type.to_pandas_dtype())[indices.offset :][: len(indices)]
    if indices.null_count:
        rows = np.clip(rows, 0, len(texts) - 1)  # of a null it may be any
    if texts.null_count or indices.offset:
        valid = column.is_valid().buffers()[1]
    return pa.Array.from_buffers(pa.string_view(), len(column), [valid, pa.py_buffer(views[rows]), *data])


def _views_of(texts: pa.Array) -> tuple[np.ndarray, list[pa.Buffer]]:
    """Views of strings, and what they point into."""
    if pa.types.is_string_view(texts.type):
        _, views, *data = texts.buffers()
        return np.frombuffer(views, f"V{VIEW_BYTES}")[texts.offset :][: len(texts)], data
    _, ends, bytes_ = texts.buffers()
    offset_type = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    bounds = np.frombuffer(ends, offset_type)[texts.offset :][: len(texts) + 1].astype(np.int64)
    lengths = np.diff(bounds).astype(np.uint32)
    made = bytes_views(np.frombuffer(bytes_ or b"", np.uint8), bounds[:-1], lengths)
    return np.frombuffer(made.buffers()[1], f"V{VIEW_BYTES}"), made.buffers()[2:]


def view_lengths(column: pa.ChunkedArray) -> np.ndarray:
    """Bytes of each value of a column of views, i4; 0 where there is none."""
    parts = []
    for chunk in column.chunks:
        lengths = np.frombuffer(chunk.buffers()[1], "<i4")[:: VIEW_BYTES // 4][chunk.offset :][: len(chunk)]
        valid = chunk.is_valid().to_numpy(zero_copy_only=False) if chunk.null_count else True
        parts.append(np.where(valid, lengths, 0))
    return np.concatenate(parts) if parts else np.empty(0, np.int32)
