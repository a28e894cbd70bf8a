"""What kernels need of numba when there is no machine code for them: compiling, and what is kept of it."""

from __future__ import annotations

import contextlib
import functools
import os
import types
from typing import TYPE_CHECKING, Any

import numba
from llvmlite import binding
from numba.core import event
from numba.core.caching import CacheImpl, CompileResultCacheImpl, FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import LoweringPass, register_pass
from numba.core.environment import lookup_environment
from numba.core.errors import NumbaError
from numba.core.runtime.nrt import rtsys
from numba.core.serialize import dumps
from numba.core.typed_passes import AnnotateTypes
from numba.core.types import unliteral

from stratokit import kernel_cache, kernel_code, kernel_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

listeners: list[Callable[[Any], None]] = []  # called with each function that numba begins to compile


class _Part(JITCodeLibrary):
    """Code that is linked into that of others, and optimised there together with it."""

    def _optimize_final_module(self) -> None:
        pass


@register_pass(mutates_CFG=False, analysis_only=True)  # type: ignore[no-untyped-call]
class _AsPart(LoweringPass):
    """Has what follows put the code of a routine into a `_Part`."""

    _name = "stratokit_as_part"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def run_pass(self, state: Any) -> bool:
        """See numba's passes."""
        made = state.targetctx.codegen().create_library(state.func_id.func_qualname)
        made.enable_object_caching()
        made.__class__ = _Part
        state.library = made
        return False


class _RoutineCompiler(CompilerBase):
    """numba's, for functions that only kernels call."""

    def define_pipelines(self) -> list[Any]:
        """See numba's compilers."""
        builder: Any = DefaultPassBuilder
        passes = builder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_AsPart, AnnotateTypes)
        passes.finalize()
        return [passes]


def dispatcher(kernel: Any) -> Any:
    """numba's object for a kernel; of other kernels that this one names it finds theirs."""
    function = kernel.function
    known = dict(function.__globals__)
    copy = types.FunctionType(
        function.__code__, known, function.__name__, function.__defaults__, function.__closure__
    )
    functools.update_wrapper(copy, function)
    del copy.__dict__["__wrapped__"]
    own = {"pipeline_class": _RoutineCompiler} if kernel.options.get("no_cpython_wrapper") else {}
    compile_later: Any = numba.njit
    made = compile_later(copy, **kernel.options, **own)
    if made is not copy:  # as it is with NUMBA_DISABLE_JIT
        made._cache = _Cache(copy)
        made.get_call_template = functools.partial(_of_plain_types, made.get_call_template)
    kernel.__dict__["compiled"] = made  # a kernel may call itself
    for name in _names(function.__code__):
        if isinstance(known.get(name), kernel_code.Compiled):
            known[name] = known[name].compiled
    return made


def compiled(kernel: Any, kinds: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
    """numba's object for a kernel, compiled for these arguments; kept where it can run without numba."""
    made = kernel.compiled
    try:
        signature = tuple(map(numba.typeof, arguments))
    except NumbaError:
        return made  # which says what is wrong
    if hasattr(made, "compile"):  # as it is but with NUMBA_DISABLE_JIT
        made.compile(signature)
    found = getattr(made, "overloads", {}).get(signature)
    if found is not None and kernel_code.can_keep(kernel.function):
        # Otherwise numba compiles it, or takes it from its own cache, every time.
        with contextlib.suppress(Exception):
            kept = _kept(found)
            if kept is not None:
                kernel_code.save(kernel.function, kinds, kept)
    return made


def _kept(found: Any) -> kernel_code.Kept | None:
    described = found.fndesc
    linked = kernel_objects.linked(found.library._get_compiled_object(), described.llvm_cpython_wrapper_name)
    if linked is None or found.reload_init or found.lifted or described.env_name not in linked.environments:
        return None
    for _, name, _ in linked.outer:
        known = binding.address_of_symbol(name)
        if name not in kernel_code.OUR_OWN and known not in (None, kernel_code.address(name)):
            return None
    constants = {}
    for name in linked.environments:
        environment = lookup_environment(name)  # type: ignore[no-untyped-call]
        if environment is not None and environment.consts:
            constants[name] = list(environment.consts)
    return kernel_code.Kept(linked, constants, described.env_name)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


def _of_plain_types(template: Callable[..., Any], types: Sequence[Any], named: dict[str, Any]) -> Any:
    """What a call in a kernel compiles: numbers that are known before are numbers like any other."""
    plain: Callable[[Any], Any] = unliteral
    return template(tuple(map(plain, types)), {name: plain(type_) for name, type_ in named.items()})


class _Results(CompileResultCacheImpl):
    """What numba finds in its cache, with the machine code that LLVM has taken out of it."""

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        found = super().rebuild(target_context, payload)  # type: ignore[no-untyped-call]
        _, _, (found.library._compiled_object, _) = payload[0]
        return found


class _Files:
    """numba's cache of a function, a file for each row of types.

    numba itself numbers the files and keeps the numbers in an index: two processes that compile at once may
    give the same number to different types, and nothing tells when a file is damaged.
    """

    def __init__(self, function: Any) -> None:
        code = function.__code__
        where = kernel_cache.place(os.path.abspath(code.co_filename))
        self._begin = os.path.join(where, f"{code.co_name}-{code.co_firstlineno}")

    def load(self, key: Any) -> Any:
        known, data = kernel_cache.load(self._path(key)) or (None, None)
        return data if known == key else None

    def save(self, key: Any, data: Any) -> None:
        kernel_cache.save(self._path(key), dumps((key, data)))  # type: ignore[no-untyped-call]

    def _path(self, key: Any) -> str:
        return f"{self._begin}-{kernel_code.digest(repr(key))}.numba"


class _Cache(FunctionCache):
    """Machine code as it was kept, found at once.

    numba first loads all it knows of types, which takes as long as loading numba itself; only compiling needs
    it.
    """

    _impl_class = _Results

    def __init__(self, function: Any) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        files: Any = _Files(function)
        self._cache_file = files

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
        if not kernel_cache.is_ours(path):
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


class _Listener(event.Listener):
    """Tells those who asked to know."""

    def on_start(self, event: Any) -> None:
        """numba begins to compile a function."""
        for tell in tuple(listeners):
            tell(event.data["dispatcher"].py_func)

    def on_end(self, event: Any) -> None:
        """It has ended."""


CacheImpl._locator_classes.insert(0, _Place)
event.register("numba:compile", _Listener())  # type: ignore[no-untyped-call]
