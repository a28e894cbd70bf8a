"""One resource record's data as text: kernels that append to a byte buffer, which grows by doubling.

Types of RFC 1035 and those of `dns_rdata` are written as master files have them; any other, and data that
does not fit its type, as RFC 3597 section 5 says, cut after 64 bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import routine
from stratokit.protocols.buffers import be16, with_room
from stratokit.protocols.dns_rdata import write_caa, write_key, write_rrsig, write_soa, write_svcb
from stratokit.protocols.dns_text import (
    HEX,
    NAME_TEXT_BYTES,
    write_ipv4,
    write_ipv6,
    write_name,
    write_number,
)

_HEX_LIMIT_BYTES = 64
# No record needs more: two names, numbers between, and at most four bytes of text for a byte of data (a two
# byte hint of RFC 9460 gives the longest name of a key).
_FIXED_BYTES, _TIMES = 2 * NAME_TEXT_BYTES + 256, 9

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, DNAME = 1, 2, 5, 6, 12, 15, 16, 28, 33, 39
OPT, DS, RRSIG, DNSKEY, CDS, CDNSKEY, SVCB, HTTPS, CAA = 41, 43, 46, 48, 59, 60, 64, 65, 257
_BACKSLASH, _SPACE = 92, 32


@routine
def _write_unknown(data: np.ndarray, p: int, size: int, out: np.ndarray, n: int) -> Any:
    r"""RFC 3597 section 5: \# size hexadecimal; long data is cut."""
    out[n], out[n + 1], out[n + 2] = _BACKSLASH, 35, _SPACE
    n = write_number(out, n + 3, size)
    for k in range(min(size, _HEX_LIMIT_BYTES)):
        if k == 0:
            out[n] = _SPACE
            n += 1
        out[n], out[n + 1] = HEX[data[p + k] >> 4], HEX[data[p + k] & 15]
        n += 2
    return n


@routine
def _write_strings(data: np.ndarray, p: int, end: int, out: np.ndarray, n: int) -> Any:
    """The strings of a TXT record (section 3.3.14), one behind the other."""
    while p < end:
        size = i64(data[p])
        stop = min(p + 1 + size, end)
        for k in range(p + 1, stop):
            out[n] = data[k]
            n += 1
        p = stop
    return n


@routine
def _write_names(
    data: np.ndarray, start: int, end: int, kind: int, p: int, size: int, out: np.ndarray, n: int
) -> Any:
    """A name, after the numbers that MX and SRV (RFC 2782) have before it; -1 where it does not fit."""
    numbers = 1 if kind == MX else 3 if kind == SRV else 0
    if size <= 2 * numbers:
        return -1
    for k in range(numbers):
        n = write_number(out, n, be16(data, p + 2 * k))
        out[n] = _SPACE
        n += 1
    behind, n = write_name(data, start, p + 2 * numbers, end, out, n)
    return n if behind >= 0 else -1


@routine
def write_record(
    data: np.ndarray, start: int, end: int, kind: int, p: int, size: int, out: np.ndarray, n: int
) -> tuple[np.ndarray, int]:
    """Write the data of a record, data[p : p + size], as text: (buffer, new n)."""
    out = with_room(out, n, _FIXED_BYTES + _TIMES * size)
    at = i64(-1)
    if kind == A and size == 4:
        at = write_ipv4(data, p, out, n)
    elif kind == AAAA and size == 16:
        at = write_ipv6(data, p, out, n)
    elif kind == TXT:
        at = _write_strings(data, p, p + size, out, n)
    elif kind in (NS, CNAME, PTR, MX, SRV, DNAME):
        at = _write_names(data, start, end, kind, p, size, out, n)
    elif kind == SOA:
        at = write_soa(data, start, end, p, size, out, n)
    elif kind in (SVCB, HTTPS):
        at = write_svcb(data, start, end, p, size, out, n)
    elif kind == CAA:
        at = write_caa(data, p, size, out, n)
    elif kind in (DS, CDS, DNSKEY, CDNSKEY):
        at = write_key(data, p, size, kind in (DS, CDS), out, n)
    elif kind == RRSIG:
        at = write_rrsig(data, start, end, p, size, out, n)
    return out, (at if at >= 0 else _write_unknown(data, p, size, out, n))
