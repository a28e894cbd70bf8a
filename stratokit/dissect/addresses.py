"""IP addresses as text, once per distinct value: 16-byte addresses to an Arrow dictionary array.

The text is that of inet_ntop, which follows RFC 5952: lower case, no leading zeros, the longest run of two or
more zero groups (the first of equals) as `::`, and dotted form behind ::ffff:.
"""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa

from stratokit.dissect.layers import i64, u64
from stratokit.kernels import kernel, routine

# The longest text is eight groups of four digits with seven colons.
TEXT_MAX = 39
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
# Hashes differ from process to process, so that no capture can be made whose addresses all collide.
SEEDS = np.frombuffer(os.urandom(24), np.uint64) | u64(1)


@kernel
def _distinct(
    words: np.ndarray,
    versions: np.ndarray,
    seeds: np.ndarray,
    codes: np.ndarray,
    firsts: np.ndarray,
    bits: int,
    table: np.ndarray,
) -> int:
    """Number the distinct (address, version) pairs in order of appearance; `firsts` gets a row of each.

    `table` has 1 << bits places, all -1.
    """
    mask = u64((1 << bits) - 1)
    count = 0
    for i in range(len(versions)):
        version = versions[i]
        if version == 0:
            codes[i] = 0
            continue
        mixed = words[i, 0] * seeds[0] + words[i, 1] * seeds[1] + u64(version)
        mixed = (mixed ^ mixed >> u64(32)) * seeds[2]
        slot = mixed >> u64(64 - bits)
        while True:
            code = table[slot]
            if code < 0:
                table[slot] = count
                firsts[count] = i
                codes[i] = count
                count += 1
                break
            k = firsts[code]
            if words[k, 0] == words[i, 0] and words[k, 1] == words[i, 1] and versions[k] == version:
                codes[i] = code
                break
            slot = slot + u64(1) & mask
    return count


@routine
def _write_dotted(address: np.ndarray, out: np.ndarray, at: int) -> int:
    """The last four bytes as a.b.c.d; returns the end."""
    for k in range(12, 16):
        value = i64(address[k])
        if value >= 100:
            out[at] = 48 + value // 100
            at += 1
        if value >= 10:
            out[at] = 48 + value // 10 % 10
            at += 1
        out[at] = 48 + value % 10
        out[at + 1] = 46
        at += 2
    return at - 1


@routine
def _zero_run(address: np.ndarray) -> tuple[int, int]:
    """First group and length of the longest run of zero groups, length 0 without one of two or more."""
    best, best_length, length = 0, 1, 0
    for group in range(8):
        if address[2 * group] or address[2 * group + 1]:
            length = 0
            continue
        length += 1
        if length > best_length:
            best, best_length = group - length + 1, length
    return (best, best_length) if best_length > 1 else (8, 0)


@routine
def _write_groups(address: np.ndarray, digits: np.ndarray, out: np.ndarray, at: int) -> int:
    """An IPv6 address; returns the end."""
    run, length = _zero_run(address)
    mapped = run == 0 and length == 5 and address[10] == 0xFF and address[11] == 0xFF
    dotted = mapped or (run == 0 and length == 6)
    group = 0
    while group < 8:
        if group == run:
            out[at] = 58
            at += 1
            group += length
            if group == 8:
                out[at] = 58
                at += 1
            continue
        if group:
            out[at] = 58
            at += 1
        if dotted and group == 6:
            return _write_dotted(address, out, at)
        value = i64(address[2 * group]) << 8 | i64(address[2 * group + 1])
        shift = 12
        while shift and not value >> shift:
            shift -= 4
        while shift >= 0:
            out[at] = digits[value >> shift & 15]
            at += 1
            shift -= 4
        group += 1
    return at


@kernel
def _format(
    addresses: np.ndarray,
    versions: np.ndarray,
    firsts: np.ndarray,
    digits: np.ndarray,
    out: np.ndarray,
    ends: np.ndarray,
) -> None:
    at = 0
    ends[0] = 0
    for i in range(len(firsts)):
        k = firsts[i]
        if versions[k] == 4:
            at = _write_dotted(addresses[k], out, at)
        else:
            at = _write_groups(addresses[k], digits, out, at)
        ends[i + 1] = at


def versions_of(addresses: np.ndarray) -> np.ndarray:
    """4 for addresses within ::ffff:0:0/96, 6 for all others: for sources that do not tell them apart."""
    words = np.ascontiguousarray(addresses, np.uint8).view("<u8").reshape(-1, 2)
    mapped = (words[:, 0] == 0) & (words[:, 1] & u64(0xFFFFFFFF) == u64(0xFFFF0000))
    return np.where(mapped, 4, 6).astype(np.uint8)


def address_column(addresses: np.ndarray, versions: np.ndarray) -> pa.DictionaryArray:
    """Addresses as text.

    Args:
        addresses: u1[n, 16], IPv4 as ::ffff:a.b.c.d.
        versions: u1[n], 4 or 6; 0 makes the value null.

    Example:
        >>> import ipaddress
        >>> import numpy as np
        >>> raw = np.frombuffer(ipaddress.ip_address("2001:db8::1").packed, np.uint8).reshape(1, 16)
        >>> address_column(raw, np.array([6], np.uint8)).to_pylist()
        ['2001:db8::1']
    """
    addresses = np.ascontiguousarray(addresses, np.uint8).reshape(-1, 16)
    versions = np.ascontiguousarray(versions, np.uint8)
    count = len(versions)
    codes = np.empty(count, np.int32)
    firsts = np.empty(count, np.int64)
    # At most half full, whatever comes; only slots that are hit cost anything.
    bits = max(int(2 * count - 1).bit_length(), 4) if count else 4
    table = np.full(1 << bits, -1, np.int32)
    distinct = _distinct(addresses.view(np.uint64), versions, SEEDS, codes, firsts, bits, table)
    text = np.empty(distinct * TEXT_MAX, np.uint8)
    ends = np.empty(distinct + 1, np.int32)
    _format(addresses, versions, firsts[:distinct], DIGITS, text, ends)
    texts = pa.StringArray.from_buffers(distinct, pa.py_buffer(ends), pa.py_buffer(text[: ends[-1]]))
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=versions == 0), texts)
