"""Fingerprints of hellos: JA3 and JA3S (Salesforce, https://github.com/salesforce/ja3), JA4 (FoxIO,
https://github.com/FoxIO-LLC/ja4, technical_details/JA4.md).

Kernels write what is hashed as text; the hashes themselves are taken once for each distinct text. GREASE
(RFC 8701) counts nowhere. The caller says where lists stand, as `tls_records.read_hello` found them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, routine
from stratokit.protocols import tls_records as tr
from stratokit.protocols.buffers import be16, with_room
from stratokit.protocols.text import text_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DASH, _COMMA, _UNDERSCORE, _ZERO = 45, 44, 95, 48
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_EMPTY = "000000000000"  # what JA4 has for a list without entries


@routine
def _is_grease(number: int) -> bool:
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


@routine
def _decimal(out: np.ndarray, n: int, value: int) -> Any:
    size = 1 if value < 10 else 2 if value < 100 else 3 if value < 1000 else 4 if value < 10000 else 5
    for k in range(size):
        out[n + size - 1 - k] = _ZERO + value % 10
        value //= 10
    return n + size


@routine
def _hexadecimal(out: np.ndarray, n: int, value: int) -> Any:
    for k in range(4):
        out[n + k] = _HEX[(value >> (12 - 4 * k)) & 15]
    return n + 4


@routine
def numbers(data: np.ndarray, p: int, size: int, extensions: bool, found: np.ndarray) -> Any:
    """Two-byte numbers of a list, or the types of extensions, without GREASE; how many."""
    n, end = 0, p + max(size, 0)
    while p + 2 <= end and n < found.size:
        value = be16(data, p)
        if not _is_grease(value):
            found[n] = value
            n += 1
        p += 2
        if extensions:
            p += 2 + be16(data, p) if p + 2 <= end else 2
    return n


@routine
def _write_list(found: np.ndarray, count: int, out: np.ndarray, n: int) -> Any:
    for k in range(count):
        if k:
            out[n] = _DASH
            n += 1
        n = _decimal(out, n, found[k])
    return n


@routine
def _write_ja3(data: np.ndarray, hello: np.ndarray, found: np.ndarray, out: np.ndarray, n: int) -> Any:
    """Version, suites, extensions, groups, point formats; of a server version, suite, extensions."""
    n = _decimal(out, n, hello[tr.LEGACY])
    out[n] = _COMMA
    if hello[tr.CIPHER] >= 0:
        n = _decimal(out, n + 1, hello[tr.CIPHER])
    else:
        count = numbers(data, hello[tr.CIPHERS], hello[tr.CIPHERS + 1], False, found)
        n = _write_list(found, count, out, n + 1)
    out[n] = _COMMA
    count = numbers(data, hello[tr.EXTENSIONS], hello[tr.EXTENSIONS + 1], True, found)
    n = _write_list(found, count, out, n + 1)
    if hello[tr.CIPHER] >= 0:
        return n
    out[n] = _COMMA
    count = numbers(data, hello[tr.GROUPS], hello[tr.GROUPS + 1], False, found)
    n = _write_list(found, count, out, n + 1)
    out[n] = _COMMA
    n += 1
    for k in range(max(hello[tr.FORMATS + 1], 0)):
        if k:
            out[n] = _DASH
            n += 1
        n = _decimal(out, n, i64(data[hello[tr.FORMATS] + k]))
    return n


@routine
def _write_hex_list(found: np.ndarray, count: int, out: np.ndarray, n: int) -> Any:
    for k in range(count):
        if k:
            out[n] = _COMMA
            n += 1
        n = _hexadecimal(out, n, found[k])
    return n


@routine
def _sort(found: np.ndarray, count: int) -> None:
    """Shell's, with gaps 2^k - 1: at worst n^1.5, and compiled in a tenth of the time of numba's own."""
    gap = 1
    while gap < count:
        gap = 2 * gap + 1
    while gap:
        for k in range(gap, count):
            value, at = found[k], k
            while at >= gap and found[at - gap] > value:
                found[at] = found[at - gap]
                at -= gap
            found[at] = value
        gap //= 2


@routine
def _two_digits(out: np.ndarray, n: int, value: int) -> Any:
    value = min(value, 99)
    out[n], out[n + 1] = _ZERO + value // 10, _ZERO + value % 10
    return n + 2


@routine
def _is_alphanumeric(c: int) -> bool:
    return 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122


@routine
def _write_alpn(data: np.ndarray, p: int, size: int, out: np.ndarray, n: int) -> Any:
    """First and last character of the first protocol, or of its hexadecimal form."""
    out[n] = out[n + 1] = _ZERO
    if size >= 2 and data[p] > 0 and 1 + data[p] <= size:
        first, last = i64(data[p + 1]), i64(data[p + data[p]])
        if _is_alphanumeric(first) and _is_alphanumeric(last):
            out[n], out[n + 1] = first, last
        else:
            out[n], out[n + 1] = _HEX[first >> 4], _HEX[last & 15]
    return n + 2


@routine
def _write_ja4(
    data: np.ndarray,
    hello: np.ndarray,
    transport: int,
    found: np.ndarray,
    out: np.ndarray,
    n: int,
    ends: np.ndarray,
) -> Any:
    """JA4_a, the sorted suites, and sorted extensions with signature algorithms; where each ends."""
    version = hello[tr.LEGACY]
    if hello[tr.VERSIONS + 1] > 0:
        count = numbers(data, hello[tr.VERSIONS], hello[tr.VERSIONS + 1], False, found)
        for k in range(count):
            version = found[k] if k == 0 else max(version, found[k])
    out[n] = transport
    low = version & 15
    out[n + 1], out[n + 2] = _ZERO, _ZERO
    if 0x0301 <= version <= 0x0304:
        out[n + 1], out[n + 2] = 49, _ZERO + low - 1
    elif version in (0x0300, 0x0002):
        out[n + 1], out[n + 2] = 115, 51 if version == 0x0300 else 50
    out[n + 3] = 100 if hello[tr.NAMED] == 1 else 105
    suites = numbers(data, hello[tr.CIPHERS], hello[tr.CIPHERS + 1], False, found)
    n = _two_digits(out, n + 4, suites)
    more = numbers(data, hello[tr.EXTENSIONS], hello[tr.EXTENSIONS + 1], True, found[suites:])
    n = _two_digits(out, n, more)
    n = ends[0] = _write_alpn(data, hello[tr.ALPN_LIST], hello[tr.ALPN_LIST + 1], out, n)
    _sort(found, suites)
    n = ends[1] = _write_hex_list(found, suites, out, n)
    kept = 0
    for k in range(suites, suites + more):
        if found[k] not in (tr.SERVER_NAME, tr.ALPN):
            found[kept] = found[k]
            kept += 1
    _sort(found, kept)
    n = _write_hex_list(found, kept, out, n)
    algorithms = numbers(data, hello[tr.ALGORITHMS], hello[tr.ALGORITHMS + 1], False, found)
    if algorithms and more:
        out[n] = _UNDERSCORE
        n = _write_hex_list(found, algorithms, out, n + 1)
    ends[2] = n
    return n


@kernel
def _write_all(data: np.ndarray, hellos: np.ndarray, transport: int) -> tuple[np.ndarray, np.ndarray]:
    """Texts of each hello and where they end: JA3's, then, for a client's, the three of JA4."""
    ends = np.zeros((hellos.shape[0], 4), np.int64)
    out = np.empty(1 << 14, np.uint8)
    n = i64(0)
    for i in range(hellos.shape[0]):
        hello = hellos[i]
        if hello[tr.LEGACY] >= 0:
            # A list of two bytes for each number; a number has at most five digits and a dash, twice.
            most = 2 + (max(hello[tr.CIPHERS + 1], 0) + max(hello[tr.EXTENSIONS + 1], 0)) // 2
            most += (max(hello[tr.GROUPS + 1], 0) + max(hello[tr.ALGORITHMS + 1], 0)) // 2
            most += max(hello[tr.FORMATS + 1], 0) + max(hello[tr.VERSIONS + 1], 0)
            found = np.empty(most, np.int64)
            out = with_room(out, n, 64 + 12 * most)
            n = ends[i, 0] = _write_ja3(data, hello, found, out, n)
            if hello[tr.CIPHER] < 0:
                n = _write_ja4(data, hello, transport, found, out, n, ends[i, 1:])
        for k in range(4):
            ends[i, k] = max(ends[i, k], ends[i, k - 1] if k else (ends[i - 1, 3] if i else 0))
    return out[: max(n, 1)], ends


def _hashed(texts: pl.Series, method: Any, size: int) -> pl.Series:
    """Hexadecimal digits of the hash of each text, computed once for each that is distinct."""
    distinct = texts.drop_nulls().unique()
    hashes = [method(text.encode(), usedforsecurity=False).hexdigest()[:size] for text in distinct]
    return texts.replace_strict(distinct, pl.Series(hashes, dtype=pl.String), default=None)


def fingerprints(data: NDArray[np.uint8], hellos: NDArray[np.int64], transport: str) -> dict[str, pl.Series]:
    """`ja3` of each hello, and `ja4` of those that are a client's; `transport` is t for TCP, q for QUIC."""
    out, ends = _write_all(data, hellos, ord(transport))
    flat = ends.ravel()
    starts = np.concatenate([np.zeros(1, np.int64), flat[:-1]]).reshape(ends.shape)
    there = hellos[:, tr.LEGACY] >= 0
    client = there & (hellos[:, tr.CIPHER] < 0)

    def part(k: int, wanted: NDArray[np.bool_]) -> pl.Series:
        return text_column(out, starts[:, k], np.where(wanted, ends[:, k] - starts[:, k], -1))

    a, b, c = part(1, client), part(2, client), part(3, client)
    hashed = [
        pl.select(
            pl.when(pl.lit(text) == "").then(pl.lit(_EMPTY)).otherwise(_hashed(text, hashlib.sha256, 12))
        ).to_series()
        for text in (b, c)
    ]
    return {
        "ja3": _hashed(part(0, there), hashlib.md5, 32),
        "ja4": pl.select(pl.concat_str(a, *hashed, separator="_")).to_series(),
    }
