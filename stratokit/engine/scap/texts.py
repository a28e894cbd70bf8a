"""Every distinct text once: a kernel writes it behind the heap's end, `kept` finds it or keeps it."""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.addresses import DIGITS, _write_dotted, _write_groups
from stratokit.engine.scap.hashing import slot_of
from stratokit.engine.scap.state import HEAP, NAME_BYTES, TEXTS, State
from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_part as part
from stratokit.kernels import lean_routine as routine
from stratokit.loads import load64

u64: Any = np.uint64
i64: Any = np.int64
SLASH, DOT, COLON, OPEN, CLOSE = 47, 46, 58, 91, 93
ARROW, PIPE_NAME = np.frombuffer(b"->", np.uint8), np.frombuffer(b"pipe:[", np.uint8)


@part
def _hash(data: np.ndarray, start: int, size: int) -> Any:
    """Of bytes, eight at a time."""
    key = u64(0xCBF29CE484222325) ^ u64(size)
    at, end = start, start + size
    while at + 8 <= end:
        key = (key ^ u64(load64(data, at))) * u64(0x9E3779B97F4A7C15)
        key ^= key >> u64(29)
        at += 8
    while at < end:
        key = (key ^ u64(data[at])) * u64(0x100000001B3)
        at += 1
    return key


@part
def _same(one: np.ndarray, begin: int, other: np.ndarray, start: int, size: int) -> Any:
    at = i64(0)
    while at + 8 <= size:
        if load64(one, begin + at) != load64(other, start + at):
            return False
        at += 8
    while at < size:
        if one[begin + at] != other[start + at]:
            return False
        at += 1
    return True


@routine
def _interned(
    data: np.ndarray, start: int, size: int, heap: np.ndarray, text_at: np.ndarray, keys: np.ndarray,
    slots: np.ndarray, counts: np.ndarray,
) -> Any:  # fmt: skip
    """As `interned`; a whole state takes longer to hand over."""
    key = _hash(data, start, size)
    at = slot_of(key, slots.size)
    while slots[at]:
        number = i64(slots[at] - 1)
        if keys[number] == key:
            begin = text_at[number]
            if text_at[number + 1] - begin == size and _same(heap, begin, data, start, size):
                return number
        at = (at + 1) & (slots.size - 1)
    number = counts[TEXTS]
    slots[at] = number + 1
    keys[number] = key
    begin = counts[HEAP]
    for k in range(size):
        heap[begin + k] = data[start + k]
    text_at[number + 1] = begin + size
    counts[TEXTS] += 1
    counts[HEAP] += size
    return i64(number)


@part
def interned(state: State, data: np.ndarray, start: int, size: int) -> Any:
    """Number of a text, which is kept if it is new."""
    return _interned(
        data, start, size, state.heap, state.text_at, state.text_keys, state.text_slots, state.counts
    )


@kernel
def kept(state: State, size: int) -> Any:
    """Number of the text of `size` bytes that stands behind the heap's end."""
    return interned(state, state.heap, state.counts[HEAP], size)


@kernel
def append(state: State, at: int, data: np.ndarray, start: int, size: int) -> Any:
    """Copy bytes behind the heap's end, `at` bytes on; returns how much stands there now."""
    begin = state.counts[HEAP] + at
    for k in range(size):
        state.heap[begin + k] = data[start + k]
    return at + size


@part
def length_of(data: np.ndarray, start: int, size: int) -> Any:
    """Bytes of a text before its NUL, which is its last byte unless a writer is odd."""
    length = i64(0)
    while length + 8 <= size:
        word = u64(load64(data, start + length))
        if (word - u64(0x0101010101010101)) & ~word & u64(0x8080808080808080):
            break
        length += 8
    while length < size and data[start + length]:
        length += 1
    return length


@part
def text_number(state: State, data: np.ndarray, start: int, size: int) -> Any:
    """Number of a text up to its NUL; -1 for an empty one, which writers put for what they do not know."""
    if start < 0 or size <= 0:
        return i64(-1)
    length = length_of(data, start, size)
    return i64(interned(state, data, start, length)) if length else i64(-1)


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
    length = length_of(data, start, size)
    absolute = length > 0 and data[start] == SLASH
    if not absolute and base < 0:
        while length > 2 and data[start] == DOT and data[start + 1] == SLASH:
            start += 2
            length -= 2
        return interned(state, data, start, length)
    heap, begin = state.heap, state.counts[HEAP]
    out = i64(0)
    if not absolute:
        for k in range(state.text_at[base], state.text_at[base + 1]):
            heap[begin + out] = heap[k]
            out += 1
        if out and heap[begin] != SLASH:  # no path, as of a pipe
            return interned(state, data, start, length)
        while out and heap[begin + out - 1] == SLASH:
            out -= 1
    out = _append_parts(state, out, data, start, length)
    if out == 0:
        heap[begin] = SLASH
        out = 1
    return kept(state, out)


@part
def path_named(state: State, base: int, raw: int, data: np.ndarray, start: int, size: int) -> Any:
    """As `path_from`, of a path that is text `raw`: most are opened again and again."""
    key = u64(base + 1) << u64(32) | u64(raw)
    at = slot_of(key, state.path_keys.size)
    if raw >= 0 and state.path_keys[at] == key:
        return i64(state.path_names[at])
    name = i64(path_from(state, base, data, start, size))
    if raw >= 0:
        state.path_keys[at] = key
        state.path_names[at] = name
    return name


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


@routine
def append_number(state: State, at: int, value: Any, last: int) -> Any:
    """Write a decimal number and byte `last` behind the heap's end, `at` bytes on; returns the new end."""
    value = u64(value)
    scale = u64(1)
    while value // scale >= u64(10):
        scale *= u64(10)
    begin = state.counts[HEAP]
    while scale:
        state.heap[begin + at] = 48 + value // scale % u64(10)
        scale //= u64(10)
        at += 1
    state.heap[begin + at] = last
    return i64(at + 1)


@routine
def append_end(state: State, at: int, address: int, port: int) -> Any:
    """Write an end of a socket, the address being a text; in brackets with colons. Returns the new end."""
    heap, start, stop = state.heap, state.text_at[address], state.text_at[address + 1]
    six = False
    for k in range(start, stop):
        six = six or heap[k] == COLON
    if six:
        heap[state.counts[HEAP] + at] = OPEN
        at += 1
    at = append(state, at, heap, start, stop - start)
    if six:
        heap[state.counts[HEAP] + at] = CLOSE
        at += 1
    heap[state.counts[HEAP] + at] = COLON
    return append_number(state, at + 1, u64(port), 0) - 1
