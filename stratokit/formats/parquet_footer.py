"""Moves row groups within a Parquet file, so that some that were encoded apart become one file.

The footer of a Parquet file is a FileMetaData (parquet.thrift) in Thrift's compact protocol
(thrift-compact-protocol.md): a field is a byte with the step of its id and its type, then its value; whole
numbers are zigzag varints. Of all fields only offsets depend on where in the file a row group stands.
"""

from __future__ import annotations

from typing import TypeAlias

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
# What is a place in the file, by the ids of the fields that lead there; lists lead on by themselves.
_Places: TypeAlias = "dict[int, _Places | None]"
_COLUMN: _Places = {9: None, 10: None, 11: None, 14: None}  # data, index and dictionary page, bloom filter
_CHUNK: _Places = {2: None, 3: _COLUMN, 4: None, 6: None}  # the chunk, its offset index, its column index
_GROUP: _Places = {1: _CHUNK, 5: None}
_FILE: _Places = {4: _GROUP}


class _Walk:
    """Goes through a footer that our own writer has just made, and writes it anew."""

    def __init__(self, data: bytes, shift: int) -> None:
        self.data, self.shift = data, shift
        self.at = 0
        self.out = bytearray()

    def number(self) -> int:
        """An unsigned varint."""
        value = bits = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << bits
            bits += 7
            if byte < 128:
                return value

    def _put(self, value: int) -> None:
        while value >= 128:
            self.out.append(value & 127 | 128)
            value >>= 7
        self.out.append(value)

    def _copied(self, start: int) -> None:
        self.out += self.data[start : self.at]

    def struct(self, places: _Places) -> None:
        """A struct, whose places are shifted."""
        field = 0
        while True:
            start = self.at
            head = self.data[self.at]
            self.at += 1
            if head == 0:
                self.out.append(0)
                return
            step, kind = head >> 4, head & 15
            field = field + step if step else self._long_id()
            self._copied(start)
            inner = places.get(field, {})
            if inner is None:
                value = self.number()
                place = (value >> 1) ^ -(value & 1)
                # Zero says that there is no such thing.
                place += self.shift if place > 0 else 0
                self._put(place << 1 if place >= 0 else (-place << 1) - 1)
            elif inner:
                self._inside(kind, inner)
            else:
                start = self.at
                self._pass(kind)
                self._copied(start)

    def _long_id(self) -> int:
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def _inside(self, kind: int, places: _Places) -> None:
        if kind == _STRUCT:
            self.struct(places)
            return
        start = self.at
        count = self._list()[0]
        self._copied(start)
        for _ in range(count):
            self.struct(places)

    def _list(self) -> tuple[int, int]:
        head = self.data[self.at]
        self.at += 1
        return (self.number() if head >> 4 == 15 else head >> 4), head & 15

    def _pass(self, kind: int) -> None:
        """Go over a value."""
        if kind in (_I16, _I32, _I64):
            self.number()
        elif kind == _BINARY:
            size = self.number()
            self.at += size
        elif kind in (_LIST, _SET):
            count, inner = self._list()
            for _ in range(count):
                if inner in (_TRUE, _FALSE):
                    self.at += 1
                else:
                    self._pass(inner)
        elif kind == _STRUCT:
            while (head := self.data[self.at]) != 0:
                self.at += 1
                if head >> 4 == 0:
                    self.number()
                self._pass(head & 15)
            self.at += 1
        elif kind in (_BYTE, _DOUBLE):
            self.at += 1 if kind == _BYTE else 8
        # true and false are in the type


def shifted(footer: bytes, shift: int) -> bytes:
    """A footer whose row groups stand `shift` bytes further behind."""
    walk = _Walk(footer, shift)
    walk.struct(_FILE)
    return bytes(walk.out)
