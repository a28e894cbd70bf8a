"""Running sums, maxima and searches within streams, over arrays: polars would group the rows each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.kernels import kernel, read_only
from stratokit.streams.sides import CLIENT, SERVER, VIEWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NONE = np.iinfo(np.int64).min


@kernel
def _reaching(keys: np.ndarray, places: np.ndarray, key: np.ndarray, place: np.ndarray) -> np.ndarray:
    found = np.full(key.size, -1, np.int64)
    for i in range(key.size):
        if place[i] == _NONE:
            continue
        low, high = 0, keys.size
        while low < high:
            middle = (low + high) // 2
            if keys[middle] < key[i] or (keys[middle] == key[i] and places[middle] < place[i]):
                low = middle + 1
            else:
                high = middle
        if low < keys.size and keys[low] == key[i]:
            found[i] = low
    return found


@kernel
def _sums(group: np.ndarray, values: np.ndarray, total: np.ndarray, out: np.ndarray) -> None:
    for i in range(values.size):
        total[group[i]] += values[i]
        out[i] = total[group[i]]


@kernel
def _highest(stream: np.ndarray, out: np.ndarray) -> None:
    for i in range(1, out.size):
        if stream[i] == stream[i - 1]:
            out[i] = max(out[i], out[i - 1])


def _numbers(series: pl.Series) -> NDArray[np.int64]:
    found: NDArray[np.int64] = read_only(series.cast(pl.Int64).fill_null(_NONE).to_numpy(), np.int64)
    return found


def stream_key(view: pl.Expr, from_client: pl.Expr) -> pl.Expr:
    """One number for `flow_id`, the end at which a stream was seen, and its direction."""
    return (pl.col("flow_id").cast(pl.Int64) * VIEWS + view) * 2 + (~from_client).cast(pl.Int64)


def at_sender(key: pl.Expr) -> pl.Expr:
    """Whether it is of a stream as the socket saw it that sends it."""
    return (key % (2 * VIEWS)).is_in([CLIENT * 2, SERVER * 2 + 1])


def reaching(keys: pl.Series, places: pl.Series, key: pl.Series, place: pl.Series) -> pl.Series:
    """Row of the first of `places` that is at least `place` among those of the same key; null without one.

    `keys` ascend, and `places` within each of them.

    >>> reaching(*map(pl.Series, ([1, 1, 2], [10, 20, 10], [1, 1, 2, 3], [11, 21, None, 1]))).to_list()
    [1, None, None, None]
    """
    return pl.Series(_reaching(*map(_numbers, (keys, places, key, place)))).replace(-1, None)


def sums(group: pl.Series, values: pl.Series) -> pl.Series:
    """The sum of a row's group up to and with that row; groups are small numbers.

    >>> sums(pl.Series([0, 1, 0]), pl.Series([5, 7, 3])).to_list()
    [5, 7, 8]
    """
    groups, out = _numbers(group), np.empty(len(values), np.int64)
    _sums(groups, _numbers(values), np.zeros(groups.max(initial=-1) + 1, np.int64), out)
    return pl.Series(out)


def highest(stream: pl.Series, values: pl.Series) -> pl.Series:
    """The highest value of a row's stream up to that row; rows of a stream stand together.

    >>> highest(pl.Series([0, 0, 1]), pl.Series([5, 3, 4])).to_list()
    [5, 5, 4]
    """
    out = _numbers(values).copy()
    _highest(_numbers(stream), out)
    return pl.Series(out)
