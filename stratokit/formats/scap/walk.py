"""Walks the blocks of a scap file: events into rows, everything else left to Python.

An event block (V1 has no number of parameters, some have no flags):

    8  2  cpu     -  4  flags     -  8  time     -  8  tid     -  4  length of all that follows the flags
    -  2  type    -  4  number of parameters     -  -  lengths, 2 bytes each or 4     -  -  parameters
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.formats.scap.blocks import (
    ALIAS_SUFFIX,
    BLOCK_MAX,
    EVENTS,
    FLAGGED_EVENTS,
    INTERFACE,
    PACKETS,
    V1_EVENTS,
)
from stratokit.formats.scap.params import Tables
from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_part as part
from stratokit.kernels import lean_routine as routine
from stratokit.loads import load16, load32, load64

i64: Any = np.int64
u64: Any = np.uint64

# Why a walk ended.
FULL, MORE, BAD, COLD = 0, 1, 2, 3

# What is wrong with an event.
GOOD, UNKNOWN, LYING = 0, 1, 2

# One row an event; positions count in the window. Small, as all of them are written, read and kept once.
EVENT = np.dtype(
    [
        ("ts", "<i8"),
        ("tid", "<i8"),
        ("at", "<i4"),
        ("size", "<i4"),
        ("lens", "<i4"),
        ("params", "<i4"),
        ("count", "<i4"),
        ("flags", "<u4"),
        ("type", "<u2"),
        ("cpu", "<u2"),
        ("wide", "u1"),
        ("wrong", "u1"),
    ],
    align=True,
)


@part
def word(data: np.ndarray, at: int) -> Any:
    """An unsigned 32-bit number; the caller has checked that its bytes are there."""
    return load32(data, at)


@part
def half(data: np.ndarray, at: int) -> Any:
    """An unsigned 16-bit number; the caller has checked that its bytes are there."""
    return load16(data, at)


@part
def long(data: np.ndarray, at: int) -> Any:
    """A 64-bit number; the caller has checked that its bytes are there."""
    return load64(data, at)


@routine
def _count_v1(data: np.ndarray, at: int, left: int, most: int, wide: int) -> int:
    """Parameters of an event that does not say how many: the most whose lengths and bytes fill it."""
    best = -1
    total = i64(0)
    step = 4 if wide else 2
    for n in range(most + 1):
        if n * step + total == left:
            best = n
        if (n + 1) * step > left:
            break
        total += word(data, at + n * step) if wide else half(data, at + n * step)
    return best


@part
def _event(data: np.ndarray, kind: int, body: int, end: int, tables: Tables, row: Any) -> None:
    """Read an event block; one that contradicts itself keeps what its header says."""
    row.wrong = LYING
    row.count = 0
    row.type = 0xFFFF
    row.flags = 0
    row.wide = 0
    row.ts = 0
    row.tid = -1
    row.cpu = 0
    at = body + 2
    if kind in FLAGGED_EVENTS:
        at += 4
    head = 22 if kind in V1_EVENTS else 26
    if at + head > end:
        return
    row.cpu = half(data, body)
    if kind in FLAGGED_EVENTS:
        row.flags = word(data, body + 2)
    row.ts = long(data, at)
    row.tid = long(data, at + 8)
    length = word(data, at + 16)
    type_ = half(data, at + 20)
    row.type = type_
    if length < head or at + length > end:
        return
    if type_ >= tables.arity.size:
        row.wrong = UNKNOWN
        return
    row.wide = tables.large[type_]
    lens = at + head
    left = length - head
    if kind in V1_EVENTS:
        count = _count_v1(data, lens, left, i64(tables.arity[type_]), row.wide)
    else:
        count = word(data, at + 22)
    step = 4 if row.wide else 2
    if count < 0 or count * step > left:
        return
    total = count * step
    for n in range(count):
        total += word(data, lens + 4 * n) if row.wide else half(data, lens + 2 * n)
    if total > left:
        return
    row.lens = lens
    row.params = lens + count * step
    # Those beyond the table stay in the block; nobody knows what they are.
    row.count = min(count, i64(tables.arity[type_]))
    row.wrong = GOOD


@kernel
def event_times(data: np.ndarray, ends: np.ndarray, times: np.ndarray) -> None:
    """Time of each event block; of one that is too short the time of the one before."""
    last = i64(0)
    for i in range(times.size):
        at = ends[i]
        if at + 22 <= ends[i + 1]:
            last = long(data, at + (14 if word(data, at) in FLAGGED_EVENTS else 10))
        times[i] = last


@kernel
def kinds_of(data: np.ndarray) -> tuple[bool, bool, int]:
    """Whether any blocks are of packets (an interface, too, is there for packets), and any of sysdig; and
    where the next block begins, which may be behind the end.
    """
    packets = events = False
    at = 0
    while at + 12 <= len(data) and not (packets and events):
        kind, length = word(data, at), word(data, at + 4)
        if length < 12:
            break
        packets = packets or kind == INTERFACE or kind in PACKETS
        events = events or 0x201 <= kind <= 0x222 or (kind >> 31 == 1 and kind & 0xFFFF == ALIAS_SUFFIX)
        at += length
    return packets, events, at


@kernel
def walk(
    data: np.ndarray, at: int, tables: Tables, rows: np.ndarray, count: int, passed: np.ndarray
) -> tuple[int, int, int]:
    """Go on from block `at` with `count` events found so far.

    Returns the number of events, where the next block begins, and why the walk ended. A block is looked at
    only when all of it lies in `data`. Blocks of packets are counted in `passed`.
    """
    size = len(data)
    while count < len(rows):
        if at + 12 > size:
            return count, at, MORE
        kind = word(data, at)
        if kind not in EVENTS and kind not in PACKETS:
            return count, at, COLD
        length = word(data, at + 4)
        if length < 12 or length > BLOCK_MAX:
            return count, at, BAD
        if at + length > size:
            return count, at, MORE
        if word(data, at + length - 4) != length:
            return count, at, BAD
        if kind in PACKETS:
            passed[0] += 1
            at += length
            continue
        row = rows[count]
        _event(data, kind, at + 8, at + length - 4, tables, row)
        row.at = at
        row.size = length
        count += 1
        at += length
    return count, at, FULL
