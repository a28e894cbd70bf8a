"""Segments that await their acknowledgment: a list for each direction, inside one pool.

As long as a direction's segments follow each other the list is looked at from its ends only. One that was
sent again leaves it untidy until all is acknowledged; then each ACK costs a look at the whole list, which has
at most `UNACKED_MAX` entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import lean_routine
from stratokit.streams.tcp_state import NEVER, NOWHERE, WRAP, after


@lean_routine
def sent_ns(seq: int, side: Any, pool: np.ndarray) -> int:
    """When the segment that is sent again was sent: the awaited one at this number, else the oldest one."""
    ts: int = i64(side.next_seq_ns)
    at = i64(side.newest)
    while at != NOWHERE:
        ts = i64(pool[at].ts_ns)
        if i64(pool[at].seq) == seq:
            break
        at = i64(pool[at].older)
    return ts


@lean_routine
def await_ack(
    seq: int, end: int, phantom: int, ts: int, fwd: Any, pool: np.ndarray, free: np.ndarray
) -> None:
    at = i64(free[0])
    free[0] = pool[at].older
    free[1] -= 1
    entry = pool[at]
    entry.seq, entry.end, entry.ts_ns = seq, end, ts
    entry.phantom = phantom
    entry.older, entry.newer = fwd.newest, NOWHERE
    if fwd.newest == NOWHERE:
        fwd.oldest = at
        fwd.tidy = True
    else:
        if after(i64(pool[fwd.newest].end), seq):
            fwd.tidy = False
        pool[fwd.newest].newer = at
    fwd.newest = at
    fwd.awaiting += 1


@lean_routine
def _forget(at: int, side: Any, pool: np.ndarray, free: np.ndarray) -> None:
    older, newer = i64(pool[at].older), i64(pool[at].newer)
    if newer == NOWHERE:
        side.newest = older
    else:
        pool[newer].older = older
    if older == NOWHERE:
        side.oldest = newer
    else:
        pool[older].newer = newer
    pool[at].older = free[0]
    free[0] = at
    free[1] += 1
    side.awaiting -= 1


@lean_routine
def acknowledge(ack: int, ts: int, rev: Any, pool: np.ndarray, free: np.ndarray) -> int:
    """Forget what is acknowledged; round trip of the oldest segment that ends at the ACK, or NEVER."""
    rtt: int = i64(NEVER)
    tidy = bool(rev.tidy)
    at = i64(rev.oldest) if tidy else i64(rev.newest)
    while at != NOWHERE:
        entry = pool[at]
        then = i64(entry.newer) if tidy else i64(entry.older)
        seq, end = i64(entry.seq), i64(entry.end)
        if ack == end:
            rtt = ts - i64(entry.ts_ns)
            _forget(at, rev, pool, free)
        elif after(ack, seq) and not after(ack, end):
            entry.seq = ack
        elif not after(end, ack):
            _forget(at, rev, pool, free)
        elif tidy:
            break
        at = then
    return rtt


@lean_routine
def in_flight(seq: int, end: int, fwd: Any, rev: Any, edges: Any, pool: np.ndarray) -> int:
    """From the first byte that awaits its ACK to the last one sent, less what the last SACK covers.

    `edges` are those of `rev`, where its SACK stands.
    """
    low, high = seq, end
    at = i64(fwd.newest)
    if fwd.tidy and at != NOWHERE:
        low, high = i64(pool[fwd.oldest].seq), i64(pool[at].end) - i64(pool[at].phantom)
        at = NOWHERE
    while at != NOWHERE:
        last = (i64(pool[at].end) - i64(pool[at].phantom)) & WRAP
        if after(last, high):
            high = last
        if after(low, i64(pool[at].seq)):
            low = i64(pool[at].seq)
        at = i64(pool[at].older)
    sacked = 0
    for k in range(rev.sacks):
        sacked += (i64(edges.sack_right[k]) - i64(edges.sack_left[k])) & WRAP
    found = ((high - low) & WRAP) - sacked
    return max(0, found)
