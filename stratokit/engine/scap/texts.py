"""Every distinct text once: a kernel writes it behind the heap's end, `kept` finds it or keeps it."""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.addresses import DIGITS, _write_dotted, _write_groups
from stratokit.engine.scap.hashing import put, slot_of
from stratokit.engine.scap.state import HEAP, NAME_BYTES, TEXTS, State
from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_routine as routine

u64: Any = np.uint64
i64: Any = np.int64
SLASH, DOT = 47, 46


@kernel
def kept(state: State, size: int) -> Any:
    """Number of the text of `size` bytes that stands behind the heap's end."""
    heap = state.heap
    start = state.counts[HEAP]
    key = u64(0xCBF29CE484222325)
    for k in range(size):
        key = (key ^ u64(heap[start + k])) * u64(0x100000001B3)  # FNV-1a
    slots = state.text_slots
    at = slot_of(key, slots.size)
    while slots[at]:
        number = i64(slots[at] - 1)
        if state.text_keys[number] == key:
            begin = state.text_at[number]
            if state.text_at[number + 1] - begin == size:
                same = True
                for k in range(size):
                    if heap[begin + k] != heap[start + k]:
                        same = False
                        break
                if same:
                    return number
        at = (at + 1) & (slots.size - 1)
    number = state.counts[TEXTS]
    put(slots, key, number)
    state.text_keys[number] = key
    state.text_at[number + 1] = start + size
    state.counts[TEXTS] += 1
    state.counts[HEAP] += size
    return i64(number)


@kernel
def append(state: State, at: int, data: np.ndarray, start: int, size: int) -> Any:
    """Copy bytes behind the heap's end, `at` bytes on; returns how much stands there now."""
    begin = state.counts[HEAP] + at
    for k in range(size):
        state.heap[begin + k] = data[start + k]
    return at + size


@kernel
def text(state: State, data: np.ndarray, start: int, size: int) -> Any:
    """Number of a text up to its NUL; -1 for an empty one, which writers put for what they do not know."""
    if start < 0 or size <= 0:
        return -1
    length = 0
    while length < size and data[start + length]:
        length += 1
    return kept(state, append(state, 0, data, start, length)) if length else -1


@kernel
def joined(state: State, data: np.ndarray, first: int, first_size: int, rest: int, rest_size: int) -> Any:
    """Number of a text, NUL and all, followed by another; -1 where there is no first one."""
    if first < 0:
        return -1
    size = append(state, 0, data, first, first_size)
    if rest >= 0:
        size = append(state, size, data, rest, rest_size)
    return kept(state, size)


@routine
def _append_parts(state: State, out: Any, data: np.ndarray, start: int, length: int) -> Any:
    """Add the parts of a path, each with its slash, behind `out` bytes; returns how many there are now."""
    heap, begin = state.heap, state.counts[HEAP]
    at = i64(0)
    while at < length:
        while at < length and data[start + at] == SLASH:
            at += 1
        part = at
        while at < length and data[start + at] != SLASH:
            at += 1
        count = at - part
        if count == 0 or (count == 1 and data[start + part] == DOT):
            continue
        if count == 2 and data[start + part] == DOT and data[start + part + 1] == DOT:
            while out and heap[begin + out - 1] != SLASH:
                out -= 1
            out = max(out - 1, 0)
            continue
        if out + count + 1 > NAME_BYTES:  # only a hostile file has such names
            break
        heap[begin + out] = SLASH
        out = append(state, out + 1, data, start + part, count)
    return out


@routine
def path_from(state: State, base: int, data: np.ndarray, start: int, size: int) -> Any:
    """Number of a path that is relative to text `base` (-1: unknown) unless it begins with a slash.

    Slashes are single, `.` and `..` are gone where the base is known, as sysdig shows names.
    """
    length = 0
    while length < size and data[start + length]:
        length += 1
    absolute = length > 0 and data[start] == SLASH
    if not absolute and base < 0:
        while length > 2 and data[start] == DOT and data[start + 1] == SLASH:
            start += 2
            length -= 2
        return kept(state, append(state, 0, data, start, length))
    heap, begin = state.heap, state.counts[HEAP]
    out = i64(0)
    if not absolute:
        for k in range(state.text_at[base], state.text_at[base + 1]):
            heap[begin + out] = heap[k]
            out += 1
        if out and heap[begin] != SLASH:  # no path, as of a pipe
            return kept(state, append(state, 0, data, start, length))
        while out and heap[begin + out - 1] == SLASH:
            out -= 1
    out = _append_parts(state, out, data, start, length)
    if out == 0:
        heap[begin] = SLASH
        out = 1
    return kept(state, out)


@routine
def address_text(state: State, address: np.ndarray) -> Any:
    """Number of an address's text; 16 bytes, IPv4 where it is mapped."""
    heap, begin = state.heap, state.counts[HEAP]
    mapped = address[10] == 255 and address[11] == 255
    for k in range(10):
        mapped = mapped and address[k] == 0
    if mapped:
        return kept(state, _write_dotted(address, heap, begin) - begin)
    return kept(state, _write_groups(address, DIGITS, heap, begin) - begin)
