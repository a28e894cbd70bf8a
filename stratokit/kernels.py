"""Decorators of functions that numba compiles: `kernel` where Python calls, `routine` where only kernels do.

Compiling is most of the first use after installation, and a function that only kernels call needs no way in
from Python: leaving that out makes its compilation a third shorter. A division by zero gives what numpy gives
and raises nothing.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np
from numba.core.caching import CacheImpl, FunctionCache
from numba.core.runtime.nrt import rtsys
from numba.core.types import unliteral

from stratokit import kernel_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

F = TypeVar("F", bound="Callable[..., Any]")  # what is checked is the function as it is written
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_WITHOUT_WAY_IN = _OPTIONS | {"no_cpython_wrapper": True}


def kernel(function: F) -> F:
    """Compiled on its first call with arguments of these types; runs without the GIL."""
    return _compiled(function, _OPTIONS)


def routine(function: F) -> F:
    """As `kernel`, for a function that only kernels and routines call: calling it from Python crashes."""
    return _compiled(function, _WITHOUT_WAY_IN)


def lean_kernel(function: F) -> F:
    """As `kernel`, for a function that makes no arrays, nor do those that it calls.

    References to arrays are then not counted. Where each record goes through several routines with many
    arrays, counting takes most of the time.
    """
    return _compiled(function, _OPTIONS | {"_nrt": False})


def lean_routine(function: F) -> F:
    """As `routine`, and as `lean_kernel`."""
    return _compiled(function, _WITHOUT_WAY_IN | {"_nrt": False})


def lean_part(function: F) -> F:
    """As `lean_routine`, for what every record goes through: its code stands in that of its callers.

    Otherwise a call hands over seven words for each array, which for a state of many is more than the work.
    """
    return _compiled(function, _WITHOUT_WAY_IN | {"_nrt": False, "forceinline": True})


def inlined(function: F) -> F:
    """As `routine`, its body put in place of each call before types are known."""
    return _compiled(function, _WITHOUT_WAY_IN | {"inline": "always"})


def read_only(values: Any, dtype: Any) -> Any:
    """`values` as a contiguous array that a kernel only reads, whatever it came from.

    numba compiles a kernel anew for arrays that may be written and for those with gaps. What Arrow, polars
    and mapped files give may not be written, what numpy computes may.
    """
    found = np.ascontiguousarray(values, dtype).view()
    found.flags.writeable = False
    return found


def _compiled(function: F, options: dict[str, Any]) -> F:
    dispatcher: Any = numba.njit(function, **options)
    dispatcher._cache = _Cache(function)  # type: ignore[no-untyped-call]
    dispatcher.get_call_template = functools.partial(_of_plain_types, dispatcher.get_call_template)
    compiled: F = dispatcher
    return compiled


def _of_plain_types(template: Callable[..., Any], types: Sequence[Any], named: dict[str, Any]) -> Any:
    """What a call in a kernel compiles: numbers that are known before are numbers like any other."""
    plain: Callable[[Any], Any] = unliteral
    return template(tuple(map(plain, types)), {name: plain(type_) for name, type_ in named.items()})


class _Cache(FunctionCache):
    """Machine code as it was kept, found at once.

    numba first loads all it knows of types, which takes as long as loading numba itself; only compiling needs
    it.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)  # counting references, which machine code calls
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]


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
