"""TCP segments as intervals of byte streams: sequence numbers become 64-bit offsets.

Offset 0 is the first byte after the SYN (RFC 9293 section 3.4), or the first byte seen where the capture
began later. Each number is taken as the one nearest to the end of what came before, so a stream may wrap
around at will; a segment farther away than any window (RFC 7323: 1 GiB) belongs to nothing and is counted.
"""

from __future__ import annotations

import numpy as np

from stratokit.kernels import kernel, routine
from stratokit.streams.flows import FIN, RST, SYN

STREAM_LIMIT_BYTES = 1 << 28
WINDOW_BYTES = 1 << 30
NOWHERE = np.iinfo(np.int64).max


@routine
def bounds_of(key: np.ndarray, keys: int) -> np.ndarray:
    """The bounds of each key's rows when rows of equal keys stand together."""
    bounds = np.zeros(keys + 1, np.int64)
    for k in key:
        bounds[k + 1] += 1
    for k in range(keys):
        bounds[k + 1] += bounds[k]
    return bounds


@kernel
def grouped(key: np.ndarray, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows ordered by key, equal keys as they came, and the bounds of each key's rows."""
    bounds = bounds_of(key, keys)
    at = bounds[:-1].copy()
    order = np.empty(key.size, np.int64)
    for i in range(key.size):
        order[at[key[i]]] = i
        at[key[i]] += 1
    return order, bounds


@kernel
def stream_offsets(
    seq: np.ndarray, flags: np.ndarray, length: np.ndarray, order: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Offset of each segment's first byte; per stream whether its SYN was seen and where its FIN stands.

    `length` is the payload as sent; what was captured of it may be less. The last value is the number of
    segments that belong nowhere.
    """
    offsets = np.full(seq.size, NOWHERE, np.int64)
    began = np.zeros(bounds.size - 1, np.bool_)
    fin = np.full(bounds.size - 1, NOWHERE, np.int64)
    outside = 0
    for s in range(bounds.size - 1):
        rows = order[bounds[s] : bounds[s + 1]]
        if not rows.size:
            continue
        base = seq[rows[0]]
        for i in rows:  # a SYN may come late
            if flags[i] & SYN:
                base = np.uint32(seq[i] + np.uint32(1))
                began[s] = True
                break
        highest = np.int64(0)
        for i in rows:
            first = np.uint32(seq[i] + np.uint32(1)) if flags[i] & SYN else seq[i]
            step = np.int64(np.int32(np.uint32(first - base) - np.uint32(highest & 0xFFFFFFFF)))
            if abs(step) > WINDOW_BYTES:
                outside += 1
                continue
            offsets[i] = highest + step
            if flags[i] & FIN:
                fin[s] = min(fin[s], offsets[i] + length[i])
            highest = max(highest, offsets[i] + length[i])
    return offsets, began, fin, outside


@kernel
def intervals(
    offsets: np.ndarray,
    size: np.ndarray,
    flags: np.ndarray,
    order: np.ndarray,
    bounds: np.ndarray,
    began: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """What each segment brings: start, size, bytes of its payload to skip, its row; bounds; bytes cut.

    `size` is the captured payload.
    """
    starts = np.empty(order.size, np.int64)
    sizes = np.empty(order.size, np.int64)
    skips = np.empty(order.size, np.int64)
    rows = np.empty(order.size, np.int64)
    out_bounds = np.zeros(bounds.size, np.int64)
    n = 0
    cut = 0
    for s in range(bounds.size - 1):
        for i in order[bounds[s] : bounds[s + 1]]:
            if (
                offsets[i] == NOWHERE or flags[i] & RST
            ):  # a reset's payload is a message to people (RFC 9293 3.5.3)
                continue
            # Before the SYN's number there is no byte: such a segment is a keep-alive probe, or forged.
            skip = max(-offsets[i], 0) if began[s] else 0
            end = min(offsets[i] + size[i], STREAM_LIMIT_BYTES)
            cut += min(size[i], max(offsets[i] + size[i] - STREAM_LIMIT_BYTES, 0))
            if offsets[i] + skip < end:
                starts[n] = offsets[i] + skip
                sizes[n] = end - starts[n]
                skips[n] = skip
                rows[n] = i
                n += 1
        out_bounds[s + 1] = n
    return starts[:n], sizes[:n], skips[:n], rows[:n], out_bounds, cut
