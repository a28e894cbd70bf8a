"""What a connection's segments add up to: holes in a stream, and the sums that the table shows."""

from __future__ import annotations

from typing import Any

from stratokit.dissect.layers import i64
from stratokit.kernels import lean_routine
from stratokit.streams.flows import FIN, RST, SYN
from stratokit.streams.tcp_state import HOLES, NEVER, WRAP, after


@lean_routine
def open_hole(seq: int, fwd: Any, trouble: Any, edges: Any) -> None:
    """Remember bytes that were passed over; of too many holes the oldest stays open for good."""
    n = i64(fwd.holes)
    if n == HOLES:
        trouble.missing += (i64(edges.hole_right[0]) - i64(edges.hole_left[0])) & WRAP
        n -= 1
        for k in range(n):
            edges.hole_left[k], edges.hole_right[k] = edges.hole_left[k + 1], edges.hole_right[k + 1]
    edges.hole_left[n], edges.hole_right[n] = fwd.next_seq, seq
    fwd.holes = n + 1


@lean_routine
def fill_holes(seq: int, end: int, fwd: Any, trouble: Any, edges: Any) -> None:
    """Take what a late segment brings out of the holes; one in the middle of a hole makes two of it."""
    n = i64(0)
    rest_left = rest_right = i64(0)
    for k in range(fwd.holes):
        left, right = i64(edges.hole_left[k]), i64(edges.hole_right[k])
        if after(end, left) and after(right, seq):
            if after(seq, left):
                if after(right, end):
                    rest_left, rest_right = end, right
                right = seq
            else:
                left = end if after(right, end) else right
        if left != right:
            edges.hole_left[n], edges.hole_right[n] = left, right
            n += 1
    if rest_left != rest_right and n < HOLES:
        edges.hole_left[n], edges.hole_right[n] = rest_left, rest_right
        n += 1
    else:
        trouble.missing += (rest_right - rest_left) & WRAP
    fwd.holes = n


@lean_routine
def _bit(value: int) -> int:
    n = 0
    while value > 1:
        value >>= 1
        n += 1
    return n


@lean_routine
def count(found: int, trouble: Any) -> None:
    """Each flag by itself."""
    while found:
        low = found & -found
        trouble.counts[_bit(low)] += 1
        found ^= low


@lean_routine
def sum_up(
    ts: int, flags: int, length: int, window: int, rtt: int, in_flight: int, fwd: Any, rev: Any
) -> None:
    """What the table tells of a direction."""
    if length > 0:
        fwd.payload += length
        if fwd.first_data_ns == NEVER:
            fwd.first_data_ns = ts
    fwd.in_flight_max = max(fwd.in_flight_max, in_flight)
    if rtt != NEVER:  # of the data that the other side sent
        rev.rtts += 1
        rev.rtt_sum_ns += rtt
        rev.rtt_min_ns = min(rtt, i64(rev.rtt_min_ns)) if rev.rtts > 1 else rtt
        rev.rtt_max_ns = max(rtt, i64(rev.rtt_max_ns)) if rev.rtts > 1 else rtt
    if flags & (SYN | FIN | RST):
        return
    if window == 0 and fwd.zero_since_ns == NEVER:
        fwd.zero_since_ns = ts
    elif window and fwd.zero_since_ns != NEVER:
        fwd.zero_ns += ts - i64(fwd.zero_since_ns)
        fwd.zero_since_ns = NEVER
