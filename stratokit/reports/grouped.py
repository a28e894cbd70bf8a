"""Many rows in few groups: exact percentiles and distinct values from one sort of each group's numbers.

polars gathers the rows of a group for each aggregate that needs them in order; of ten million system calls
that takes longer than all else, and most memory.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.kernels import kernel, read_only
from stratokit.reports.base import SHARES
from stratokit.streams.segments import bounds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_DENSE = 1 << 22


@kernel
def _placed(group: np.ndarray, values: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Values one group behind the other, and the bounds of each."""
    bounds = bounds_of(group, groups)
    at = bounds[:-1].copy()
    out = np.empty(values.size, np.int64)
    for i in range(values.size):
        out[at[group[i]]] = values[i]
        at[group[i]] += 1
    return out, bounds


@kernel
def _distinct(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    found = np.zeros(bounds.size - 1, np.int64)
    for g in range(found.size):
        for i in range(bounds[g], bounds[g + 1]):
            found[g] += i == bounds[g] or values[i] != values[i - 1]
    return found


def numbered(codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """The distinct codes in order, and for each row the number of its own.

    >>> [part.tolist() for part in numbered(np.array([7, 3, 7]))]
    [[3, 7], [1, 0, 1]]
    """
    if codes.size == 0 or codes.max() >= _DENSE:
        found, number = np.unique(codes, return_inverse=True)
        return found, number.astype(np.int32)
    there = np.bincount(codes) > 0
    return np.flatnonzero(there), (np.cumsum(there, dtype=np.int32) - 1)[codes]


def _codes(column: pl.Series) -> NDArray[Any]:
    """A number for each row that tells its values apart, null too."""
    if column.dtype == pl.Categorical:
        column = column.to_physical()
    codes = column.cast(pl.Int64)
    return codes.fill_null((codes.max() or 0) + 1).to_numpy()  # type: ignore[operator]


@dataclasses.dataclass(frozen=True, slots=True)
class Ordered:
    """Numbers of each group in order: those of group g are values[bounds[g] : bounds[g + 1]]."""

    values: NDArray[np.int64]
    bounds: NDArray[np.int64]

    def distinct(self) -> pl.Series:
        """How many different values each group has."""
        return pl.Series(_distinct(self.values, self.bounds))

    def sums(self) -> pl.Series:
        """The sum of each group."""
        filled = np.diff(self.bounds) > 0
        total = np.zeros(filled.size, np.int64)
        if filled.any():
            total[filled] = np.add.reduceat(self.values, self.bounds[:-1][filled])
        return pl.Series(total)

    def spread(self) -> dict[str, pl.Series]:
        """The columns of `base.SPREAD`, null for a group without values; as `base.spread` counts them."""
        counts = np.diff(self.bounds)
        places = {name: np.ceil(share * counts).astype(np.int64) - 1 for name, share in SHARES.items()}
        places["max_ns"] = counts - 1
        at = {name: np.where(counts > 0, self.bounds[:-1] + place, -1) for name, place in places.items()}
        values = pl.Series(self.values, dtype=pl.Int64)
        return {name: values.gather(pl.Series(place).replace(-1, None)) for name, place in at.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Groups:
    """Rows in groups: the number of each row's group, and the first row of each group."""

    number: NDArray[np.int32]
    first: NDArray[np.int64]

    @classmethod
    def of(cls, rows: pl.DataFrame, key: Sequence[str]) -> Groups:
        """The rows with equal values in `key`, each a column of categories or numbers; null is a value.

        >>> Groups.of(pl.DataFrame({"a": [7, None, 7], "b": [1, 1, 1]}), ["a", "b"]).number.tolist()
        [0, 1, 0]
        """
        together: NDArray[Any] = np.zeros(rows.height, np.int64)
        of = 1
        for name in key:
            codes = _codes(rows[name])
            size = int(codes.max(initial=0)) + 1
            if of * size > _DENSE:
                (some, together), (others, codes) = numbered(together), numbered(codes)
                of, size = some.size, others.size
            together, of = together * np.int64(size) + codes, of * size
        _, number = numbered(together)
        first = np.zeros(int(number.max(initial=-1)) + 1, np.int64)
        first[number[::-1]] = np.arange(rows.height - 1, -1, -1)
        return cls(number, first)

    def count(self, which: pl.Series | None = None) -> pl.Series:
        """Rows of each group, or those of them that a mask marks."""
        number = self.number if which is None else self.number[which.to_numpy()]
        return pl.Series(np.bincount(number, minlength=self.first.size), dtype=pl.UInt64)

    def sums(self, values: pl.Series) -> pl.Series:
        """The sum of each group; `values` has no nulls."""
        total = np.zeros(self.first.size, np.int64)
        np.add.at(total, self.number, values.to_numpy())
        return pl.Series(total)

    def coarser(self, rows: pl.DataFrame, key: Sequence[str]) -> tuple[Groups, NDArray[np.int32]]:
        """The groups by a part of their key, and for each of these the number of the one that it is in.

        >>> rows = pl.DataFrame({"a": [7, 7, 9], "b": [1, 2, 1]})
        >>> Groups.of(rows, ["a", "b"]).coarser(rows, ["a"])[1].tolist()
        [0, 0, 1]
        """
        whole = Groups.of(rows[self.first], key)
        first = np.full(whole.first.size, np.iinfo(np.int64).max)
        np.minimum.at(first, whole.number, self.first)
        return Groups(whole.number[self.number], first), whole.number

    def most(self, values: pl.Series) -> pl.Series:
        """The highest value of each group, null for a group without values.

        >>> groups = Groups(np.array([1, 0, 1, 2], np.int32), np.array([1, 0, 3]))
        >>> groups.most(pl.Series([5, 7, 8, None])).to_list()
        [7, 8, None]
        """
        number, lowest = self.number, np.iinfo(np.int64).min
        if values.null_count():
            number, values = number[values.is_not_null().to_numpy()], values.drop_nulls()
        top = np.full(self.first.size, lowest)
        np.maximum.at(top, number, values.to_numpy())
        return pl.Series(top).replace(lowest, None)

    def ordered(self, values: pl.Series) -> Ordered:
        """The values of each group in order, without nulls.

        >>> groups = Groups(np.array([1, 0, 1], np.int32), np.array([1, 0]))
        >>> groups.ordered(pl.Series([5, 7, 3])).values.tolist()
        [7, 3, 5]
        """
        number = self.number
        if values.null_count():
            number, values = number[values.is_not_null().to_numpy()], values.drop_nulls()
        placed, bounds = _placed(
            read_only(number, np.int32), read_only(values.to_numpy(), np.int64), self.first.size
        )
        for start, end in itertools.pairwise(bounds.tolist()):
            placed[start:end].sort()
        return Ordered(placed, bounds)
