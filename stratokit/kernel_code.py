"""Machine code of kernels in files, and its way into a process that has not loaded numba.

numba's own cache needs numba, and LLVM as linker. But what it compiles for x86-64 is whole: an ELF object whose
relocations are 64 bits wide, absolute or relative, and which calls nothing but Python, the C library and helpers
in three of numba's extension modules, which load alone. `save` lays the sections of such an object out and keeps
what has to be added to which word; `load` maps that and adds. Objects with anything else are not kept: then numba
is loaded as it would be without this module.

A file's name tells of what its code depends on: source (kernel_cache.place), types of arguments, versions of Python,
numpy and numba, processor, and settings of numba.
"""

from __future__ import annotations

import builtins
import ctypes
import functools
import hashlib
import importlib.util
import mmap
import os
import pickle
import struct
import sys
import tempfile
import zlib
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stratokit import kernel_cache

if TYPE_CHECKING:
    from collections.abc import Callable

_FORMAT = b"stratokit kernel 1\n"
_PAGE = mmap.PAGESIZE
_WORD = struct.Struct("<Q")
_LOW_64 = (1 << 64) - 1
# ELF64: gABI chapters 4 and 5, x86-64 psABI 4.4.
_HEADER = struct.Struct("<6s12xH20xQ10x3H")  # magic, machine, offset, size, number, names of sections
_ELF64_LITTLE, _X86_64 = b"\x7fELF\x02\x01", 62
_SECTION = np.dtype("<u4,<u4,<u8,<u8,<u8,<u8,<u4,<u4,<u8,<u8").newbyteorder("<")
_SECTION.names = (
    "name", "type", "flags", "address", "offset", "size", "link", "info", "align", "entry",
)  # fmt: skip
_SYMBOL = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("at", "<u8"), ("size", "<u8")])
_RELOCATION = np.dtype([("at", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
_PROGBITS, _SYMTAB, _RELA, _NOBITS = 1, 2, 4, 8
_WRITE, _ALLOC = 1, 2
_UNDEFINED, _COMMON = 0, 0xFFF2
_ABSOLUTE_64, _RELATIVE_64 = 1, 24
_OUR_OWN = ("numba_unpickle",)
_ENVIRONMENT = "_ZN08NumbaEnv"

_EXTENSIONS = ("numba._helperlib", "numba._dynfunc", "numba.core.runtime._nrt_python")
# Settings of numba that change no code.
_NO_MATTER = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"}
# Lines of /proc/cpuinfo that differ where LLVM may use other instructions.
_PROCESSOR = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")


class _Linked(NamedTuple):
    """Bytes to be mapped, and what becomes of words in them; places are offsets from the beginning."""

    content: bytes
    fixed: int  # so many bytes are not written to when it runs
    size: int
    entry: int
    inner: list[tuple[int, int]]  # (place, place that it points to)
    outer: list[tuple[int, str, int]]  # (place, name of what it points to, added)
    environments: dict[str, int]  # numba's constants of a function: where their address stands


class _Kept(NamedTuple):
    """What a file holds."""

    linked: _Linked
    constants: dict[str, list[Any]]  # of each environment that has them
    own: str  # the environment of the kernel itself


def can_keep(function: Any) -> bool:
    """Whether machine code of this function is kept at all."""
    return _build() is not None and kernel_cache.is_ours(function.__code__.co_filename)


def load(function: Any, kinds: tuple[Any, ...]) -> Callable[..., Any] | None:
    """A Python function that runs machine code of `function` for arguments of these kinds; None if there is none."""
    if not can_keep(function):
        return None
    try:
        with open(_path(function, kinds), "rb") as file:
            content = file.read()
        head = len(_FORMAT) + 4
        if content[:head] != _FORMAT + zlib.crc32(content[head:]).to_bytes(4, "little"):
            return None
        return _function(pickle.loads(content[head:]), function)
    except Exception:  # noqa: BLE001 - numba makes it anew, or says what is wrong
        return None


def save(
    function: Any,
    kinds: tuple[Any, ...],
    object_code: bytes,
    entry: str,
    own: str,
    environment: Callable[[str], Any],
    address: Callable[[str], int | None],
) -> None:
    """Keep the machine code of an ELF object if `load` can; `address` tells what numba takes for a name."""
    try:
        linked = _linked(object_code, entry)
        if linked is None or own not in linked.environments:
            return
        if any(address(name) not in (None, _address(name)) for _, name, _ in linked.outer if name not in _OUR_OWN):
            return
        constants = {}
        for name in linked.environments:
            found = environment(name)
            if found is not None and found.consts:
                constants[name] = list(found.consts)
        kept = pickle.dumps(_Kept(linked, constants, own), protocol=5)
        path = _path(function, kinds)
        number, part = tempfile.mkstemp(dir=os.path.dirname(path))
        with open(number, "wb") as file:
            file.write(_FORMAT + zlib.crc32(kept).to_bytes(4, "little") + kept)
        os.replace(part, path)
    except Exception:  # noqa: BLE001 - then it is compiled or loaded by numba every time
        return


def _path(function: Any, kinds: tuple[Any, ...]) -> str:
    code = function.__code__
    digest = hashlib.sha256(f"{_build()}\n{_text(kinds)}".encode()).hexdigest()[:16]
    name = f"{code.co_name}-{code.co_firstlineno}-{digest}.code"
    return os.path.join(kernel_cache.place(os.path.abspath(code.co_filename)), name)


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


def _function(kept: _Kept, function: Any) -> Callable[..., Any]:
    linked = kept.linked
    # Never unmapped: at the end of the program threads may still run it.
    memory = _libc().mmap(None, linked.size, mmap.PROT_READ | mmap.PROT_WRITE, _PRIVATE, -1, 0)
    if memory in (None, ctypes.c_void_p(-1).value):
        raise MemoryError
    words = memoryview((ctypes.c_char * linked.size).from_address(memory)).cast("B")
    words[: len(linked.content)] = linked.content
    for at, target in linked.inner:
        _WORD.pack_into(words, at, memory + target)
    for at, name, added in linked.outer:
        _WORD.pack_into(words, at, _address(name) + added & _LOW_64)
    dynamic = _extension("numba._dynfunc")
    module = sys.modules[function.__module__]
    environments = {}
    for name, at in linked.environments.items():
        environments[name] = environment = dynamic.Environment(vars(module))
        environment.consts[:] = kept.constants.get(name, ())
        _WORD.pack_into(words, at, id(environment))
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
def _address(name: str) -> int:
    """Of what machine code calls by a name; numba gives some of them meanings of its own."""
    if name in _OUR_OWN:
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
    return pickle.loads(ctypes.string_at(at, size))


@ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
def _unpickle(at: int, size: int, _: int) -> Any:
    """Types and errors that machine code makes; numba's own would load numba."""
    return _unpickled(at, size)


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


def _linked(elf: bytes, entry: str) -> _Linked | None:
    """An ELF object laid out; None if it has what is not dealt with here."""
    magic, machine, at, size, number, names_at = _HEADER.unpack_from(elf)
    if (magic, machine, size) != (_ELF64_LITTLE, _X86_64, _SECTION.itemsize):
        return None
    sections = np.frombuffer(elf, _SECTION, number, at)

    def part(section: Any, dtype: Any) -> Any:
        return np.frombuffer(elf, dtype, int(section["size"]) // dtype.itemsize, int(section["offset"]))

    def text(strings: Any, at: Any) -> str:
        begin = int(strings["offset"]) + int(at)
        return elf[begin : elf.index(b"\0", begin)].decode()

    # Code and constants first; what is written to begins a page.
    content = bytearray()
    places: dict[int, int] = {}
    fixed = 0
    for writable in (0, _WRITE):
        for index, section in enumerate(sections):
            flags = int(section["flags"])
            loaded = flags & _ALLOC and flags & _WRITE == writable and section["type"] in (_PROGBITS, _NOBITS)
            if not loaded or text(sections[names_at], section["name"]) == ".eh_frame":
                continue
            _fill(content, max(int(section["align"]), 1))
            places[index] = len(content)
            begin, length = int(section["offset"]), int(section["size"])
            content += bytes(length) if section["type"] == _NOBITS else elf[begin : begin + length]
        if not writable:
            _fill(content, _PAGE)
            fixed = len(content)
    (symbol_table,) = (section for section in sections if section["type"] == _SYMTAB)
    symbols = part(symbol_table, _SYMBOL)
    strings = sections[symbol_table["link"]]
    names = [text(strings, symbol["name"]) for symbol in symbols]
    targets: dict[int, int] = {}
    end = len(content)
    for index, symbol in enumerate(symbols):
        if symbol["section"] == _COMMON:  # the value is the alignment
            end += -end % max(int(symbol["at"]), 1)
            targets[index] = end
            end += int(symbol["size"])
        elif int(symbol["section"]) in places:
            targets[index] = places[int(symbol["section"])] + int(symbol["at"])
    inner: list[tuple[int, int]] = []
    outer: list[tuple[int, str, int]] = []
    for section in sections:
        if section["type"] != _RELA or int(section["info"]) not in places:
            continue
        for relocation in part(section, _RELOCATION):
            at = places[int(section["info"])] + int(relocation["at"])
            symbol, added = int(relocation["symbol"]), int(relocation["addend"])
            if symbol in targets and relocation["type"] == _ABSOLUTE_64:
                inner.append((at, targets[symbol] + added))
            elif symbol in targets and relocation["type"] == _RELATIVE_64:
                _WORD.pack_into(content, at, targets[symbol] + added - at & _LOW_64)
            elif symbols[symbol]["section"] == _UNDEFINED and relocation["type"] == _ABSOLUTE_64:
                outer.append((at, names[symbol], added))
            else:
                return None
    environments = {
        names[index]: at for index, at in targets.items() if names[index].startswith(_ENVIRONMENT)
    }
    size = end + -end % _PAGE
    return _Linked(bytes(content), fixed, size, targets[names.index(entry)], inner, outer, environments)


def _fill(content: bytearray, align: int) -> None:
    content += bytes(-len(content) % align)
