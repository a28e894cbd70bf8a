"""Judging TCP segments one after the other, as Wireshark 4.0 does: docs/tcp.md states each rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import lean_kernel, lean_routine
from stratokit.streams.awaited import acknowledge, await_ack, in_flight, sent_ns
from stratokit.streams.flows import ACK, FIN, RST, SYN
from stratokit.streams.tcp_flags import (
    ACK_LOST_SEGMENT,
    DUPLICATE_ACK,
    DUPLICATE_SACK,
    FAST_RETRANSMISSION,
    KEEP_ALIVE,
    KEEP_ALIVE_ACK,
    LOST_SEGMENT,
    OUT_OF_ORDER,
    RETRANSMISSION,
    REUSED_PORTS,
    RTO_RETRANSMISSION,
    SPURIOUS_RETRANSMISSION,
    WINDOW_FULL,
    WINDOW_UPDATE,
    ZERO_WINDOW,
    ZERO_WINDOW_PROBE,
    ZERO_WINDOW_PROBE_ACK,
)
from stratokit.streams.tcp_state import NEVER, SCALE_UNKNOWN, SCALE_UNUSED, UNACKED_MAX, WRAP, after
from stratokit.streams.tcp_sums import count, fill_holes, open_hole, sum_up

FAST_NS = 20_000_000  # a fast retransmission follows the last duplicate ACK within this
OUT_OF_ORDER_NS = 3_000_000  # a segment out of order is at most this late where no round trip is known
# What a direction awaits before its first segment, and after one that ends at the number 0, as the RST does
# with which a closed port answers a SYN: what comes next is judged as if it were the first.
UNSET = 0
RTO_MIN_NS = 200_000_000  # Linux waits no less before it sends again by its timer


@lean_routine
def _is_probe(seq: int, length: int, fwd: Any, rev: Any) -> bool:
    return bool(length == 1 and fwd.began and seq == i64(fwd.next_seq) and rev.window == 0)


@lean_routine
def _window_flags(seq: int, ack: int, length: int, window: int, fwd: Any, rev: Any) -> int:
    """What a segment without SYN, FIN, RST says about windows, probes and repeated ACKs."""
    next_seq, last_ack = i64(fwd.next_seq), i64(fwd.last_ack)
    found = 0
    if length <= 1 and seq == (next_seq - 1) & WRAP:
        found |= KEEP_ALIVE
    repeats = length == 0 and seq == next_seq and ack == last_ack
    if repeats and window and window != fwd.window:
        found |= WINDOW_UPDATE
    if length > 0 and rev.scale != SCALE_UNKNOWN:
        shift = 0 if rev.scale == SCALE_UNUSED or rev.window_of_syn else i64(rev.scale)
        if (seq + length) & WRAP == (i64(rev.last_ack) + (i64(rev.window) << shift)) & WRAP:
            found |= WINDOW_FULL
    same = length == 0 and seq == next_seq and window == fwd.window
    if same and window and ack == last_ack and rev.last_flags & KEEP_ALIVE:
        return found | KEEP_ALIVE_ACK
    accepts = ack == last_ack or ack == (last_ack + 1) & WRAP
    if same and window == 0 and accepts and rev.last_flags & ZERO_WINDOW_PROBE:
        if ack != last_ack:  # the byte of the probe was taken after all
            rev.next_seq = (i64(rev.next_seq) + 1) & WRAP
            rev.contiguous = (i64(rev.contiguous) + 1) & WRAP
        return found | ZERO_WINDOW_PROBE_ACK
    if same and window and ack == last_ack:
        fwd.dup_acks += 1
        found |= DUPLICATE_ACK
    return found


@lean_routine
def _acked_unseen(seq: int, ack: int, fwd: Any, rev: Any) -> int:
    """An ACK of bytes that were never seen, or of a probe's byte when the window opens again."""
    resumes = ack == (i64(fwd.last_ack) + 1) & WRAP and seq == i64(fwd.next_seq)
    if resumes and rev.last_flags & ZERO_WINDOW_PROBE:
        rev.next_seq = (i64(rev.next_seq) + 1) & WRAP
        rev.contiguous = (i64(rev.contiguous) + 1) & WRAP
        return WINDOW_UPDATE
    rev.dup_acks = 0
    if rev.contiguous == rev.next_seq:  # no hole: the unseen bytes come after everything that was sent
        if rev.unseen_told:
            return 0
        rev.unseen_told = True
    rev.contiguous = rev.next_seq
    return ACK_LOST_SEGMENT


@lean_routine
def _retransmission(
    seq: int, length: int, flags: int, ts: int, own: bool, conn: Any, fwd: Any, rev: Any, pool: np.ndarray
) -> int:
    """Which kind of repetition, if any, a segment with data, SYN or FIN is.

    `own`: it was seen at its sender's socket, which sends nothing out of order.
    """
    next_seq, last_ack = i64(fwd.next_seq), i64(rev.last_ack)
    end = (seq + length) & WRAP
    behind = next_seq != UNSET and after(next_seq, seq)
    if length > 1 and (next_seq - 1) & WRAP == seq:  # brings new bytes after a probe
        behind = False
    if length > 0 and last_ack and not after(end, last_ack):
        return RETRANSMISSION | SPURIOUS_RETRANSMISSION
    if not behind:
        return 0
    if rev.dup_acks >= 2 and last_ack == seq and 0 <= ts - i64(rev.last_ack_ns) < FAST_NS:
        return RETRANSMISSION | FAST_RETRANSMISSION
    late = i64(conn.initial_rtt_ns) if conn.initial_rtt_ns else OUT_OF_ORDER_NS
    last = (end + (1 if flags & (SYN | FIN) else 0)) & WRAP
    if not own and 0 <= ts - i64(fwd.next_seq_ns) < late and next_seq != last:
        return OUT_OF_ORDER
    if ts - sent_ns(seq, fwd, pool) >= RTO_MIN_NS:
        return RETRANSMISSION | RTO_RETRANSMISSION
    return RETRANSMISSION


@lean_routine
def _learn_scale(flags: int, scale: int, fwd: Any, rev: Any) -> None:
    """Window scaling holds when both SYNs offer it (RFC 7323 section 2.2)."""
    fwd.window_of_syn = flags & SYN != 0
    if not flags & SYN:
        return
    if scale < 0 or (flags & ACK and rev.scale == SCALE_UNUSED):
        fwd.scale = SCALE_UNUSED
        rev.scale = SCALE_UNUSED
    else:
        fwd.scale = scale


@lean_routine
def _is_duplicate_sack(ack: int, count: int, first: tuple[int, int], second: tuple[int, int]) -> bool:
    """RFC 2883 section 4: the first range lies below the ACK, or within the second one."""
    if not after(first[1], ack):
        return True
    return count > 1 and not after(second[0], first[0]) and not after(first[1], second[1])


@lean_routine
def _begin(seq: int, ack: int, flags: int, ts: int, conn: Any, fwd: Any, rev: Any) -> int:
    """Take what the handshake tells: first numbers, initial round trip, ports used again."""
    found = 0
    if flags & SYN:
        anew = flags & ACK == 0
        if anew:
            conn.syn_ns = ts
            if fwd.began:  # what came behind a hole does not count any more
                fwd.next_seq = fwd.contiguous
                fwd.holes = 0
        if (anew and conn.reused) or (fwd.began and seq != i64(fwd.first_seq)):
            found = REUSED_PORTS
            conn.reused = False
            conn.reused_ports = True
    if not fwd.began:
        fwd.first_seq = seq if flags & SYN else (seq - 1) & WRAP
        if flags & ACK and not rev.began and not rev.guessed:
            rev.first_seq = (ack - 1) & WRAP
            rev.guessed = True
    first = seq == (i64(fwd.first_seq) + 1) & WRAP and ack == (i64(rev.first_seq) + 1) & WRAP
    if first and flags & (SYN | ACK) == ACK and conn.initial_rtt_ns == 0 and conn.syn_ns != NEVER:
        conn.initial_rtt_ns = ts - conn.syn_ns
    return found


@lean_routine
def _windows_and_holes(seq: int, ack: int, length: int, flags: int, window: int, fwd: Any, rev: Any) -> int:
    found = 0
    beyond = i64(fwd.next_seq) != UNSET and after(seq, i64(fwd.next_seq))
    if _is_probe(seq, length, fwd, rev):
        return ZERO_WINDOW_PROBE
    control = flags & (SYN | FIN | RST)
    if window == 0 and control == 0:
        found |= ZERO_WINDOW
    if beyond and not flags & RST:
        found |= LOST_SEGMENT
        fwd.acked = False
    if control == 0:
        found |= _window_flags(seq, ack, length, window, fwd, rev)
    return found


@lean_routine
def _acknowledgment(seq: int, ack: int, flags: int, found: int, fwd: Any, rev: Any) -> int:
    if found & DUPLICATE_ACK:
        fwd.unseen_told = True
    if ack != i64(fwd.last_ack):
        fwd.dup_acks = 0
        fwd.unseen_told = False
    if i64(rev.contiguous) != UNSET and flags & ACK and after(ack, i64(rev.contiguous)):
        return found | _acked_unseen(seq, ack, fwd, rev)
    return found


@lean_routine
def _advance(seq: int, ack: int, end: int, ts: int, window: int, found: int, fwd: Any) -> None:
    if not found & ZERO_WINDOW_PROBE:
        if i64(fwd.next_seq) == UNSET or after(end, i64(fwd.next_seq)):
            fwd.next_seq = end
            fwd.next_seq_ns = ts
        if i64(fwd.contiguous) == UNSET or seq == i64(fwd.contiguous):
            fwd.contiguous = fwd.next_seq
    fwd.began = True
    fwd.window = window
    fwd.last_ack = ack
    fwd.last_ack_ns = ts
    fwd.last_flags = found


@lean_routine
def _learn_sacks(ack: int, flags: int, count: int, sacked: np.ndarray, i: int, edges: Any) -> int:
    for k in range(count):
        edges.sack_left[k], edges.sack_right[k] = sacked[i, 2 * k], sacked[i, 2 * k + 1]
    if flags & ACK == 0:
        return 0
    first, second = (i64(sacked[i, 0]), i64(sacked[i, 1])), (i64(sacked[i, 2]), i64(sacked[i, 3]))
    return DUPLICATE_SACK if _is_duplicate_sack(ack, count, first, second) else 0


@lean_routine
def _place(known: int, used: np.ndarray) -> int:
    """Number of the record that a direction has, or of an unused one."""
    if known == 0:
        known = used[0]
        used[0] += 1
    return known


@lean_kernel
def analyse(segments: Any, state: Any, out: Any) -> None:
    """Judge segments in capture order and keep what they tell in `state`.

    segments: arrays connection, side, ts_ns, flags, seq, ack, window, length, scale (-1: no option),
    SACK ranges, their left and right edges, whether seen at the sender's socket. state: connections, sides,
    pool, its first free entry and how many there are, records of trouble and how many are used,
    those of edges and how many are used.
    out: flags, round trip (NEVER for none), bytes in flight, number of the duplicate ACK.
    """
    connection, side, times, all_flags, seqs, acks, windows, lengths, scales, sacks, sacked, own = segments
    connections, sides, pool, free, troubles, used, edges, edges_used = state
    out_flags, out_rtt, out_in_flight, out_number = out
    for i in range(connection.size):
        c = i64(connection[i])
        conn, fwd, rev = connections[c], sides[2 * c + side[i]], sides[2 * c + 1 - side[i]]
        flags, ts = i64(all_flags[i]), times[i]
        seq, ack, length, window = i64(seqs[i]), i64(acks[i]), i64(lengths[i]), i64(windows[i])
        phantom = 1 if flags & (SYN | FIN) else 0
        data_end = (seq + length) & WRAP
        end = (data_end + phantom) & WRAP
        found = _begin(seq, ack, flags, ts, conn, fwd, rev)
        if flags & ACK:
            rev.acked = True
        found |= _windows_and_holes(seq, ack, length, flags, window, fwd, rev)
        if found & LOST_SEGMENT:
            fwd.trouble, fwd.edges = _place(i64(fwd.trouble), used), _place(i64(fwd.edges), edges_used)
            open_hole(seq, fwd, troubles[fwd.trouble], edges[fwd.edges])
        if found & DUPLICATE_ACK:
            out_number[i] = fwd.dup_acks
        found = _acknowledgment(seq, ack, flags, found, fwd, rev)
        if length > 0 or phantom:
            if not found & KEEP_ALIVE:
                found |= _retransmission(seq, length, flags, ts, own[i], conn, fwd, rev, pool)
            if fwd.awaiting < UNACKED_MAX and free[1] > 0:
                await_ack(seq, end, phantom, ts, fwd, pool, free)
        if length > 0 and fwd.holes:
            fill_holes(seq, data_end, fwd, troubles[fwd.trouble], edges[fwd.edges])
        _advance(seq, ack, end, ts, window, found, fwd)
        rtt = acknowledge(ack, ts, rev, pool, free)
        if length > 0 and fwd.acked:
            out_in_flight[i] = in_flight(seq, data_end, fwd, rev, edges[rev.edges], pool)
        _learn_scale(flags, scales[i], fwd, rev)
        fwd.sacks = sacks[i]
        if sacks[i]:
            fwd.edges = _place(i64(fwd.edges), edges_used)
            found |= _learn_sacks(ack, flags, sacks[i], sacked, i, edges[fwd.edges])
        out_flags[i], out_rtt[i] = found, rtt
        if found:
            fwd.trouble = _place(i64(fwd.trouble), used)
            count(found, troubles[fwd.trouble])
        sum_up(ts, flags, length, window, rtt, out_in_flight[i], fwd, rev)
