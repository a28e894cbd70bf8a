"""Options of packets as they stood in the file, little-endian whatever the file was: column packet_options.

    code 2, length 2, value, zeros up to 4 bytes; no end of options

What an option's value consists of is only looked at to bring big-endian numbers into the other order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stratokit.formats.pcapng.blocks import EPB_DROPCOUNT, EPB_FLAGS, EPB_PID_TID, OPT_END
from stratokit.kernels import kernel, routine

if TYPE_CHECKING:
    from stratokit.formats.frames import FrameBatch

i64: Any = np.int64

EPB_PACKETID, EPB_QUEUE, EPB_VERDICT = 5, 6, 7
VERDICT_LENGTH = 9  # kind 1, then a u64 for kinds 1 (eBPF of tc) and 2 (XDP)
# Options of a private enterprise begin with its number: text and bytes, to be copied or not.
PRIVATE = (2988, 2989, 19372, 19373)
# Darwin's: process, service class, process it acts for, flags, flow, drop reason, generation.
DARWIN_WORDS = (0x8001, 0x8002, 0x8003, 0x8004, 0x8005, 0x8007, 0x800A)
DARWIN_HALVES = (0x8006, 0x8008)  # trace tag, drop line


@routine
def _half(data: np.ndarray, at: int, big: bool) -> Any:
    a, b = i64(data[at]), i64(data[at + 1])
    return a << 8 | b if big else b << 8 | a


@routine
def _reverse(out: np.ndarray, at: int, size: int) -> None:
    for k in range(size // 2):
        out[at + k], out[at + size - 1 - k] = out[at + size - 1 - k], out[at + k]


@routine
def _little(out: np.ndarray, code: int, at: int, length: int) -> None:
    """Turn the numbers in the value of an option around."""
    if length == 4 and (code in (EPB_FLAGS, EPB_QUEUE) or code in DARWIN_WORDS):
        _reverse(out, at, 4)
    elif length == 8 and code in (EPB_DROPCOUNT, EPB_PACKETID):
        _reverse(out, at, 8)
    elif length == 8 and code == EPB_PID_TID:
        _reverse(out, at, 4)
        _reverse(out, at + 4, 4)
    elif code == EPB_VERDICT and length == VERDICT_LENGTH:
        _reverse(out, at + 1, 8)
    elif length == 2 and code in DARWIN_HALVES:
        _reverse(out, at, 2)
    elif length >= 4 and code in PRIVATE:
        _reverse(out, at, 4)


@kernel
def _sizes(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    big: np.ndarray,
    drops: np.ndarray,
    out_ends: np.ndarray,
) -> None:
    """Where the options of each packet end when all follow one another."""
    total = i64(0)
    out_ends[0] = 0
    for i in range(len(starts)):
        at = starts[i]
        while at + 4 <= ends[i]:
            length = _half(data, at + 2, big[i])
            if _half(data, at, big[i]) == OPT_END or at + 4 + length > ends[i]:
                break
            at += 4 + (length + 3 & ~3)
            total += 4 + (length + 3 & ~3)
        if drops[i] >= 0:
            total += 12
        out_ends[i + 1] = total


@kernel
def _copy(
    data: np.ndarray,
    starts: np.ndarray,
    big: np.ndarray,
    drops: np.ndarray,
    out_ends: np.ndarray,
    out: np.ndarray,
) -> None:
    for i in range(len(starts)):
        at, to, end = starts[i], out_ends[i], out_ends[i + 1]
        if drops[i] >= 0:  # as dropcount: the block to write has no other place for it
            for k in range(12):
                out[to + k] = 0
            out[to], out[to + 2] = EPB_DROPCOUNT, 8
            out[to + 4], out[to + 5] = drops[i] & 255, drops[i] >> 8
            to += 12
        while to < end:
            code, length = _half(data, at, big[i]), _half(data, at + 2, big[i])
            out[to], out[to + 1] = code & 255, code >> 8
            out[to + 2], out[to + 3] = length & 255, length >> 8
            for k in range(length):
                out[to + 4 + k] = data[at + 4 + k]
            for k in range(length, length + 3 & ~3):  # not the padding of the file, which may be anything
                out[to + 4 + k] = 0
            if big[i]:
                _little(out, code, to + 4, length)
            at += 4 + (length + 3 & ~3)
            to += 4 + (length + 3 & ~3)


def raw_options(batch: FrameBatch) -> pa.Array:
    """Options of each packet; empty where it has none."""
    count = len(batch.offsets)
    ends = np.empty(count + 1, np.int64)
    _sizes(batch.data, batch.options_at, batch.options_end, batch.big, batch.drops, ends)
    out = np.empty(int(ends[-1]), np.uint8)
    _copy(batch.data, batch.options_at, batch.big, batch.drops, ends, out)
    return pa.Array.from_buffers(pa.large_binary(), count, [None, pa.py_buffer(ends), pa.py_buffer(out)])
