"""Which response answers which query, and which queries are one name tried with several search domains."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.dissect.layers import i64, u64
from stratokit.kernels import kernel, routine

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A transaction: its first query, its response, how often the query was sent; -1 where there is none.
QUERY, RESPONSE, ATTEMPTS = range(3)

_LOOK_BACK = 8  # queries of one client and type that may be on their way at once
SEARCH_PAUSE_NS = 1_000_000_000  # between a failure and the next name of the search
SEARCH_TIMEOUT_NS = 30 * 1_000_000_000  # the same when nothing was answered
_DOT = 46


@kernel
def _pair(keys: np.ndarray, is_response: np.ndarray, seed: Any) -> np.ndarray:
    out = np.empty((is_response.size, 3), np.int64)
    mask = 15
    while mask < 2 * is_response.size:
        mask = 2 * mask + 1
    slots = np.full(mask + 1, -1, np.int64)
    n = 0
    for i in range(is_response.size):
        h = seed
        for k in range(keys.shape[1]):
            h = (h ^ u64(keys[i, k])) * u64(0x9E3779B97F4A7C15)
            h ^= h >> u64(29)
        at = i64(h & u64(mask))
        found = i64(-1)
        while slots[at] >= 0:
            t = slots[at]
            j = out[t, QUERY] if out[t, QUERY] >= 0 else out[t, RESPONSE]
            same = True
            for k in range(keys.shape[1]):
                same = same and keys[i, k] == keys[j, k]
            if same:
                found = t
                break
            at = (at + 1) & mask
        if is_response[i] and found >= 0:
            if out[found, RESPONSE] < 0:
                out[found, RESPONSE] = i
        elif found >= 0 and out[found, RESPONSE] < 0:
            out[found, ATTEMPTS] += 1
        else:
            out[n, QUERY] = -1 if is_response[i] else i
            out[n, RESPONSE] = i if is_response[i] else -1
            out[n, ATTEMPTS] = 0 if is_response[i] else 1
            slots[at] = n
            n += 1
    return out[:n]


def pair(keys: NDArray[np.int64], is_response: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Transactions among messages in order of time; a query after an answer begins a new one.

    `keys` are the numbers, a row for each message, that a query and its response have in common.

    >>> pair(np.array([[1], [1], [2], [1], [1]]), np.array([False, False, False, True, False])).tolist()
    [[0, 3, 2], [2, -1, 1], [4, -1, 1]]
    """
    seed = u64(secrets.randbits(64))  # so that nobody can choose names that collide
    found: NDArray[np.int64] = _pair(np.ascontiguousarray(keys), is_response, seed)
    return found


@routine
def _lower(c: int) -> int:
    return c | 0x20 if 65 <= c <= 90 else c


@routine
def _shared_base(text: np.ndarray, a: int, a_size: int, b: int, b_size: int) -> int:
    """Size of the name that was searched for, when b may follow a in a search; else 0.

    One is the other with a suffix, or both are one name with a suffix and b's suffix is a parent of a's
    (resolv.conf(5): `search ns.svc.cluster.local svc.cluster.local cluster.local`).
    """
    common = 0
    while common < min(a_size, b_size) and _lower(text[a + common]) == _lower(text[b + common]):
        common += 1
    if common == min(a_size, b_size):
        longer, size = (a, a_size) if a_size > b_size else (b, b_size)
        return common if size > common > 1 and text[longer + common] == _DOT else 0
    if a_size < b_size:
        return 0
    while common > 0:
        rest = b_size - common
        if text[a + common] == _DOT and text[b + common] == _DOT and a_size - common > rest:
            k = 1
            while k <= rest and _lower(text[a + a_size - k]) == _lower(text[b + b_size - k]):
                k += 1
            if k > rest:
                return common
        common -= 1
    return 0


@kernel
def search_chains(
    order: np.ndarray, asker: np.ndarray, begin: np.ndarray, end: np.ndarray, failed: np.ndarray, names: Any
) -> tuple[np.ndarray, np.ndarray]:
    """(first query of the chain or -1, size of the name that was searched for), for each query.

    Args:
        order: queries by asker, then by time.
        asker: number of client and type.
        begin, end: when it was first asked and answered, the latter -1 where it was not.
        failed: whether there was no data in the answer.
        names: (text, start, size).
    """
    text, start, size = names
    chain = np.full(asker.size, -1, np.int64)
    base = np.zeros(asker.size, np.int64)
    found = np.zeros(asker.size, np.bool_)  # by the chain's first query: the search came to its end
    for k in range(order.size):
        i = order[k]
        for back in range(1, min(k, _LOOK_BACK) + 1):
            j = order[k - back]
            if asker[j] != asker[i]:
                break
            limit = end[j] + SEARCH_PAUSE_NS if end[j] >= 0 else begin[j] + SEARCH_TIMEOUT_NS
            if (
                not failed[j]
                or (chain[j] >= 0 and found[chain[j]])
                or begin[i] < max(end[j], begin[j])
                or begin[i] > limit
            ):
                continue
            shared = _shared_base(text, start[j], size[j], start[i], size[i])
            if not shared:
                continue
            first = chain[j] if chain[j] >= 0 else j
            chain[i] = chain[j] = first
            found[first] = not failed[i]
            base[first] = shared if base[first] == 0 else min(base[first], shared)
            break
    for i in range(asker.size):
        if chain[i] >= 0:
            base[i] = base[chain[i]]
    return chain, base
