"""Bytes of a file in windows, whether it is compressed or not, without ever holding more than a window.

A file as it is gets mapped; a compressed one is unpacked as far as it is asked for. Both look alike: `window`
gives bytes from a position on, and positions only ever grow.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import mmap
import os
import stat
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.errors import FormatError
from stratokit.formats.unpack import COMPRESSIONS

if TYPE_CHECKING:
    from typing import BinaryIO, Self

WINDOW_BYTES = 32 << 20
# So many windows are looked at at once (one a processor, and those that wait); older ones need no memory.
_WINDOWS_IN_USE = len(os.sched_getaffinity(0)) + 2
_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_listed = threading.Lock()  # windows are opened in one thread while another one gives their memory back
# Packets differ at least in their times: nothing that was captured is packed this much.
BOMB_RATIO = 1000
BOMB_BYTES = 1 << 30
_EMPTY = np.frombuffer(b"", np.uint8)


def forget_pages() -> None:
    """Give back the memory of all mapped windows: who looks at one again gets it from the page cache."""
    with _listed:
        mappings = list(_mappings)
    for mapping in mappings:
        _forget(mapping)


def _forget(mapping: mmap.mmap) -> None:
    with contextlib.suppress(OSError, ValueError):
        mapping.madvise(mmap.MADV_DONTNEED)


class Source(abc.ABC):
    """Where a reader gets its bytes. `size` is None when only the end will tell it."""

    def __init__(self, path: str, size: int | None) -> None:
        self.path = path
        self.size = size
        # Why the bytes ended early; empty while they are whole.
        self.broken = ""

    @abc.abstractmethod
    def window(self, start: int, size: int) -> np.ndarray:
        """Bytes from `start` on, read-only, fewer than `size` only at the end; `start` never goes back."""

    def fill(self, start: int, out: np.ndarray) -> int:
        """As `window`, into `out`; returns how many bytes."""
        window = self.window(start, len(out))
        out[: len(window)] = window
        return len(window)

    @abc.abstractmethod
    def position(self) -> int:
        """How far the file itself was read, in bytes as they stand on disk: for progress."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the file; windows that are still in use stay valid."""


class MappedSource(Source):
    """A file as it is, mapped window by window."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._position = 0
        self._in_use: collections.deque[weakref.ref[mmap.mmap]] = collections.deque()
        super().__init__(path, self._size)

    def window(self, start: int, size: int) -> np.ndarray:
        """See `Source`."""
        size = min(size, self._size - start)
        if size <= 0:
            return _EMPTY
        self._position = start + size
        # Mappings begin at page boundaries. The array keeps its mapping alive.
        skip = start % mmap.ALLOCATIONGRANULARITY
        mapping = mmap.mmap(self._file.fileno(), size + skip, offset=start - skip, access=mmap.ACCESS_READ)
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_SEQUENTIAL)
        with _listed:
            _mappings.add(mapping)
        self._in_use.append(weakref.ref(mapping))
        if len(self._in_use) > _WINDOWS_IN_USE and (old := self._in_use.popleft()()) is not None:
            _forget(old)
        return np.frombuffer(mapping, np.uint8)[skip:]

    def fill(self, start: int, out: np.ndarray) -> int:
        """See `Source`."""
        got = 0
        while got < len(out) and (more := os.preadv(self._file.fileno(), [out[got:].data], start + got)):
            got += more
        self._position = start + got
        return got

    def position(self) -> int:
        """See `Source`."""
        return self._position

    def close(self) -> None:
        """See `Source`."""
        self._file.close()


class StreamSource(Source):
    """A stream that can only go forward: a decompressor, or a pipe."""

    def __init__(self, path: str, stream: Any, raw: BinaryIO | None = None) -> None:
        super().__init__(path, None)
        self._stream = stream
        self._raw = raw
        self._held = _EMPTY
        self._start = 0
        self._ended = False
        self._unpacked = 0

    def window(self, start: int, size: int) -> np.ndarray:
        """See `Source`."""
        while self._start + len(self._held) < start and not self._ended:
            self._start += len(self._held)
            self._held = self._read(min(start - self._start, WINDOW_BYTES))
        self._held = self._held[start - self._start :]
        self._start = start
        if len(self._held) < size and not self._ended:
            self._held = np.concatenate([self._held, self._read(size - len(self._held))])
            self._held.flags.writeable = False
        return self._held[:size]

    def _read(self, size: int) -> np.ndarray:
        """Up to `size` bytes, fewer only at the end of the stream."""
        parts = []
        while size > 0:
            try:
                part = self._stream.read(min(size, 1 << 20))
            except (OSError, EOFError) as error:
                self.broken = str(error) or type(error).__name__
                part = b""
            self._unpacked += len(part)
            if self._is_bomb():
                self.broken = f"it unpacks to more than {BOMB_RATIO} times its size"
                part = b""
            if not part:
                self._ended = True
                break
            parts.append(part)
            size -= len(part)
        return np.frombuffer(b"".join(parts), np.uint8)

    def _is_bomb(self) -> bool:
        """Whether this is more than a capture can be: made to keep its reader busy."""
        if self._raw is None or self._unpacked < BOMB_BYTES:
            return False
        return self._unpacked > BOMB_RATIO * self._raw.tell()

    def position(self) -> int:
        """See `Source`."""
        if self._raw is None:
            return self._start + len(self._held)
        return self._raw.tell()

    def close(self) -> None:
        """See `Source`."""
        self._stream.close()
        if self._raw is not None:
            self._raw.close()


def open_source(path: str | os.PathLike[str]) -> Source:
    """The bytes of the file at `path`, unpacked when it is compressed."""
    name = os.fspath(path)
    try:
        file = open(name, "rb")  # noqa: SIM115
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return StreamSource(name, file)
        head = file.read(8)
        file.seek(0)
    except OSError as error:
        raise FormatError(f"cannot read {name}: {os.strerror(error.errno or 0)}") from error
    for compression in COMPRESSIONS:
        if head.startswith(compression.magic):
            return StreamSource(name, compression.unpack(file), file)
    return MappedSource(name, file)


class SourceReader:
    """What readers of files share: the bytes, how far they were read, and that they are let go of."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._source = open_source(path)

    def position(self) -> int:
        """How far the file itself was read, in bytes on disk: for progress."""
        return self._source.position()

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_head(path: str | os.PathLike[str], size: int) -> bytes:
    """The first bytes of a file, unpacked.

    Raises:
        FormatError: the file cannot be read, or nothing of it can be unpacked.
    """
    source = open_source(path)
    try:
        head = source.window(0, size).tobytes()
    finally:
        source.close()
    if source.broken and not head:
        raise FormatError(f"{os.fspath(path)} cannot be unpacked: {source.broken}")
    return head
