"""Where functions stand in a program or library: symbol tables of ELF files (System V ABI, 64-bit)."""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

_HEAD = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_LOADED, _EXECUTABLE = 1, 1
_SYMBOL_TABLES = (2, 11)  # SHT_SYMTAB, SHT_DYNSYM
_FUNCTION = 2


def functions(path: str | os.PathLike[str], names: Iterable[str]) -> dict[str, int]:
    """Offsets in the file of those of these functions that it defines; empty for what is no ELF file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _functions(data, [name.encode() + b"\0" for name in names])
        except (ValueError, struct.error, IndexError):  # empty, cut, or not what it says it is
            return {}


def _functions(data: mmap.mmap, names: list[bytes]) -> dict[str, int]:
    head = _HEAD.unpack_from(data)
    if head[0][:6] != b"\x7fELF\x02\x01":
        return {}
    segments = [
        segment
        for segment in _table(data, _SEGMENT, head[5], head[10])
        if segment[0] == _LOADED and segment[1] & _EXECUTABLE
    ]
    sections = list(_table(data, _SECTION, head[6], head[12]))
    found: dict[str, int] = {}
    for section in sections:
        if section[1] not in _SYMBOL_TABLES:
            continue
        _, _, _, _, text_at, text_bytes, *_ = sections[section[6]]
        # Names share their ends: that of one symbol may lie within that of another.
        wanted = {
            place - text_at: name for name in names for place in _places(data, name, text_at, text_bytes)
        }
        if not wanted:
            continue
        table = memoryview(data)[section[4] : section[4] + section[5] // _SYMBOL.size * _SYMBOL.size]
        try:
            for name, info, _, defined, value, _ in _SYMBOL.iter_unpack(table):
                if name in wanted and defined and info & 15 == _FUNCTION:
                    place = _in_file(value, segments)
                    if place is not None:
                        found.setdefault(wanted[name][:-1].decode(), place)
        finally:
            table.release()
    return found


def _table(data: mmap.mmap, entry: struct.Struct, at: int, count: int) -> Iterator[tuple[int, ...]]:
    for index in range(count):
        yield entry.unpack_from(data, at + index * entry.size)


def _places(data: mmap.mmap, name: bytes, at: int, size: int) -> Iterator[int]:
    end = at + size
    while (at := data.find(name, at, end)) >= 0:
        yield at
        at += 1


def _in_file(address: int, segments: list[tuple[int, ...]]) -> int | None:
    for _, _, offset, start, _, in_file, *_ in segments:
        if start <= address < start + in_file:
            return address - start + offset
    return None
