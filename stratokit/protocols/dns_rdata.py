"""Record data with fields of several kinds, in the form of master files: SOA, SVCB and HTTPS (RFC 9460),
CAA (RFC 8659), DS, DNSKEY and RRSIG (RFC 4034).

Each kernel writes data[p : p + size] to out from n on and returns the new n, or -1 where the data does not
fit its type: what was written by then is written over. The caller has made room (`dns_records.write_record`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import lean_routine
from stratokit.protocols.buffers import be16
from stratokit.protocols.dns_names import QTYPES, SVCB_KEYS, packed
from stratokit.protocols.dns_text import (
    HEX,
    write_ipv4,
    write_ipv6,
    write_label_byte,
    write_name,
    write_number,
)

_SPACE, _ZERO, _COMMA, _QUOTE, _EQUALS, _BACKSLASH = 32, 48, 44, 34, 61, 92
_BASE64 = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
_TYPES, _TYPE_AT = packed(QTYPES)
_KEYS, _KEY_AT = packed(dict(enumerate(SVCB_KEYS)))
_TYPE_WORD = np.frombuffer(b"TYPE", np.uint8)
_KEY_WORD = np.frombuffer(b"key", np.uint8)
_MANDATORY, _ALPN, _NO_DEFAULT_ALPN, _PORT, _IPV4HINT, _ECH, _IPV6HINT = range(7)


@lean_routine
def be32(data: np.ndarray, p: int) -> Any:
    """Four bytes in network order."""
    return be16(data, p) << 16 | be16(data, p + 2)


@lean_routine
def _copy(text: np.ndarray, begin: int, end: int, out: np.ndarray, n: int) -> Any:
    for k in range(begin, end):
        out[n] = text[k]
        n += 1
    return n


@lean_routine
def write_type(kind: int, out: np.ndarray, n: int) -> Any:
    """Mnemonic of a type, or TYPE and its number (RFC 3597 section 5)."""
    if kind + 1 < _TYPE_AT.size and _TYPE_AT[kind] < _TYPE_AT[kind + 1]:
        return _copy(_TYPES, _TYPE_AT[kind], _TYPE_AT[kind + 1], out, n)
    return write_number(out, _copy(_TYPE_WORD, 0, 4, out, n), kind)


@lean_routine
def _write_hex(data: np.ndarray, p: int, end: int, out: np.ndarray, n: int) -> Any:
    """Upper case, as RFC 4034 section 5.3 shows it."""
    for k in range(p, end):
        for digit in (HEX[data[k] >> 4], HEX[data[k] & 15]):
            out[n] = digit - 32 if digit >= 97 else digit
            n += 1
    return n


@lean_routine
def _write_base64(data: np.ndarray, p: int, end: int, out: np.ndarray, n: int) -> Any:
    while p < end:
        group = i64(data[p]) << 16
        group |= i64(data[p + 1]) << 8 if p + 1 < end else 0
        group |= i64(data[p + 2]) if p + 2 < end else 0
        for k in range(4):
            out[n] = _BASE64[(group >> (18 - 6 * k)) & 63] if p + k <= end else _EQUALS
            n += 1
        p += 3
    return n


@lean_routine
def _write_quoted(data: np.ndarray, p: int, end: int, out: np.ndarray, n: int) -> Any:
    out[n] = _QUOTE
    n += 1
    for k in range(p, end):
        if data[k] == _QUOTE:
            out[n] = _BACKSLASH
            out[n + 1] = _QUOTE
            n += 2
        elif data[k] == 46:  # a dot needs no escape outside names
            out[n] = data[k]
            n += 1
        else:
            n = write_label_byte(out, n, i64(data[k]))
    out[n] = _QUOTE
    return n + 1


@lean_routine
def _write_time(seconds: int, out: np.ndarray, n: int) -> Any:
    """YYYYMMDDHHMMSS of seconds since 1970 (RFC 4034 section 3.2)."""
    days, rest = seconds // 86400, seconds % 86400
    shifted = days + 719468  # days since 0000-03-01, so that a leap day ends a year
    era, of_era = shifted // 146097, shifted % 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (1 if month <= 2 else 0)
    number = (year * 100 + month) * 100 + day
    number = ((number * 100 + rest // 3600) * 100 + rest // 60 % 60) * 100 + rest % 60
    return write_number(out, n, number)


@lean_routine
def write_soa(data: np.ndarray, start: int, end: int, p: int, size: int, out: np.ndarray, n: int) -> Any:
    """RFC 1035 section 3.3.13: two names, then five numbers."""
    stop = p + size
    for _ in range(2):
        p, n = write_name(data, start, p, end, out, n)
        if p < 0 or p > stop:
            return -1
        out[n] = _SPACE
        n += 1
    if p + 20 != stop:
        return -1
    for k in range(5):
        n = write_number(out, n, be32(data, p + 4 * k))
        out[n] = _SPACE
        n += 1
    return n - 1


@lean_routine
def _write_list(data: np.ndarray, key: int, p: int, end: int, out: np.ndarray, n: int) -> Any:
    """The values of one service parameter with commas between (RFC 9460 sections 7 and 8)."""
    first = p
    while p < end:
        if p > first:
            out[n] = _COMMA
            n += 1
        if key == _ALPN:
            stop = p + 1 + i64(data[p])
            if stop > end:
                return -1
            for k in range(p + 1, stop):
                n = write_label_byte(out, n, i64(data[k])) if data[k] != 46 else _copy(data, k, k + 1, out, n)
            p = stop
            continue
        width = 4 if key == _IPV4HINT else 16 if key == _IPV6HINT else 2
        if p + width > end:
            return -1
        if key == _IPV4HINT:
            n = write_ipv4(data, p, out, n)
        elif key == _IPV6HINT:
            n = write_ipv6(data, p, out, n)
        elif be16(data, p) + 1 < _KEY_AT.size:
            n = _copy(_KEYS, _KEY_AT[be16(data, p)], _KEY_AT[be16(data, p) + 1], out, n)
        else:
            n = write_number(out, _copy(_KEY_WORD, 0, 3, out, n), be16(data, p))
        p += width
    return n


@lean_routine
def _write_parameter(data: np.ndarray, key: int, p: int, end: int, out: np.ndarray, n: int) -> Any:
    """The value of one service parameter (RFC 9460 section 7)."""
    if key == _PORT and end == p + 2:
        return write_number(out, n, be16(data, p))
    if key == _ECH:
        return _write_base64(data, p, end, out, n)
    if key in (_MANDATORY, _IPV4HINT, _IPV6HINT):
        return _write_list(data, key, p, end, out, n)
    if key != _ALPN:
        return _write_quoted(data, p, end, out, n)
    out[n] = _QUOTE
    n = _write_list(data, key, p, end, out, n + 1)
    if n >= 0:
        out[n] = _QUOTE
        n += 1
    return n


@lean_routine
def write_svcb(data: np.ndarray, start: int, end: int, p: int, size: int, out: np.ndarray, n: int) -> Any:
    """RFC 9460 section 2.2: priority, target, parameters."""
    stop = p + size
    if size < 3:
        return -1
    n = write_number(out, n, be16(data, p))
    out[n] = _SPACE
    p, n = write_name(data, start, p + 2, end, out, n + 1)
    if p < 0 or p > stop:
        return -1
    while p + 4 <= stop:
        key, last = be16(data, p), p + 4 + be16(data, p + 2)
        if last > stop:
            return -1
        out[n] = _SPACE
        if key + 1 < _KEY_AT.size:
            n = _copy(_KEYS, _KEY_AT[key], _KEY_AT[key + 1], out, n + 1)
        else:
            n = write_number(out, _copy(_KEY_WORD, 0, 3, out, n + 1), key)
        if last > p + 4:
            out[n] = _EQUALS
            n = _write_parameter(data, key, p + 4, last, out, n + 1)
            if n < 0:
                return -1
        p = last
    return n if p == stop else -1


@lean_routine
def write_caa(data: np.ndarray, p: int, size: int, out: np.ndarray, n: int) -> Any:
    """RFC 8659 section 4.1: flags, tag, value."""
    if size < 2 or 2 + i64(data[p + 1]) > size:
        return -1
    n = write_number(out, n, i64(data[p]))
    out[n] = _SPACE
    value = p + 2 + i64(data[p + 1])
    n = _copy(data, p + 2, value, out, n + 1)
    out[n] = _SPACE
    return _write_quoted(data, value, p + size, out, n + 1)


@lean_routine
def write_key(data: np.ndarray, p: int, size: int, is_digest: bool, out: np.ndarray, n: int) -> Any:
    """DS (digest) or DNSKEY: a number of 16 bits, two of 8, then bytes (RFC 4034 sections 2.2 and 5.3)."""
    if size < 4:
        return -1
    for value in (be16(data, p), i64(data[p + 2]), i64(data[p + 3])):
        n = write_number(out, n, value)
        out[n] = _SPACE
        n += 1
    if is_digest:
        return _write_hex(data, p + 4, p + size, out, n)
    return _write_base64(data, p + 4, p + size, out, n)


@lean_routine
def write_rrsig(data: np.ndarray, start: int, end: int, p: int, size: int, out: np.ndarray, n: int) -> Any:
    """RFC 4034 section 3.2: type, algorithm, labels, TTL, expiry, begin, key, signer, signature."""
    stop = p + size
    if size < 19:
        return -1
    n = write_type(be16(data, p), out, n)
    for value in (i64(data[p + 2]), i64(data[p + 3]), be32(data, p + 4)):
        out[n] = _SPACE
        n = write_number(out, n + 1, value)
    for at in (p + 8, p + 12):
        out[n] = _SPACE
        n = _write_time(be32(data, at), out, n + 1)
    out[n] = _SPACE
    n = write_number(out, n + 1, be16(data, p + 16))
    out[n] = _SPACE
    p, n = write_name(data, start, p + 18, end, out, n + 1)
    if p < 0 or p > stop:
        return -1
    out[n] = _SPACE
    return _write_base64(data, p, stop, out, n + 1)
