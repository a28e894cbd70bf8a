"""TCP (RFC 9293) with its options: MSS, window scale and timestamps (RFC 7323), SACK (RFC 2018, RFC 2883)."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import (
    HAS_MSS,
    HAS_SACK,
    HAS_SACK_PERMITTED,
    HAS_TCP,
    HAS_TCP_OPTIONS,
    HAS_TIMESTAMPS,
    HAS_WINDOW_SCALE,
    SACK_BLOCKS,
    STOP_LENGTH,
    STOP_SNAPLEN,
    Row,
    be16,
    be32,
    lacking,
    u8,
    u64,
)
from stratokit.dissect.transport import payload, ports
from stratokit.kernels import kernel, routine

END, NOP, MSS, WINDOW_SCALE, SACK_PERMITTED, SACK, TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8
# The column tcp_options has a bit for each kind; the last one stands for all kinds from here on.
KINDS_MAX = 63
# Nearly every segment of a connection has NOP, NOP, timestamps (RFC 7323 appendix A) and nothing else.
PADDED_TIMESTAMPS = NOP << 24 | NOP << 16 | TIMESTAMPS << 8 | 10
PADDED_KINDS = u64(1 << NOP | 1 << TIMESTAMPS)


@kernel
def tcp(data: np.ndarray, start: int, at: int, cap: int, wire: int, row: Row) -> int:
    """Ports 32, sequence 32, acknowledgment 32, header length in words 4, reserved 3, flags 9, window 16,
    checksum 16, urgent pointer 16, options.
    """
    ports(data, at, cap, row)
    stop = lacking(16, at, cap, wire)
    if stop:
        return stop
    row.tcp_seq = be32(data, at + 4, cap)
    row.tcp_ack = be32(data, at + 8, cap)
    flags = be16(data, at + 12, cap)
    row.tcp_flags = flags & 0x01FF
    row.tcp_window = be16(data, at + 14, cap)
    row.layers |= HAS_TCP
    header = (flags >> 12) * 4
    if header < 20 or at + header > wire:
        return STOP_LENGTH
    payload(start, at + header, cap, wire, row)
    if header == 20:
        return lacking(header, at, cap, wire)
    if header == 32 and at + 32 <= cap and be32(data, at + 20, cap) == PADDED_TIMESTAMPS:
        row.tcp_options = PADDED_KINDS
        row.tcp_tsval = be32(data, at + 24, cap)
        row.tcp_tsecr = be32(data, at + 28, cap)
        row.layers |= HAS_TCP_OPTIONS | HAS_TIMESTAMPS
        return 0
    return options(data, at + 20, at + header, min(cap, at + header), row)


@kernel
def options(data: np.ndarray, at: int, end: int, cap: int, row: Row) -> int:
    """Kind 8, length with both 8, value; END and NOP are a kind alone. A kind with a length that is not its
    own is passed; a length that leaves the header ends the walk.
    """
    kinds = u64(0)
    while at < end:
        if at + 2 > cap:
            if at >= cap:
                return STOP_SNAPLEN
            kind = u8(data, at, cap)
            if kind not in (END, NOP):
                return STOP_SNAPLEN if cap < end else STOP_LENGTH
        else:
            kind = u8(data, at, cap)
        kinds |= u64(1) << u64(min(kind, KINDS_MAX))
        if kind == END:
            break
        if kind == NOP:
            at += 1
            continue
        size = u8(data, at + 1, cap)
        if size < 2 or at + size > end:
            return STOP_LENGTH
        if at + size > cap:
            return STOP_SNAPLEN
        _option(data, at, cap, kind, size, row)
        at += size
    row.tcp_options = kinds
    row.layers |= HAS_TCP_OPTIONS
    return 0


@routine
def _option(data: np.ndarray, at: int, cap: int, kind: int, size: int, row: Row) -> None:
    """One option that was captured in full; of two of a kind the last one counts, as for a receiver."""
    if kind == TIMESTAMPS and size == 10:
        row.tcp_tsval = be32(data, at + 2, cap)
        row.tcp_tsecr = be32(data, at + 6, cap)
        row.layers |= HAS_TIMESTAMPS
    elif kind == SACK and size >= 10 and size & 7 == 2:
        count = min(size >> 3, SACK_BLOCKS)
        row.tcp_sack_count = count
        for k in range(count):
            row.tcp_sack_left[k] = be32(data, at + 2 + 8 * k, cap)
            row.tcp_sack_right[k] = be32(data, at + 6 + 8 * k, cap)
        row.layers |= HAS_SACK
    elif kind == MSS and size == 4:
        row.tcp_mss = be16(data, at + 2, cap)
        row.layers |= HAS_MSS
    elif kind == WINDOW_SCALE and size == 3:
        row.tcp_window_scale = u8(data, at + 2, cap)
        row.layers |= HAS_WINDOW_SCALE
    elif kind == SACK_PERMITTED and size == 2:
        row.layers |= HAS_SACK_PERMITTED
