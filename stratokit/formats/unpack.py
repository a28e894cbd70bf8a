"""Packed files: gzip, zstd, xz, bzip2 and lz4, unpacked piece by piece in bounded memory.

Every `read(size)` gives at most `size` bytes, b"" only at the end. Damage raises OSError or EOFError, when
all that could be unpacked before it was given.
"""

from __future__ import annotations

import bz2
import dataclasses
import lzma
import zlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

CHUNK = 64 << 10
# xz needs as much memory as its dictionary: 64 MiB with the highest preset. A file that asks for more than
# this was made to exhaust memory.
XZ_MEMORY_MAX = 256 << 20
GZIP = 31  # zlib's window bits that mean: expect gzip's header and checksum
PIECE = 16 << 10


class _State(Protocol):
    """What unpacks one member of a file: the standard library's decompressors of bzip2 and xz."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, most: int, /) -> bytes: ...


class _Inflate:
    """zlib's decompressor in the form of the others; before an error it gives every byte that precedes it."""

    def __init__(self) -> None:
        self._state = zlib.decompressobj(GZIP)
        self._error: zlib.error | None = None
        self._full = False

    @property
    def needs_input(self) -> bool:
        # As much as was allowed: there may be more of the same input.
        return not self._full and self._error is None

    @property
    def eof(self) -> bool:
        return self._state.eof

    @property
    def unused_data(self) -> bytes:
        return self._state.unused_data

    def decompress(self, data: bytes, most: int, /) -> bytes:
        if self._error is not None:
            raise self._error
        data = self._state.unconsumed_tail + data
        before = self._state.copy()
        try:
            out = self._state.decompress(data, most)
        except zlib.error as error:
            self._error, out = error, _before_error(before, data, most)
        self._full = len(out) >= most
        return out


def _before_error(state: Any, data: bytes, most: int) -> bytes:
    """What a zlib decompressor gives for `data` byte by byte until it fails."""
    parts, left = [], b""
    for i in range(len(data)):
        try:
            parts.append(state.decompress(left + data[i : i + 1], most))
        except zlib.error:
            break
        left = state.unconsumed_tail
    return b"".join(parts)


class _Members:
    """A file of one or several members one after the other, zeros between or behind them."""

    def __init__(self, raw: BinaryIO, start: Callable[[], _State]) -> None:
        self._raw, self._start = raw, start
        self._state = start()

    def read(self, size: int) -> bytes:
        while True:
            data = b""
            if self._state.eof:
                data = self._state.unused_data.lstrip(b"\0")
                while not data:
                    piece = self._raw.read(CHUNK)
                    if not piece:
                        return b""
                    data = piece.lstrip(b"\0")
                self._state = self._start()
            elif self._state.needs_input:
                data = self._raw.read(CHUNK)
                if not data:
                    raise EOFError("the compressed data end early")
            try:
                out = self._state.decompress(data, min(size, CHUNK))
            except (zlib.error, lzma.LZMAError) as error:
                raise OSError(str(error)) from error
            if out:
                return out

    def close(self) -> None:
        """Nothing to let go of but the file itself, which is its opener's."""


class _Frames:
    """pyarrow's decompressors, which give nothing of a read that meets damage: so in small pieces."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        import pyarrow as pa

        self._error = pa.ArrowException
        self._reader = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), name)

    def read(self, size: int) -> bytes:
        try:
            return bytes(self._reader.read(min(size, PIECE)))
        except self._error as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        self._reader.close()


def _xz() -> _State:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_MAX)


@dataclasses.dataclass(frozen=True, slots=True)
class Compression:
    """How a packed file begins, and what unpacks it."""

    name: str
    magic: bytes
    unpack: Callable[[BinaryIO], Any]


COMPRESSIONS = (
    Compression("gzip", b"\x1f\x8b", lambda raw: _Members(raw, _Inflate)),
    Compression("zstd", b"\x28\xb5\x2f\xfd", lambda raw: _Frames(raw, "zstd")),
    Compression("xz", b"\xfd7zXZ\0", lambda raw: _Members(raw, _xz)),
    Compression("bzip2", b"BZh", lambda raw: _Members(raw, bz2.BZ2Decompressor)),
    Compression("lz4", b"\x04\x22\x4d\x18", lambda raw: _Frames(raw, "lz4")),
)
