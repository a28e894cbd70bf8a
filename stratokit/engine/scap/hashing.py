"""A hash table in flat arrays: `slots` has the number of an entry plus one, `keys` the entries' keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_part as part
from stratokit.kernels import lean_routine as routine

u64: Any = np.uint64


@part
def slot_of(key: Any, size: int) -> Any:
    """Where the search for a key begins; `size` is a power of two."""
    mixed = u64(key) * u64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> u64(29))) & u64(size - 1))


@part
def find(slots: np.ndarray, keys: np.ndarray, key: Any) -> Any:
    """The entry of a key, or -1."""
    at = slot_of(key, slots.size)
    while slots[at]:
        if keys[slots[at] - 1] == key:
            return np.int64(slots[at] - 1)
        at = (at + 1) & (slots.size - 1)
    return -1


@routine
def put(slots: np.ndarray, key: Any, entry: int) -> None:
    """Enter an entry under a key that is not there yet; the caller keeps half of the slots empty."""
    at = slot_of(key, slots.size)
    while slots[at]:
        at = (at + 1) & (slots.size - 1)
    slots[at] = entry + 1


@kernel
def refill(slots: np.ndarray, keys: np.ndarray, count: int) -> None:
    """Enter the first `count` entries into empty slots, in a table that has grown."""
    for entry in range(count):
        put(slots, keys[entry], entry)
