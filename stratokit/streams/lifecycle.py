"""How a TCP connection began, went on and ended: Zeek's state and history, Wireshark's completeness.

States and letters follow Zeek's documentation of conn.log (https://docs.zeek.org, base/protocols/conn/main):
S SYN, H SYN-ACK, A ACK alone, D data, F FIN, R RST, T data again, W window of zero, G gap, Q FIN or RST in a
SYN; in capitals from the originator. Each letter comes once a side; T, W and G again at the 10th, 100th time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, lean_kernel, lean_routine
from stratokit.streams.flows import ACK, FIN, RST, SYN
from stratokit.streams.tcp_flags import ACK_LOST_SEGMENT, RETRANSMISSION
from stratokit.streams.tcp_state import NEVER, after

# States of an end; the numbers order nothing.
INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET = range(7)
# Bits of completeness, as Wireshark's tcp.completeness.
WAS_SYN, WAS_SYN_ACK, WAS_ACK, WAS_DATA, WAS_FIN, WAS_RST = (1 << bit for bit in range(6))

HISTORY_MAX = 48  # 10 letters a side, of which three return at powers of ten
_LETTERS = "SHADFRTWGQ"
_S, _H, _A, _D, _F, _R, _T, _W, _G, _Q = range(10)
_COUNTED = 3
_CODES = np.frombuffer(_LETTERS.encode(), np.uint8)
_OPEN, _BY_FIN, _BY_RST = 0, 1, 2

LIFE = np.dtype(
    [
        ("state", "u1", 2),
        ("client", "u1"),  # side of the connection that was taken for the client
        ("completeness", "u1"),
        ("history_size", "u1"),
        ("history", "u1", HISTORY_MAX),
        ("seen", "u2", 2),  # bits of the letters that were due to a side
        ("times", "u4", (2, _COUNTED)),  # how often T, W and G were
        ("closed_side", "i1"),  # who sent the first FIN, or the first RST where there was no FIN before
        ("closed_how", "u1"),
        ("syn_ns", "i8"),
        ("last_syn_ns", "i8"),
        ("syn_ack_ns", "i8"),
        ("ack_ns", "i8"),
        ("syns", "u4"),
        ("server_isn", "u4"),
        ("resets", "u4"),
        ("first_ns", "i8"),
        ("last_ns", "i8"),
    ],
    align=True,
)


def new_lives(count: int) -> Any:
    """Records of so many connections of which nothing was seen."""
    lives = np.zeros(count, LIFE)
    lives["closed_side"] = -1
    for name in ("syn_ns", "last_syn_ns", "syn_ack_ns", "ack_ns", "first_ns", "last_ns"):
        lives[name] = NEVER
    return lives


@lean_routine
def _note(life: Any, side: int, letter: int) -> None:
    """Append a letter where it is due: the first time, those that count also at powers of ten."""
    known = i64(life.seen[side]) & (1 << letter)
    life.seen[side] |= 1 << letter
    if _T <= letter <= _G:
        life.times[side, letter - _T] += 1
    if known:
        if not _T <= letter <= _G:
            return
        n = i64(life.times[side, letter - _T])
        while n % 10 == 0:
            n //= 10
        if n != 1:
            return
    at = i64(life.history_size)
    if at < HISTORY_MAX:
        life.history[at] = i64(_CODES[letter]) + 32 * side
        life.history_size = at + 1


@lean_routine
def _next_state(life: Any, side: int, flags: int) -> None:
    """Take a segment of an end that is neither closed nor reset, and is no RST."""
    mine, other = i64(life.state[side]), i64(life.state[1 - side])
    if flags & FIN:
        mine = CLOSED
    elif flags & SYN and flags & ACK:
        mine = SYN_ACK_SENT if mine == INACTIVE else mine
    elif flags & SYN:
        mine = SYN_SENT if mine in (INACTIVE, PARTIAL) else mine
    elif mine == INACTIVE:
        mine = PARTIAL
    elif (mine == SYN_SENT and flags & ACK and other in (SYN_ACK_SENT, ESTABLISHED)) or (
        mine == SYN_ACK_SENT and other == SYN_SENT
    ):
        mine = other = ESTABLISHED
    life.state[side], life.state[1 - side] = mine, other


@lean_routine
def _end(life: Any, side: int, flags: int) -> None:
    """Take what ends a connection. A reset after both FINs changes nothing."""
    if flags & FIN and life.closed_how == _OPEN:
        life.closed_how, life.closed_side = _BY_FIN, side
    if flags & RST:
        life.resets += 1
        if life.state[0] == CLOSED and life.state[1] == CLOSED:
            return
        if life.closed_how != _BY_RST:
            life.closed_how, life.closed_side = _BY_RST, side
        life.state[side] = RESET
    elif life.state[side] not in (RESET, CLOSED):
        _next_state(life, side, flags)


@lean_routine
def _handshake(life: Any, from_client: bool, flags: int, seq: int, ack: int, ts: int) -> None:
    kind = flags & (SYN | ACK | RST | FIN)
    if from_client and kind == SYN and life.syn_ack_ns == NEVER:
        if life.syn_ns == NEVER:
            life.syn_ns = ts
        life.last_syn_ns = ts
        life.syns += 1
    elif not from_client and kind == SYN | ACK and life.syn_ack_ns == NEVER:
        life.syn_ack_ns = ts
        life.server_isn = seq
    elif from_client and kind == ACK and life.syn_ack_ns != NEVER and life.ack_ns == NEVER:
        # it may carry data, or acknowledge more than the SYN where its forerunner was lost
        life.ack_ns = NEVER if after(i64(life.server_isn), ack) else ts


@lean_routine
def _letters(life: Any, side: int, flags: int, length: int, window: int, found: int) -> None:
    control = flags & (SYN | FIN | RST)
    if flags & SYN:
        _note(life, side, _H if flags & ACK else _S)
        if flags & (FIN | RST):
            _note(life, side, _Q)
        return
    if flags & ACK and length == 0 and control == 0:
        _note(life, side, _A)
    if length > 0 and not flags & RST:
        _note(life, side, _T if found & RETRANSMISSION else _D)
    if found & ACK_LOST_SEGMENT:
        _note(life, 1 - side, _G)
    if window == 0 and control == 0:
        _note(life, side, _W)
    if flags & FIN:
        _note(life, side, _F)
    if flags & RST:
        _note(life, side, _R)


@lean_routine
def _completeness(flags: int, length: int) -> int:
    bits = WAS_DATA if length > 0 else 0
    if flags & SYN:
        return bits | (WAS_SYN_ACK if flags & ACK else WAS_SYN)
    if flags & ACK and length == 0:
        bits |= WAS_ACK
    if flags & FIN:
        bits |= WAS_FIN
    return bits | (WAS_RST if flags & RST else 0)


@lean_routine
def _turn(life: Any) -> None:
    """The other side is the client after all. What was taken for a handshake was none."""
    life.client = 1 - life.client
    life.state[0], life.state[1] = life.state[1], life.state[0]
    life.seen[0], life.seen[1] = life.seen[1], life.seen[0]
    for k in range(_COUNTED):
        life.times[0, k], life.times[1, k] = life.times[1, k], life.times[0, k]
    for k in range(life.history_size):
        life.history[k] ^= 32
    if life.closed_side >= 0:
        life.closed_side = 1 - life.closed_side
    life.syn_ns = life.last_syn_ns = life.syn_ack_ns = life.ack_ns = NEVER
    life.syns = 0


@lean_kernel
def follow(segments: Any, client: np.ndarray, found: np.ndarray, lives: np.ndarray) -> None:
    """Take segments in capture order; `found` is what `analysis.analyse` said of them.

    `client` is the side of each segment's connection that is its client, as far as is known by then.
    """
    connection, sender, times, all_flags, seqs, acks, windows, lengths, _, _, _, _ = segments
    for i in range(connection.size):
        life = lives[connection[i]]
        flags, ts, length = i64(all_flags[i]), times[i], i64(lengths[i])
        if life.first_ns == NEVER:
            life.first_ns = ts
            life.client = client[i]
        elif life.client != client[i]:
            _turn(life)
        side = 0 if sender[i] == client[i] else 1
        life.last_ns = max(ts, i64(life.last_ns))
        _handshake(life, side == 0, flags, i64(seqs[i]), i64(acks[i]), ts)
        _letters(life, side, flags, length, i64(windows[i]), i64(found[i]))
        life.completeness |= _completeness(flags, length)
        _end(life, side, flags)


@kernel
def settle(lives: np.ndarray, client: np.ndarray) -> None:
    """Let every connection have this client."""
    for c in range(lives.size):
        if lives[c].client != client[c]:
            _turn(lives[c])


@lean_routine
def _is_idle(state: int) -> bool:
    return state in (INACTIVE, PARTIAL)


CONN_STATES = (
    "OTH", "S0", "S1", "S2", "S3", "SF", "REJ", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR",
)  # fmt: skip
_OTH, _S0, _S1, _S2, _S3, _SF, _REJ, _RSTO, _RSTR, _RSTOS0, _RSTRH, _SH, _SHR = range(len(CONN_STATES))


@kernel
def conn_states(lives: np.ndarray, payload: np.ndarray) -> np.ndarray:
    """Index in CONN_STATES of each connection; `payload` is the data that both sides sent."""
    out = np.zeros(lives.size, np.uint8)
    for c in range(lives.size):
        o, r = i64(lives[c].state[0]), i64(lives[c].state[1])
        if r == RESET:
            if o in (SYN_SENT, SYN_ACK_SENT) or (o == RESET and payload[c] == 0):
                out[c] = _REJ
            else:
                out[c] = _RSTRH if _is_idle(o) else _RSTR
        elif o == RESET:
            out[c] = _RSTOS0 if _is_idle(r) else _RSTO
        elif o == CLOSED:
            out[c] = _SF if r == CLOSED else (_SH if _is_idle(r) else _S2)
        elif r == CLOSED:
            out[c] = _SHR if _is_idle(o) else _S3
        elif o == SYN_SENT and r == INACTIVE:
            out[c] = _S0
        elif o == ESTABLISHED and r == ESTABLISHED:
            out[c] = _S1
    return out
