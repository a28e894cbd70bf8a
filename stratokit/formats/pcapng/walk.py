"""Walks the blocks of a pcapng section: packets into arrays, everything that is rare left to Python.

Packet blocks (all numbers in the byte order of the section, data and options padded to 4 bytes):

    enhanced 6: interface 4, time high 4, time low 4, captured 4, original 4, data, options
    simple 3:   original 4, data (of the first interface, cut at its snap length, no time)
    obsolete 2: interface 2, drops 2, time high 4, time low 4, captured 4, original 4, data, options
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.formats.pcapng.blocks import (
    CUSTOM,
    ENHANCED_PACKET,
    INTERFACE,
    JOURNAL,
    NAMES,
    OBSOLETE_PACKET,
    PROCESS,
    SECRETS,
    SECTION,
    SIMPLE_PACKET,
    STATISTICS,
)
from stratokit.kernels import kernel, routine

i64: Any = np.int64
u64: Any = np.uint64

# Why a walk ended.
FULL, MORE, BAD, COLD = 0, 1, 2, 3
# Readers of Wireshark and libpcap refuse larger blocks; one that claims to be is damage.
BLOCK_MAX = 16 << 20

# Blocks that are left to Python.
RARE = (SECTION, INTERFACE, NAMES, STATISTICS, SECRETS, PROCESS, JOURNAL, *CUSTOM)

# Those that no packet needs.
INFORMATIVE = (NAMES, STATISTICS, SECRETS, JOURNAL, *CUSTOM)

# Of an obsolete packet block.
DROPS_UNKNOWN = 0xFFFF

# What to do with a timestamp to get nanoseconds.
MULTIPLY, DIVIDE, SHIFT = 0, 1, 2

# One row an interface of the section: how its packets are to be read.
CLOCK = np.dtype(
    [
        ("link_type", "<u2"),
        ("snaplen", "<u4"),
        ("mode", "u1"),
        ("factor", "<u8"),  # to multiply or divide by; for SHIFT the power of two
        ("offset_ns", "<i8"),
    ],
    align=True,
)


@routine
def _word(data: np.ndarray, at: int, big: bool) -> Any:
    """An unsigned 32-bit number; the caller has checked that its bytes are there."""
    a, b, c, d = i64(data[at]), i64(data[at + 1]), i64(data[at + 2]), i64(data[at + 3])
    if big:
        return a << 24 | b << 16 | c << 8 | d
    return d << 24 | c << 16 | b << 8 | a


@routine
def _half(data: np.ndarray, at: int, big: bool) -> Any:
    """An unsigned 16-bit number; the caller has checked that its bytes are there."""
    a, b = i64(data[at]), i64(data[at + 1])
    return a << 8 | b if big else b << 8 | a


@kernel
def nanoseconds(time: Any, mode: int, factor: Any, offset_ns: int) -> Any:
    """A 64-bit timestamp in units of its interface as nanoseconds since 1970."""
    billion = u64(1_000_000_000)
    if mode == MULTIPLY:
        return i64(time * factor) + offset_ns
    if mode == DIVIDE:
        return i64(time // factor) + offset_ns
    if factor == 0:
        return i64(time * billion) + offset_ns
    fraction = time & ((u64(1) << factor) - u64(1))
    bits = factor
    if bits > u64(34):  # beyond that, fraction times a billion would pass 64 bits
        fraction >>= bits - u64(34)
        bits = u64(34)
    return i64((time >> factor) * billion + (fraction * billion >> bits)) + offset_ns


# One row a packet; the fields are those of frames.FrameBatch.
FOUND = np.dtype(
    [
        ("offsets", "<i8"),
        ("cap_lens", "<u4"),
        ("orig_lens", "<u4"),
        ("link_types", "<u2"),
        ("ts_ns", "<i8"),
        ("interfaces", "<u4"),
        ("options_at", "<i8"),
        ("options_end", "<i8"),
        ("big", "?"),
        ("blocks", "u1"),
        ("drops", "<i4"),
    ],
    align=True,
)


@routine
def _packet(
    data: np.ndarray,
    kind: int,
    body: int,
    end: int,
    big: bool,
    clocks: np.ndarray,
    clock_count: int,
    row: Any,
) -> int:
    """Read an enhanced or obsolete packet block: its interface's number, or -1 when it contradicts itself."""
    if body + 20 > end:
        return -1
    number = _word(data, body, big)
    row.drops = -1
    if kind == OBSOLETE_PACKET:
        number = _half(data, body, big)
        drops = _half(data, body + 2, big)
        row.drops = drops if drops != DROPS_UNKNOWN else -1
    cap_len = _word(data, body + 12, big)
    if number >= clock_count or body + 20 + cap_len > end:
        return -1
    clock = clocks[number]
    time = u64(_word(data, body + 4, big)) << u64(32) | u64(_word(data, body + 8, big))
    row.ts_ns = nanoseconds(time, clock.mode, clock.factor, clock.offset_ns)
    row.offsets = body + 20
    row.cap_lens = cap_len
    row.orig_lens = _word(data, body + 16, big)
    row.options_at = min(body + 20 + (cap_len + 3 & ~3), end)
    row.options_end = end
    return int(number)


@routine
def _simple_packet(
    data: np.ndarray, body: int, end: int, big: bool, clocks: np.ndarray, clock_count: int, row: Any
) -> int:
    """Read a simple packet block: interface 0, or -1 when there is none or no length."""
    if body + 4 > end or clock_count == 0:
        return -1
    orig_len = _word(data, body, big)
    cap_len = min(orig_len, end - body - 4)
    if clocks[0].snaplen:
        cap_len = min(cap_len, i64(clocks[0].snaplen))
    row.ts_ns = 0
    row.drops = -1
    row.offsets = body + 4
    row.cap_lens = cap_len
    row.orig_lens = orig_len
    row.options_at = 0
    row.options_end = 0
    return 0


@kernel
def walk(
    data: np.ndarray,
    at: int,
    big: bool,
    clocks: np.ndarray,
    clock_count: int,
    first_interface: int,
    rows: np.ndarray,
    count: int,
    pass_over: bool,
) -> tuple[int, int, int, int]:
    """Go on from block `at` with `count` packets found so far; pass over INFORMATIVE blocks or stop at them.

    Returns the number of packets, where the next block begins, why the walk ended, and how many blocks
    were passed over. A block is looked at only when all of it lies in `data`.
    """
    size = len(data)
    skipped = 0
    while count < len(rows):
        if at + 12 > size:
            return count, at, MORE, skipped
        kind = _word(data, at, big)
        if kind in RARE and not (pass_over and kind in INFORMATIVE):
            return count, at, COLD, skipped
        length = _word(data, at + 4, big)
        if length < 12 or length & 3 or length > BLOCK_MAX:
            return count, at, BAD, skipped
        if at + length > size:
            return count, at, MORE, skipped
        if _word(data, at + length - 4, big) != length:
            return count, at, BAD, skipped
        row = rows[count]
        if kind in (ENHANCED_PACKET, OBSOLETE_PACKET):
            number = _packet(data, kind, at + 8, at + length - 4, big, clocks, clock_count, row)
        elif kind == SIMPLE_PACKET:
            number = _simple_packet(data, at + 8, at + length - 4, big, clocks, clock_count, row)
        else:
            skipped += 1
            at += length
            continue
        if number < 0:
            return count, at, BAD, skipped
        row.big = big
        row.blocks = kind
        row.link_types = clocks[number].link_type
        row.interfaces = first_interface + number
        count += 1
        at += length
    return count, at, FULL, skipped
