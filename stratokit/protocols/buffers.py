"""What the kernels of several protocols share: reading numbers, and buffers that grow by doubling."""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import lean_routine, routine


@lean_routine
def be16(data: np.ndarray, p: int) -> Any:
    """Two bytes in network order; the caller knows that they are there."""
    return i64(data[p]) << 8 | i64(data[p + 1])


@routine
def with_room(out: np.ndarray, n: int, more: int) -> np.ndarray:
    """`out`, or a larger copy where `more` bytes would not fit behind n."""
    if n + more <= out.size:
        return out
    larger = np.empty(max(2 * out.size, n + more), np.uint8)
    for k in range(n):
        larger[k] = out[k]
    return larger


@routine
def with_rows(rows: np.ndarray, n: int, more: int) -> np.ndarray:
    """`rows`, or a larger copy where `more` would not fit behind n."""
    if n + more <= rows.shape[0]:
        return rows
    larger = np.empty((max(2 * rows.shape[0], n + more), rows.shape[1]), np.int64)
    for i in range(n):
        for k in range(rows.shape[1]):
            larger[i, k] = rows[i, k]
    return larger
