"""Kernels are compiled once for arguments that mean the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core.caching import NullCache

from stratokit.kernels import kernel, read_only, routine


@routine
def _added(a: int, b: int) -> int:
    return a + b


@kernel
def _of_known_and_unknown(n: int) -> int:
    return _added(_added(1, 2), n)


@kernel
def _total(values: np.ndarray) -> int:
    total = 0
    for i in range(len(values)):
        total += values[i]
    return total


for compiled_here in (_added, _of_known_and_unknown, _total):
    compiled_here.compiled._cache = NullCache()  # type: ignore[attr-defined]


def test_numbers_known_before_compile_no_kernel_of_their_own() -> None:
    assert _of_known_and_unknown(5) == 8
    compiled: Any = _added.compiled  # type: ignore[attr-defined]
    assert [str(types) for types in compiled.signatures] == ["(int64, int64)"]


def test_arrays_to_be_read_are_of_one_type() -> None:
    table = np.arange(12).reshape(4, 3)
    fixed = np.frombuffer(np.arange(4).tobytes(), np.int64)
    for values in (table[:, 1], table[1], fixed, fixed.astype(np.uint8)):
        assert _total(read_only(values, np.int64)) == values.sum()
    compiled: Any = _total.compiled  # type: ignore[attr-defined]
    assert len(compiled.signatures) == 1
    assert table.flags.writeable
