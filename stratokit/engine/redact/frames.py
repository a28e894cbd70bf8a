"""Frames without what lies behind their headers, and headers without addresses.

What stays of a frame is the link layer, one IP header and one TCP, UDP, ICMP or SCTP header; tunnels are
cut behind the outer ones, fragments and other protocols behind IP. The frame is shorter then, as by a snap
length: `orig_len` and TCP's numbers say what there was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, routine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.engine.redact.addresses import PrefixHash

_ETHERNET, _LOOPBACK, _LOOP, _SLL, _SLL2 = 1, 0, 108, 113, 276
_RAW = (12, 14, 101, 228, 229)
_VLANS = (0x8100, 0x88A8, 0x9100)
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_TCP, _UDP, _ICMP, _ICMP6, _SCTP = 6, 17, 1, 58, 132
_FRAGMENT = 0x3FFF  # offset and "more fragments" (RFC 791 section 3.1)
_REDIRECT = 5
_LAST_PLAIN_OPTION, _TIMESTAMPS = 5, 8  # of TCP: sizes, windows and acknowledgements, no addresses
# Columns of `headers`.
KEEP, LINK, IP, VERSION = 0, 1, 2, 3


@routine
def _link(data: np.ndarray, at: int, end: int, link: int) -> tuple[int, int]:
    """Where the link layer ends, and what follows as an Ethernet type; -1 where nothing is known of it."""
    if link == _ETHERNET and at + 14 <= end:
        kind = i64(data[at + 12]) << 8 | i64(data[at + 13])
        at += 14
        while kind in _VLANS and at + 4 <= end:
            kind = i64(data[at + 2]) << 8 | i64(data[at + 3])
            at += 4
        return at, kind
    if link == _SLL and at + 16 <= end:
        return at + 16, i64(data[at + 14]) << 8 | i64(data[at + 15])
    if link == _SLL2 and at + 20 <= end:
        return at + 20, i64(data[at]) << 8 | i64(data[at + 1])
    if link in (_LOOPBACK, _LOOP):
        at += 4
    elif link not in _RAW:
        return at, i64(-1)
    if at >= end:
        return at, i64(-1)
    version = data[at] >> 4
    return at, i64(_IPV4) if version == 4 else i64(_IPV6) if version == 6 else i64(0)


@routine
def _transport_end(data: np.ndarray, proto: int, at: int, end: int) -> int:
    """Where the header of a protocol that stays ends, which begins at `at`."""
    if proto == _TCP and at + 20 <= end:
        size: int = max(4 * i64(data[at + 12] >> 4), 20)
        return at + size
    if proto in (_UDP, _ICMP, _ICMP6):
        return at + 8
    return at + 12 if proto == _SCTP else at


@kernel
def _headers(
    data: np.ndarray, start: np.ndarray, size: np.ndarray, links: np.ndarray, found: np.ndarray
) -> None:
    """Per frame KEEP, where headers end; LINK, the link layer's end; IP, where IP begins, or -1; VERSION."""
    for k in range(start.size):
        end = start[k] + size[k]
        found[k, IP] = -1
        at, kind = _link(data, start[k], end, links[k])
        if kind < 0:
            continue  # nothing is known of it, so nothing stays
        found[k, LINK] = found[k, KEEP] = at - start[k]
        proto, after = i64(-1), at
        if kind == _IPV4 and at + 20 <= end:
            after = at + 4 * i64(data[at] & 15)
            if after < at + 20:
                continue
            if (i64(data[at + 6]) << 8 | i64(data[at + 7])) & _FRAGMENT == 0:
                proto = i64(data[at + 9])
            found[k, IP], found[k, VERSION] = at - start[k], 4
        elif kind == _IPV6 and at + 40 <= end:
            after, proto = at + 40, i64(data[at + 6])
            found[k, IP], found[k, VERSION] = at - start[k], 6
        elif kind == _ARP:
            found[k, VERSION] = 1
        found[k, KEEP] = min(_transport_end(data, proto, after, end), end) - start[k]


@routine
def _clean_ipv4(data: np.ndarray, at: int, after: int) -> None:
    """No options (routes and addresses are in them), and the sum of what there is now."""
    data[at + 20 : after] = 0
    data[at + 10 : at + 12] = 0
    total = i64(0)
    for i in range(at, after - 1, 2):
        total += i64(data[i]) << 8 | i64(data[i + 1])
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    total = ~total & 0xFFFF
    data[at + 10], data[at + 11] = total >> 8, total & 255


@routine
def _clean_options(data: np.ndarray, i: int, end: int) -> None:
    """Of TCP's options only those without addresses; Multipath TCP has some."""
    while i < end:
        kind = data[i]
        if kind <= 1:
            i += 1
            continue
        length = i64(data[i + 1]) if i + 1 < end else i64(1)
        stop = min(i + length, end) if length >= 2 else end
        if length < 2 or not (kind <= _LAST_PLAIN_OPTION or kind == _TIMESTAMPS):
            data[i:stop] = 1
        i = stop


@kernel
def _clean(data: np.ndarray, start: np.ndarray, links: np.ndarray, found: np.ndarray) -> None:
    """Take away what else names hosts in the headers that stay, and sum IPv4 headers up again."""
    for k in range(start.size):
        end = start[k] + found[k, KEEP]
        if links[k] == _ETHERNET:
            data[start[k] : min(start[k] + 12, end)] = 0
        elif links[k] == _SLL:
            data[start[k] + 6 : min(start[k] + 14, end)] = 0
        elif links[k] == _SLL2:
            data[start[k] + 12 : min(start[k] + 20, end)] = 0
        if found[k, IP] < 0:
            continue
        at = start[k] + found[k, IP]
        if found[k, VERSION] == 4:
            after, proto = min(at + 4 * i64(data[at] & 15), end), data[at + 9]
            _clean_ipv4(data, at, after)
        else:
            after, proto = at + 40, data[at + 6]
        if proto == _ICMP and after + 8 <= end and data[after] == _REDIRECT:
            data[after + 4 : after + 8] = 0
        if proto == _TCP:
            _clean_options(data, after + 20, end)


def headers(data: NDArray[np.uint8], start: Any, size: Any, links: Any) -> NDArray[np.int64]:
    """Where headers are in each frame (see `_headers`)."""
    found = np.zeros((start.size, 4), np.int64)
    _headers(data, start.astype(np.int64), size.astype(np.int64), links.astype(np.int64), found)
    return found


def hash_addresses(
    data: NDArray[np.uint8], start: Any, links: Any, found: NDArray[np.int64], hashing: PrefixHash
) -> None:
    """Put hashes where the addresses of IP headers are, and take away what else names hosts."""
    for version, width, first in ((4, 4, 12), (6, 16, 8)):
        rows = np.flatnonzero((found[:, IP] >= 0) & (found[:, VERSION] == version))
        at = start[rows] + found[rows, IP] + first
        places = np.concatenate([at, at + width])[:, None] + np.arange(width)
        distinct, which = np.unique(data[places].reshape(-1, width), axis=0, return_inverse=True)
        if distinct.size:
            data[places] = hashing.hashed(distinct)[which.ravel()]
    _clean(data, start.astype(np.int64), links.astype(np.int64), found)
