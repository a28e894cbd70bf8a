"""ELF objects of x86-64 as numba compiles them, laid out as they will stand in memory; see kernel_code.

ELF64 is described in the gABI, chapters 4 and 5, relocations in 4.4 of the x86-64 psABI.
"""

from __future__ import annotations

import functools
import mmap
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.kernel_code import WORD, Linked

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = struct.Struct("<6s12xH20xQ10x3H")  # magic, machine, then of sections: offset, size, number, names
_ELF64_LITTLE, _X86_64 = b"\x7fELF\x02\x01", 62
_SECTION = np.dtype(
    [("name", "<u4"), ("type", "<u4"), ("flags", "<u8"), ("address", "<u8"), ("offset", "<u8"),
     ("size", "<u8"), ("link", "<u4"), ("info", "<u4"), ("align", "<u8"), ("entry", "<u8")]
)  # fmt: skip
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("at", "<u8"), ("size", "<u8")]
)
_RELOCATION = np.dtype([("at", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
_PROGBITS, _SYMTAB, _RELA, _NOBITS = 1, 2, 4, 8
_WRITE, _ALLOC = 1, 2
_UNDEFINED, _COMMON = 0, 0xFFF2
_ABSOLUTE_64, _RELATIVE_64 = 1, 24
_ENVIRONMENT = "_ZN08NumbaEnv"
_UNWINDING = ".eh_frame"  # numba's code throws nothing


class _UnknownError(Exception):
    """Something that is not dealt with here."""


def linked(elf: bytes, entry: str) -> Linked | None:
    """An object laid out, to be entered at the symbol `entry`; None if it has what is not dealt with here."""
    try:
        return _Object(elf).linked(entry)
    except (_UnknownError, ValueError, LookupError, struct.error):
        return None


class _Object:
    def __init__(self, elf: bytes) -> None:
        magic, machine, at, size, number, names = _HEADER.unpack_from(elf)
        if (magic, machine, size) != (_ELF64_LITTLE, _X86_64, _SECTION.itemsize):
            raise _UnknownError
        self._elf = elf
        self._sections = np.frombuffer(elf, _SECTION, number, at)
        self._section_names = self._sections[names]
        (table,) = (section for section in self._sections if section["type"] == _SYMTAB)
        self._symbols = self._entries(table, _SYMBOL)
        self._names = [self._text(self._sections[table["link"]], symbol["name"]) for symbol in self._symbols]
        self._content = bytearray()
        self._places: dict[int, int] = {}  # of sections
        self._fixed = 0

    def linked(self, entry: str) -> Linked:
        # Code and constants first; what is written to begins a page.
        for writable in (0, _WRITE):
            self._lay_out(writable)
        targets, size = self._targets
        inner: list[tuple[int, int]] = []
        outer: list[tuple[int, str, int]] = []
        for at, kind, symbol, added in self._relocations():
            if symbol in targets and kind == _ABSOLUTE_64:
                inner.append((at, targets[symbol] + added))
            elif symbol in targets and kind == _RELATIVE_64:
                WORD.pack_into(self._content, at, (targets[symbol] + added - at) % (1 << 64))
            elif self._symbols[symbol]["section"] == _UNDEFINED and kind == _ABSOLUTE_64:
                outer.append((at, self._names[symbol], added))
            else:
                raise _UnknownError
        names = {self._names[index]: at for index, at in targets.items()}
        environments = {name: at for name, at in names.items() if name.startswith(_ENVIRONMENT)}
        return Linked(bytes(self._content), self._fixed, size, names[entry], inner, outer, environments)

    def _lay_out(self, writable: int) -> None:
        for index, section in enumerate(self._sections):
            loaded = section["flags"] & _ALLOC and section["type"] in (_PROGBITS, _NOBITS)
            if not loaded or section["flags"] & _WRITE != writable:
                continue
            if self._text(self._section_names, section["name"]) == _UNWINDING:
                continue
            self._fill(int(section["align"]))
            self._places[index] = len(self._content)
            begin, length = int(section["offset"]), int(section["size"])
            held = section["type"] == _PROGBITS
            self._content += self._elf[begin : begin + length] if held else bytes(length)
        if not writable:
            self._fill(mmap.PAGESIZE)
            self._fixed = len(self._content)

    @functools.cached_property
    def _targets(self) -> tuple[dict[int, int], int]:
        """Where symbols stand, and where all ends, with those that have no section."""
        targets: dict[int, int] = {}
        end = len(self._content)
        for index, symbol in enumerate(self._symbols):
            section, at = int(symbol["section"]), int(symbol["at"])
            if section == _COMMON:  # at: its alignment
                end += -end % max(at, 1)
                targets[index] = end
                end += int(symbol["size"])
            elif section in self._places:
                targets[index] = self._places[section] + at
        return targets, end + -end % mmap.PAGESIZE

    def _relocations(self) -> Iterator[tuple[int, int, int, int]]:
        """Place, type, symbol, what is added."""
        for section in self._sections:
            target = int(section["info"])
            if section["type"] == _RELA and target in self._places:
                for at, kind, symbol, added in self._entries(section, _RELOCATION).tolist():
                    yield self._places[target] + at, kind, symbol, added

    def _entries(self, section: Any, dtype: np.dtype[Any]) -> Any:
        return np.frombuffer(self._elf, dtype, int(section["size"]) // dtype.itemsize, int(section["offset"]))

    def _text(self, strings: Any, at: Any) -> str:
        begin = int(strings["offset"]) + int(at)
        return self._elf[begin : self._elf.index(b"\0", begin)].decode()

    def _fill(self, align: int) -> None:
        self._content += bytes(-len(self._content) % max(align, 1))
