"""What is remembered of a TCP connection while its segments go by: one record a direction, as numpy dtypes.

The names are those of RFC 9293 where it has one. Sequence numbers are as on the wire (32 bits, wrapping).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.kernels import lean_routine
from stratokit.streams.tcp_flags import FLAG_NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Window scale: not known because the SYN was not seen; known not to be used (RFC 7323 section 2.2).
SCALE_UNKNOWN, SCALE_UNUSED = -1, -2
SACK_RANGES = 4  # what fits into the options (RFC 2018 section 3)
# Segments of one direction whose acknowledgment is awaited; of more, no time is taken.
UNACKED_MAX = 10_000
POOL_MAX = 1 << 22  # of all directions
HOLES = 16  # of one direction that are watched at once
NOWHERE = -1
NEVER = np.iinfo(np.int64).min

WRAP = 0xFFFFFFFF  # sequence numbers are modulo 2^32
_HALF = 0x80000000

SIDE = np.dtype(
    [
        ("next_seq", "u4"),  # behind the highest byte sent
        ("last_ack", "u4"),
        ("contiguous", "u4"),  # the highest that may be acknowledged: up to the first hole
        ("first_seq", "u4"),
        ("window", "i4"),  # last one, unscaled; NOWHERE before
        ("scale", "i1"),
        ("window_of_syn", "u1"),  # the last window stood in a SYN and is never scaled
        ("unseen_told", "u1"),  # one was told already; once is enough until this side acknowledges more
        ("guessed", "u1"),  # first_seq was learnt from the other side's first ACK
        ("began", "u1"),  # any segment was seen
        ("acked", "u1"),  # an ACK of it was seen, and no hole since: bytes in flight are known
        ("tidy", "u1"),  # awaited segments stand in order of their numbers
        ("sacks", "u1"),
        ("last_flags", "u4"),
        ("dup_acks", "u4"),
        ("next_seq_ns", "i8"),
        ("last_ack_ns", "i8"),
        ("newest", "i4"),  # segments that await their ACK: a doubly linked list in the pool
        ("oldest", "i4"),
        ("awaiting", "i4"),
        ("holes", "u4"),
        ("trouble", "i4"),  # its record among those of TROUBLE; 0 while nothing of that happened
        ("edges", "i4"),  # its record among those of EDGES; 0 without holes and SACKs
        # sums for the table
        ("payload", "i8"),
        ("first_data_ns", "i8"),
        ("zero_ns", "i8"),
        ("zero_since_ns", "i8"),
        ("in_flight_max", "i8"),
        ("rtts", "i8"),
        ("rtt_sum_ns", "i8"),
        ("rtt_min_ns", "i8"),
        ("rtt_max_ns", "i8"),
    ],
    align=True,
)
# What only directions have in which something was found; most have nothing.
TROUBLE = np.dtype(
    [
        ("counts", "u4", len(FLAG_NAMES)),
        ("missing", "i8"),
    ],
    align=True,
)
# Where holes and ranges of the last SACK begin and end.
EDGES = np.dtype(
    [
        ("hole_left", "u4", HOLES),
        ("hole_right", "u4", HOLES),
        ("sack_left", "u4", SACK_RANGES),
        ("sack_right", "u4", SACK_RANGES),
    ],
    align=True,
)
SEGMENT = np.dtype(
    [
        ("seq", "u4"),
        ("end", "u4"),
        ("ts_ns", "i8"),
        ("older", "i4"),
        ("newer", "i4"),
        ("phantom", "u1"),
    ],
    align=True,
)
CONNECTION = np.dtype(
    [
        ("syn_ns", "i8"),  # the latest SYN
        ("initial_rtt_ns", "i8"),  # 0 while unknown
        ("reused", "u1"),  # its ports had a connection before, and its SYN is yet to come
        ("reused_ports", "u1"),
    ],
    align=True,
)


@lean_routine
def after(a: int, b: int) -> bool:
    """Whether sequence number a comes after b (RFC 9293 section 3.4)."""
    return ((b - a) & WRAP) >= _HALF


def new_connections(count: int) -> NDArray[Any]:
    """Records of so many connections that nothing is known of."""
    connections = np.zeros(count, CONNECTION)
    connections["syn_ns"] = NEVER
    return connections


def new_sides(count: int) -> NDArray[Any]:
    """Records of so many directions that nothing is known of."""
    side = np.zeros(1, SIDE)
    for name in ("newest", "oldest", "window"):
        side[name] = NOWHERE
    side["scale"] = SCALE_UNKNOWN
    side["acked"] = True
    for name in ("first_data_ns", "zero_since_ns"):
        side[name] = NEVER
    return np.repeat(side, count)


class Records:
    """Records that few directions have; `used` counts them, the first being that of all that have none."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.records = np.zeros(1, dtype)
        self.used = np.ones(1, np.int64)

    def make_room(self, count: int) -> None:
        """Have so many unused records."""
        used = int(self.used[0])
        if self.records.size - used >= count:
            return
        if used > count:
            self.records.resize(used + count, refcheck=False)  # without a copy; nobody else holds them
        else:
            records = np.zeros(used + 2 * count, self.records.dtype)  # takes no memory before it is written
            records[:used] = self.records[:used]
            self.records = records


class Pool:
    """Room for segments that await their acknowledgment; grows with their number up to `POOL_MAX`.

    `free` is the first free entry and how many there are; `older` leads from each to the next.
    """

    def __init__(self) -> None:
        self.entries = np.zeros(0, SEGMENT)
        self.free = np.zeros(2, np.int64)

    def make_room(self, count: int) -> None:
        """Have so many entries free, if that is allowed."""
        have = self.entries.size
        if self.free[1] >= count or have >= POOL_MAX:
            return
        more = max(count, have // 2)
        self.entries.resize(have + more, refcheck=False)  # without a copy; nobody else holds them
        self.entries["older"][have:] = np.arange(have + 1, have + more + 1)
        self.entries["older"][-1] = self.free[0]
        self.free[:] = have, self.free[1] + more
