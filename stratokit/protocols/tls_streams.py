"""Which conversations are TLS, and what their streams hold in plain text: one kernel over both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.kernels import kernel, routine
from stratokit.protocols import tls_records as tr
from stratokit.protocols.buffers import be16
from stratokit.protocols.tls_certificates import CHAIN_LIMIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.protocols.over_tcp import Heads

# How much a server may have said before its ServerHello, as SMTP's answer to EHLO.
_BEFORE_HELLO_BYTES = 1 << 13
TLS13 = 0x0304
_NAMED_CURVE = 3  # RFC 8422 section 5.4
RETRIED, CHAIN, CHAIN_SIZE = 0, 1, 2  # facts of a stream: places in `chains`


@kernel
def _recognise(data: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    asks = np.full((bounds.size - 1) // 2, -1, np.int64)
    for s in range(bounds.size - 1):
        if tr.find_hello(data, bounds[s], bounds[s + 1], tr.CLIENT_HELLO) >= 0:
            asks[s // 2] = s % 2
        elif asks[s // 2] < 0 and tr.is_hello(data, bounds[s], bounds[s + 1], tr.SERVER_HELLO):
            asks[s // 2] = 1 - s % 2
    return asks


def recognise(heads: Heads) -> NDArray[np.int64]:
    """Which stream of each conversation has the ClientHello, or -1 where it is not TLS."""
    asks: NDArray[np.int64] = _recognise(heads.data, heads.bounds)
    return asks


@routine
def find_start(data: np.ndarray, start: int, end: int, side: int) -> Any:
    """Where the records of a stream begin, or -1. A server may refuse with an alert instead of a hello."""
    if start < end and data[start] == tr.ALERT and end - start >= 7 and data[start + 1] == 3:
        return start
    found = tr.find_hello(data, start, min(end, start + _BEFORE_HELLO_BYTES), tr.CLIENT_HELLO + side)
    if found >= 0 or not side:
        return found
    p = start
    while p + 7 <= min(end, start + _BEFORE_HELLO_BYTES):  # fatal, with a version and its length
        if data[p] == tr.ALERT and data[p + 1] == 3 and be16(data, p + 3) == 2 and data[p + 5] == 2:
            return p
        p += 1
    return -1


@routine
def _read_server(out: np.ndarray, row: np.ndarray, hello: np.ndarray, facts: np.ndarray, n: int) -> Any:
    """Read the ServerHello and what follows in plain text: the position behind the hello, or -1."""
    p = row[tr.PLAIN]
    behind = tr.read_hello(out, p, n, hello)
    facts[RETRIED] = 0
    if behind >= 0 and tr.asks_again(out, p, n):
        facts[RETRIED] = 1
        behind = tr.read_hello(out, behind, n, hello)
    if behind < 0 or hello[tr.VERSION] >= TLS13:
        return behind
    plain_end = p + row[tr.CHANGED_AT] if row[tr.CHANGED_AT] >= 0 else n
    certificate, _ = tr.find_message(out, behind, plain_end, tr.CERTIFICATE)
    exchange, size = tr.find_message(out, behind, plain_end, tr.SERVER_KEY_EXCHANGE)
    if exchange >= 0 and size >= 3 and out[exchange] == _NAMED_CURVE:
        hello[tr.GROUP] = be16(out, exchange + 1)
    if row[tr.CHANGED_AT] >= 0:
        # An abbreviated handshake has neither certificate nor key exchange (RFC 5246 section 7.3).
        hello[tr.RESUMES] = 1 if certificate < 0 and exchange < 0 else 0
    return behind


@kernel
def read_all(data: np.ndarray, run_bounds: np.ndarray, run_start: np.ndarray, asking: np.ndarray) -> Any:
    """(streams, hellos, facts, certificates, handshake bytes): client's in rows 2k, server's in 2k + 1."""
    streams = np.full((2 * asking.size, tr.STREAM_COLUMNS), -1, np.int64)
    hellos = np.full((2 * asking.size, tr.HELLO_COLUMNS), -1, np.int64)
    facts = np.zeros((2 * asking.size, 3), np.int64)
    chains = np.empty((2 * asking.size * CHAIN_LIMIT, 2), np.int64)
    out = np.empty(1 << 14, np.uint8)
    n, m = 0, 0
    for k in range(asking.size):
        for side in range(2):
            s = 2 * k + (asking[k] if side == 0 else 1 - asking[k])
            row, hello, fact = streams[2 * k + side], hellos[2 * k + side], facts[2 * k + side]
            fact[CHAIN] = m
            run = run_bounds[s]
            if run == run_bounds[s + 1]:
                continue
            start = find_start(data, run_start[run], run_start[run + 1], side)
            if start < 0:
                continue
            out, n = tr.read_records(data, start, run_start[run + 1], row, out, n)
            p = row[tr.PLAIN]
            behind = _read_server(out, row, hello, fact, n) if side else tr.read_hello(out, p, n, hello)
            if behind < 0:
                row[tr.HELLO_START] = -1
                continue
            plain_end = p + row[tr.CHANGED_AT] if row[tr.CHANGED_AT] >= 0 else n
            found, size = tr.find_message(out, behind, plain_end, tr.CERTIFICATE)
            if found >= 0:
                m = tr.read_chain(out, found, size, chains[: m + CHAIN_LIMIT], m)
            fact[CHAIN_SIZE] = m - fact[CHAIN]
    return streams, hellos, facts, chains[:m], out[:n]
