"""Names and record data of DNS messages as text (RFC 1035): kernels that append to a byte buffer.

A message lies in data[start:end]; a pointer inside a name counts from `start`. A name's text has no final
dot, the root is ".", and a dot, backslash or control byte inside a label is escaped as in master files
(section 5.1). Buffers grow by doubling; a kernel that may have moved one gives it back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from stratokit.dissect.layers import i64
from stratokit.protocols.buffers import be16, with_room

NAME_LIMIT_BYTES = 255  # section 2.3.4
_TEXT_LIMIT_BYTES = 4 * NAME_LIMIT_BYTES + 64  # each byte escaped, and numbers before the name
_HEX_LIMIT_BYTES = 64  # of data of unknown types

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, DNAME, OPT = 1, 2, 5, 6, 12, 15, 16, 28, 33, 39, 41

_DOT, _BACKSLASH, _SPACE, _ZERO, _COLON = 46, 92, 32, 48, 58
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


@njit(nogil=True, cache=True)
def skip_name(data: np.ndarray, p: int, end: int) -> int:
    """The position behind the name at p, or -1 where there is none."""
    while p < end:
        size = data[p]
        if size == 0:
            return p + 1
        if size >= 0xC0:
            return p + 2 if p + 2 <= end else -1
        if size >= 0x40:
            return -1
        p += 1 + size
    return -1


@njit(nogil=True, cache=True)
def _write_number(out: np.ndarray, n: int, value: int) -> Any:
    digits = 1
    while value >= 10**digits:
        digits += 1
    for k in range(digits):
        out[n + digits - 1 - k] = _ZERO + value % 10
        value //= 10
    return n + digits


@njit(nogil=True, cache=True)
def _write_label_byte(out: np.ndarray, n: int, c: int) -> Any:
    if c in (_DOT, _BACKSLASH):
        out[n], out[n + 1] = _BACKSLASH, c
        return n + 2
    if c < _SPACE or c == 0x7F:
        out[n], out[n + 1] = _BACKSLASH, _ZERO + c // 100
        out[n + 2], out[n + 3] = _ZERO + c // 10 % 10, _ZERO + c % 10
        return n + 4
    out[n] = c
    return n + 1


@njit(nogil=True, cache=True)
def write_name(data: np.ndarray, start: int, p: int, end: int, out: np.ndarray, n: int) -> tuple[int, int]:
    """Write the name at p: (position behind it, new n); the first is -1 where it is no name.

    A pointer must lead to before the labels read last (section 4.1.4: a prior occurrence), so no loop can be.
    """
    behind = i64(-1)
    lowest = p
    total = 0
    first = n
    while True:
        if p >= end:
            return -1, first
        size = i64(data[p])
        if size >= 0xC0:
            if p + 2 > end:
                return -1, first
            target = start + (be16(data, p) & 0x3FFF)
            behind = p + 2 if behind < 0 else behind
            if target >= lowest:
                return -1, first
            p = lowest = target
            continue
        if size >= 0x40 or p + 1 + size > end:
            return -1, first
        total += 1 + size
        if total > NAME_LIMIT_BYTES:
            return -1, first
        p += 1
        if size == 0:
            break
        if n > first:
            out[n] = _DOT
            n += 1
        for k in range(p, p + size):
            n = _write_label_byte(out, n, i64(data[k]))
        p += size
    if n == first:
        out[n] = _DOT
        n += 1
    return (p if behind < 0 else behind), n


@njit(nogil=True, cache=True)
def _write_ipv4(data: np.ndarray, p: int, out: np.ndarray, n: int) -> Any:
    for k in range(4):
        if k:
            out[n] = _DOT
            n += 1
        n = _write_number(out, n, i64(data[p + k]))
    return n


@njit(nogil=True, cache=True)
def _write_ipv6(data: np.ndarray, p: int, out: np.ndarray, n: int) -> Any:
    """RFC 5952: the longest run of two or more zero groups, the first of equals, becomes "::"."""
    best, best_size, k = -1, 1, 0
    while k < 8:
        size = 0
        while k + size < 8 and be16(data, p + 2 * (k + size)) == 0:
            size += 1
        if size > best_size:
            best, best_size = k, size
        k += max(size, 1)
    k = 0
    while k < 8:
        if k == best:
            out[n], out[n + 1] = _COLON, _COLON
            n += 2
            k += best_size
            continue
        if k and k != best + best_size:
            out[n] = _COLON
            n += 1
        group = be16(data, p + 2 * k)
        started = False
        for shift in (12, 8, 4, 0):
            digit = (group >> shift) & 15
            started = started or digit != 0 or shift == 0
            if started:
                out[n] = _HEX[digit]
                n += 1
        k += 1
    return n


@njit(nogil=True, cache=True)
def _write_unknown(data: np.ndarray, p: int, size: int, out: np.ndarray, n: int) -> Any:
    r"""RFC 3597 section 5: \# size hexadecimal; long data is cut."""
    out[n], out[n + 1], out[n + 2] = _BACKSLASH, 35, _SPACE
    n = _write_number(out, n + 3, size)
    for k in range(min(size, _HEX_LIMIT_BYTES)):
        if k == 0:
            out[n] = _SPACE
            n += 1
        out[n], out[n + 1] = _HEX[data[p + k] >> 4], _HEX[data[p + k] & 15]
        n += 2
    return n


@njit(nogil=True, cache=True)
def _write_strings(data: np.ndarray, p: int, end: int, out: np.ndarray, n: int) -> Any:
    """The strings of a TXT record (section 3.3.14), one behind the other."""
    while p < end:
        size = i64(data[p])
        stop = min(p + 1 + size, end)
        for k in range(p + 1, stop):
            out[n] = data[k]
            n += 1
        p = stop
    return n


@njit(nogil=True, cache=True)
def write_record(
    data: np.ndarray, start: int, end: int, kind: int, p: int, size: int, out: np.ndarray, n: int
) -> tuple[np.ndarray, int]:
    """Write the data of a record, data[p : p + size], as text: (buffer, new n)."""
    out = with_room(out, n, _TEXT_LIMIT_BYTES + size)
    if kind == A and size == 4:
        return out, _write_ipv4(data, p, out, n)
    if kind == AAAA and size == 16:
        return out, _write_ipv6(data, p, out, n)
    if kind == TXT:
        return out, _write_strings(data, p, p + size, out, n)
    numbers = 1 if kind == MX else 3 if kind == SRV else 0
    if size > 2 * numbers and kind in (NS, CNAME, SOA, PTR, MX, SRV, DNAME):
        at = n
        for k in range(numbers):
            at = _write_number(out, at, be16(data, p + 2 * k))
            out[at] = _SPACE
            at += 1
        behind, at = write_name(data, start, p + 2 * numbers, end, out, at)
        if behind >= 0:
            return out, at
    return out, _write_unknown(data, p, size, out, n)
