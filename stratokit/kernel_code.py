"""Machine code of kernels in files, and its way into a process that has not loaded numba.

numba's own cache needs numba, and LLVM as linker. But what it compiles for x86-64 is whole: an ELF object
with relocations of 64 bits, absolute or relative, that calls nothing but Python, the C library and helpers in
three of numba's extension modules, which load alone. kernel_objects lays out the sections of such an object
and says what has to be added to which word; `load` maps that and adds. Objects with anything else are not
kept: then numba is loaded as it would be without this module.

A file's name tells of all that its code depends on: source (kernel_cache.place), types of arguments, versions
of Python, numpy and numba, processor, and settings of numba. kernel_cache says who may write it.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import mmap
import os
import pickle
import struct
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stratokit import kernel_cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

WORD = struct.Struct("<Q")
OUR_OWN = ("numba_unpickle",)  # names that have a meaning here which numba does not give them

_EXTENSIONS = ("numba._helperlib", "numba._dynfunc", "numba.core.runtime._nrt_python")
# Settings of numba that change no code.
_NO_MATTER = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"}
# Lines of /proc/cpuinfo that differ where LLVM may use other instructions.
_PROCESSOR = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")


class Compiled:
    """What kernels may name and numba shall not see before it is loaded."""

    @functools.cached_property
    def compiled(self) -> Any:
        """What numba has in its place."""
        raise NotImplementedError

    @property
    def _numba_type_(self) -> Any:
        """For numba, which asks what it does not know."""
        from numba import typeof

        return typeof(self.compiled)  # type: ignore[no-untyped-call]


class Linked(NamedTuple):
    """Bytes to be mapped, and what becomes of words in them; places are offsets from the beginning."""

    content: bytes
    fixed: int  # so many bytes are not written to when it runs
    size: int
    entry: int
    inner: list[tuple[int, int]]  # (place, place that it points to)
    outer: list[tuple[int, str, int]]  # (place, name of what it points to, added)
    environments: dict[str, int]  # numba's constants of a function: where their address stands


class Kept(NamedTuple):
    """What a file holds."""

    linked: Linked
    constants: dict[str, list[Any]]  # of each environment that has them
    own: str  # the environment of the kernel itself


def can_keep(function: Any) -> bool:
    """Whether machine code of this function is kept at all."""
    return _build() is not None and kernel_cache.is_ours(function.__code__.co_filename)


def alone(function: Any) -> AbstractContextManager[None]:
    """Others that want to compile something of the same module wait for its end."""
    if not kernel_cache.is_ours(function.__code__.co_filename):
        return contextlib.nullcontext()
    return kernel_cache.alone(kernel_cache.place(os.path.abspath(function.__code__.co_filename)))


def load(function: Any, kinds: tuple[Any, ...]) -> Callable[..., Any] | None:
    """What runs machine code of `function` for arguments of these kinds; None if none is kept."""
    if not can_keep(function):
        return None
    kept = kernel_cache.load(_path(function, kinds))
    try:
        return _function(kept, function) if kept is not None else None
    except Exception:  # noqa: BLE001 - numba makes it anew, or says what is wrong
        return None


def save(function: Any, kinds: tuple[Any, ...], kept: Kept) -> None:
    """Keep machine code for `load`."""
    kernel_cache.save(_path(function, kinds), pickle.dumps(kept, protocol=5))


def _path(function: Any, kinds: tuple[Any, ...]) -> str:
    code = function.__code__
    name = f"{code.co_name}-{code.co_firstlineno}-{digest(_text(kinds))}.code"
    return os.path.join(kernel_cache.place(os.path.abspath(code.co_filename)), name)


def digest(kinds: str) -> str:
    """16 hex digits for kinds of arguments, and for what else machine code depends on beside its source."""
    return hashlib.sha256(f"{_build()}\n{kinds}".encode()).hexdigest()[:16]


def _text(kinds: tuple[Any, ...]) -> str:
    """The same in every process."""
    words = []
    for kind in kinds:
        if isinstance(kind, tuple):
            words.append(f"({_text((kind[0],))} {_text(kind[1])})")
        elif isinstance(kind, type):
            words.append(f"{kind.__module__}.{kind.__qualname__}")
        else:
            words.append(repr(kind))
    return " ".join(words)


@functools.cache
def _build() -> str | None:
    """What machine code depends on beside its source; None where none is kept."""
    found = importlib.util.find_spec("numba")
    if found is None or found.origin is None or sys.implementation.name != "cpython":
        return None
    words = [sys.version, np.__version__, EXTENSION_SUFFIXES[0]]
    packages = os.path.dirname(os.path.dirname(found.origin))
    try:
        for name in ("numba", "llvmlite"):
            with open(os.path.join(packages, name, "_version.py"), encoding="utf-8") as file:
                words.append(file.read())
        with open("/proc/cpuinfo", "rb") as file:
            first = file.read(1 << 14).partition(b"\n\n")[0].decode(errors="replace")
    except OSError:
        return None
    words += [line for line in first.splitlines() if line.partition(":")[0].strip() in _PROCESSOR]
    words += [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith("NUMBA_") and name not in _NO_MATTER
    ]
    return "\n".join(words)


def _function(kept: Kept, function: Any) -> Callable[..., Any]:
    linked = kept.linked
    # Never unmapped: at the end of the program threads may still run it.
    memory = _libc().mmap(None, linked.size, mmap.PROT_READ | mmap.PROT_WRITE, _PRIVATE, -1, 0)
    if memory in (None, ctypes.c_void_p(-1).value):
        raise MemoryError
    words = memoryview((ctypes.c_char * linked.size).from_address(memory)).cast("B")
    words[: len(linked.content)] = linked.content
    for at, target in linked.inner:
        WORD.pack_into(words, at, memory + target)
    for at, name, added in linked.outer:
        WORD.pack_into(words, at, address(name) + added)
    dynamic = _extension("numba._dynfunc")
    module = sys.modules[function.__module__]
    environments = {}
    for name, at in linked.environments.items():
        environments[name] = environment = dynamic.Environment(vars(module))
        environment.consts[:] = kept.constants.get(name, ())
        WORD.pack_into(words, at, id(environment))
    _FOREVER.append(environments)
    if _libc().mprotect(memory, linked.fixed, mmap.PROT_READ | mmap.PROT_EXEC):
        raise PermissionError
    return dynamic.make_function(  # type: ignore[no-any-return]
        module, function.__name__, function.__doc__ or "", memory + linked.entry, environments[kept.own], ()
    )


_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_FOREVER: list[Any] = []


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    word, number = ctypes.c_void_p, ctypes.c_int
    libc.mmap.restype = word
    libc.mmap.argtypes = [word, ctypes.c_size_t, number, number, number, ctypes.c_long]
    libc.mprotect.argtypes = [word, ctypes.c_size_t, number]
    return libc


@functools.cache
def address(name: str) -> int:
    """Of what machine code calls by a name; numba gives some of them meanings of its own."""
    if name in OUR_OWN:
        return ctypes.cast(_unpickle, ctypes.c_void_p).value or 0
    helpers, _, references = (_extension(module) for module in _EXTENSIONS)
    if name == "_Py_NoneStruct":
        return id(None)
    if name.startswith("PyExc_"):
        return id(getattr(builtins, name.removeprefix("PyExc_")))
    if name.startswith("NRT_"):
        return references.c_helpers[name.removeprefix("NRT_")]  # type: ignore[no-any-return]
    if name.removeprefix("numba_") in helpers.c_helpers:
        return helpers.c_helpers[name.removeprefix("numba_")]  # type: ignore[no-any-return]
    return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, name))


@functools.cache
def _unpickled(at: int, size: int) -> Any:
    return pickle.loads(ctypes.string_at(at, size))  # noqa: S301 - part of the machine code


# Types and errors that machine code makes, from address and size of a pickle; numba's own would load numba.
_unpickle = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(
    lambda at, size, _: _unpickled(at, size)
)


@functools.cache
def _extension(name: str) -> Any:
    """One of numba's extension modules, without numba; when numba is loaded later it finds this one."""
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.find_spec("numba")
    assert found is not None
    assert found.origin is not None
    path = os.path.join(os.path.dirname(found.origin), *name.split(".")[1:]) + EXTENSION_SUFFIXES[0]
    spec = importlib.util.spec_from_file_location(name, path, loader=ExtensionFileLoader(name, path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    if name.endswith("_nrt_python"):
        module.memsys_use_cpython_allocator()  # as numba does
    return module
