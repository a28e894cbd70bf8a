"""Little-endian numbers in a buffer, each in one load; put together from bytes they are up to eight.

The caller has checked that the bytes are there.
"""

from __future__ import annotations

import functools
from typing import Any

from stratokit.kernel_code import Compiled


class _Load(Compiled):
    """A function (data, at) of kernels: `bits` at byte `at` of an array of bytes, as an int64."""

    def __init__(self, bits: int) -> None:
        self._bits = bits

    @functools.cached_property
    def compiled(self) -> Any:
        """numba's intrinsic."""
        from llvmlite import ir
        from numba import types
        from numba.core import cgutils
        from numba.extending import intrinsic

        bits = self._bits

        def load(typing: Any, data: Any, at: Any) -> Any:  # noqa: ARG001 - names that numba reads
            def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                array = context.make_array(signature.args[0])(context, builder, args[0])
                where = cgutils.gep_inbounds(builder, array.data, args[1])  # type: ignore[no-untyped-call]
                value = builder.load(builder.bitcast(where, ir.IntType(bits).as_pointer()), align=1)
                return value if bits == 64 else builder.zext(value, ir.IntType(64))

            return types.int64(data, types.int64), code

        load.__name__ = load.__qualname__ = f"load{bits}"
        return intrinsic(load)


load16: Any = _Load(16)
load32: Any = _Load(32)
load64: Any = _Load(64)
