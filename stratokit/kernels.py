"""Decorators of functions that numba compiles: `kernel` where Python calls, `routine` where only kernels do.

Compiling is most of the first use after installation, and a function that only kernels call needs no way in
from Python: leaving that out makes its compilation a third shorter. A division by zero gives what numpy gives
and raises nothing.

Loading numba takes longer than most commands work. So machine code is kept as a file (kernel_code), found by
the types of the arguments, and numba is loaded (kernel_compiler) where there is none, and for arguments of
types that are not told apart here.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stratokit import kernel_code

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")  # what is checked is the function as it is written
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_WITHOUT_WAY_IN = _OPTIONS | {"no_cpython_wrapper": True}

# Called with each function that numba begins to compile.
compile_listeners: list[Callable[[Any], None]] = []

# Of numpy's flags: contiguous as in C, as in Fortran, aligned, writeable.
_C, _FORTRAN, _ALIGNED, _WRITEABLE = 1, 2, 0x100, 0x400
_LAYOUT = _C | _FORTRAN | _ALIGNED | _WRITEABLE
_INT64 = range(-(1 << 63), 1 << 63)
_NUMBERS = frozenset((bool, float, *(np.dtype(code).type for code in "?bBhHiIlLfd")))
_LOCK = threading.RLock()


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
    compiled: Any = Kernel(function, options)
    return compiled  # type: ignore[no-any-return]


class Kernel(kernel_code.Compiled):
    """A function and its machine code, for each row of types of arguments that it was called with."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function, self.options = function, options
        self._codes: dict[tuple[Any, ...] | None, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run it; see `kernel`."""
        kinds = None if named else _kinds(arguments)
        code = self._codes.get(kinds)
        if code is None and kinds is not None:
            code = self._kept(kinds)
        return code(*arguments) if code else self._by_numba(kinds, arguments, named)

    @functools.cached_property
    def compiled(self) -> Any:
        """numba's dispatcher."""
        from stratokit import kernel_compiler

        kernel_compiler.listeners = compile_listeners
        with _LOCK:
            return self.__dict__.get("compiled") or kernel_compiler.dispatcher(self)

    def _kept(self, kinds: tuple[Any, ...]) -> Callable[..., Any] | None:
        with _LOCK:
            code = self._codes.get(kinds) or kernel_code.load(self.function, kinds)
            if code:
                self._codes[kinds] = code
        return code

    def _by_numba(
        self, kinds: tuple[Any, ...] | None, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        if kinds is None:
            return self.compiled(*arguments, **named)
        with kernel_code.alone(self.function):
            code = self._kept(kinds)  # by another process, which was waited for
            if code is None:
                from stratokit import kernel_compiler

                code = self._codes[kinds] = kernel_compiler.compiled(self, kinds, arguments)
        return code(*arguments)


def _kinds(arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What numba's types of these depend on and more; None where it might look at something else.

    Machine code trusts its arguments: two rows of arguments with the same kinds are of the same types.
    """
    kinds: list[Any] = []
    for argument in arguments:
        kind = type(argument)
        if kind is np.ndarray:
            layout = argument.flags.num & _LAYOUT
            kinds += (argument.dtype, argument.ndim, layout & ~_FORTRAN if layout & _C else layout)
        elif kind is int:
            if argument not in _INT64:
                return None
            kinds.append(int)
        elif kind in _NUMBERS:
            kinds.append(kind)
        elif issubclass(kind, tuple):
            inner = _kinds(argument)
            if inner is None:
                return None
            kinds.append((kind, inner))
        else:
            return None
    return tuple(kinds)
