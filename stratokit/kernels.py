"""Decorators of functions that numba compiles: `kernel` where Python calls, `routine` where only kernels do.

Compiling is most of the first use after installation, and a function that only kernels call needs no way in
from Python: leaving that out makes its compilation a third shorter. A division by zero gives what numpy gives
and raises nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import numba
from numba.core.caching import CacheImpl

from stratokit import kernel_cache

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")  # what is checked is the function as it is written
_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_WITHOUT_WAY_IN = _OPTIONS | {"no_cpython_wrapper": True}


def kernel(function: F) -> F:
    """Compiled on its first call with arguments of these types; runs without the GIL."""
    compiled: F = numba.njit(function, **_OPTIONS)
    return compiled


def routine(function: F) -> F:
    """As `kernel`, for a function that only kernels and routines call: calling it from Python crashes."""
    compiled: F = numba.njit(function, **_WITHOUT_WAY_IN)
    return compiled


def inlined(function: F) -> F:
    """As `routine`, its body put in place of each call before types are known."""
    compiled: F = numba.njit(function, **_WITHOUT_WAY_IN, inline="always")
    return compiled


class _Place:
    """Tells numba where the machine code of a function of ours is kept; see kernel_cache."""

    def __init__(self, path: str, line: int) -> None:
        self._path, self._line = path, line

    @classmethod
    def from_function(cls, function: Any, path: str) -> _Place | None:
        """None for functions of other packages: numba then looks for a place by its own rules."""
        path = os.path.abspath(path)
        if not path.startswith(os.path.join(kernel_cache.PACKAGE, "")):
            return None
        return cls(path, function.__code__.co_firstlineno)

    def get_cache_path(self) -> str:
        return kernel_cache.place(self._path)

    def ensure_cache_path(self) -> None:
        self.get_cache_path()

    def get_source_stamp(self) -> str:
        return kernel_cache.fingerprint(self._path)

    def get_disambiguator(self) -> str:
        return str(self._line)


CacheImpl._locator_classes.insert(0, _Place)
