"""Bytes of packets where they lie: one array over the memory that holds them, so that nothing is copied.

A column of bytes refers to one buffer or many: the windows of a mapped file, or what was decoded from
Parquet. `Bytes.data` begins at the lowest of them and ends with the highest; in between lies what belongs to
others, and only the given places may be read.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.kernels import kernel, read_only, routine

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True)
class Bytes:
    """Pieces of memory: that of row i is data[start[i] : start[i] + size[i]]."""

    data: NDArray[np.uint8]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    owner: Any  # keeps the memory


_ARENA_MAX = -8  # M_ARENA_MAX of mallopt(3)


def share_heap() -> None:
    """Have threads that are started from now on share one heap of the C library.

    A heap of its own keeps what a thread has freed, and each of many threads would have one.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Have the C library return what it keeps of freed memory for each thread: hundreds of MB after a capture
    of millions of packets.
    """
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


@routine
def copy_bytes(out: np.ndarray, at: int, data: np.ndarray, start: int, size: int) -> None:
    """data[start : start + size] to out[at:]. Both are sliced first: then this becomes one memcpy, while
    places that could be negative make it a loop over single bytes."""
    to, source = out[at : at + size], data[start : start + size]
    for i in range(size):
        to[i] = source[i]


@kernel
def _places(
    views: np.ndarray, buffers: np.ndarray, valid: np.ndarray, start: np.ndarray, size: np.ndarray
) -> None:
    """Addresses and sizes from Arrow views: length 4, then 12 bytes, or 4 of them, buffer 4, offset 4."""
    for i in range(start.size):
        size[i] = views[i, 0] if valid[i] else 0
        start[i] = buffers[views[i, 2]] + views[i, 3] if size[i] > 12 else 0


def parts_of(column: pl.Series, offset: NDArray[np.int64], length: NDArray[np.int64]) -> Bytes:
    """Of each value the `length` bytes from `offset` on, as far as they are there.

    Values of up to 12 bytes have none: Arrow keeps them elsewhere, and no packet with payload is so short.
    """
    start, size = np.empty(len(column), np.int64), np.empty(len(column), np.int64)
    owners, extents, at = [], [], 0
    for chunk in column.get_chunks():
        array = chunk.to_arrow(compat_level=pl.CompatLevel.newest())
        owners.append(array)
        _, views, *buffers = array.buffers()
        known = [(buffer.address, buffer.address + buffer.size) for buffer in buffers if buffer.size]
        extents += known
        rows = slice(at, at + len(array))
        _places(
            np.frombuffer(views, np.int32).reshape(-1, 4)[array.offset : array.offset + len(array)],
            np.array([buffer.address for buffer in buffers], np.int64),
            array.is_valid().to_numpy(zero_copy_only=False),
            start[rows],
            size[rows],
        )
        at += len(array)
    taken = np.clip(np.minimum(size - offset, length), 0, None)
    taken[start == 0] = 0
    return at_addresses(start + offset, taken, owners, extents)


def at_addresses(address: NDArray[np.int64], size: NDArray[np.int64], owner: Any, extents: Any = ()) -> Bytes:
    """Pieces of memory by their addresses; `extents` are beginnings and ends of more that may be read."""
    there = size > 0
    if not extents and there.any():
        extents = ((int(address[there].min()), int((address + size)[there].max())),)
    base = min((low for low, _ in extents), default=0)
    span = max((high for _, high in extents), default=0) - base
    memory: Any = (ctypes.c_uint8 * span).from_address(base) if span else b""
    data = read_only(np.frombuffer(memory, np.uint8), np.uint8)
    return Bytes(data, np.where(there, address - base, 0), np.where(there, size, 0), owner)
