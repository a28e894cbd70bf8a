"""Names, numbers and addresses of DNS messages as text (RFC 1035): kernels that append to a byte buffer.

A message lies in data[start:end]; a pointer inside a name counts from `start`. A name's text has no final
dot, the root is ".", and a dot, backslash or control byte inside a label is escaped as in master files
(section 5.1). The caller has made room.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import lean_routine
from stratokit.protocols.buffers import be16

NAME_LIMIT_BYTES = 255  # section 2.3.4
NAME_TEXT_BYTES = 4 * NAME_LIMIT_BYTES  # each byte escaped

_DOT, _BACKSLASH, _SPACE, _ZERO, _COLON = 46, 92, 32, 48, 58
HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


@lean_routine
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


@lean_routine
def write_number(out: np.ndarray, n: int, value: int) -> Any:
    """Decimal digits of a number that is not negative."""
    digits = 1
    while value >= 10**digits:
        digits += 1
    for k in range(digits):
        out[n + digits - 1 - k] = _ZERO + value % 10
        value //= 10
    return n + digits


@lean_routine
def write_label_byte(out: np.ndarray, n: int, c: int) -> Any:
    """A byte of a label, escaped where it would mean something else."""
    if c in (_DOT, _BACKSLASH):
        out[n], out[n + 1] = _BACKSLASH, c
        return n + 2
    if c < _SPACE or c == 0x7F:
        out[n], out[n + 1] = _BACKSLASH, _ZERO + c // 100
        out[n + 2], out[n + 3] = _ZERO + c // 10 % 10, _ZERO + c % 10
        return n + 4
    out[n] = c
    return n + 1


@lean_routine
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
            n = write_label_byte(out, n, i64(data[k]))
        p += size
    if n == first:
        out[n] = _DOT
        n += 1
    return (p if behind < 0 else behind), n


@lean_routine
def write_ipv4(data: np.ndarray, p: int, out: np.ndarray, n: int) -> Any:
    """The address in four bytes at p."""
    for k in range(4):
        if k:
            out[n] = _DOT
            n += 1
        n = write_number(out, n, i64(data[p + k]))
    return n


@lean_routine
def write_ipv6(data: np.ndarray, p: int, out: np.ndarray, n: int) -> Any:
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
                out[n] = HEX[digit]
                n += 1
        k += 1
    return n
