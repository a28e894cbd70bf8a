"""Reads scap files: windows of events, and the lists that stand before them, in the order of the file."""

from __future__ import annotations

import collections
import dataclasses
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.errors import FormatError
from stratokit.formats.frames import Damage
from stratokit.formats.scap import blocks, metadata, walk
from stratokit.formats.scap.params import tables
from stratokit.formats.source import WINDOW_BYTES, Source, SourceReader

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

BATCH_EVENTS = 1 << 17
# Who reads ahead keeps so many windows: one is made, one waits, one is worked on.
_KEPT = 3
# Before each kept window: room for what calls that have not returned said before.
ROOM_BYTES = 1 << 18


@dataclasses.dataclass(frozen=True, slots=True)
class Events:
    """Events of one window: rows of `walk.EVENT` whose positions count in `data`, where the window begins at
    `first`; what is before that is for others to use. `window` tells windows apart.
    """

    data: np.ndarray
    rows: np.ndarray
    first: int = 0
    window: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """A list before the events; `block` are its bytes. A new section has the name "section" and no value."""

    name: str
    value: Any
    block: bytes


class _Windows:
    """The file's own bytes, and new memory for the rows of each batch."""

    def __init__(self, source: Source, size: int) -> None:
        self._source, self.size = source, size
        self.number = 0

    def next(self, start: int, size: int) -> tuple[np.ndarray, int]:
        """Bytes of the file, and where in them those from `start` on begin, `size` of them unless it ends."""
        self.number += 1
        return self._source.window(start, size), 0

    def rows(self) -> np.ndarray:
        """Room for a batch."""
        return np.empty(BATCH_EVENTS, walk.EVENT)

    def given(self) -> None:
        """Somebody works on this window now, and on these rows."""


class _KeptWindows(_Windows):
    """Memory that is used again, which is had faster than new memory."""

    def __init__(self, source: Source, size: int) -> None:
        super().__init__(source, size)
        self._buffers = collections.deque([np.empty(0, np.uint8)] * _KEPT)
        self._rooms = collections.deque(np.empty(BATCH_EVENTS, walk.EVENT) for _ in range(_KEPT))
        self._in_use = False

    def next(self, start: int, size: int) -> tuple[np.ndarray, int]:
        if self._in_use:
            self._buffers.rotate(1)
        self._in_use = False
        self.number += 1
        if self._buffers[0].size < ROOM_BYTES + size:
            self._buffers[0] = np.empty(ROOM_BYTES + size, np.uint8)
        window = self._buffers[0][ROOM_BYTES : ROOM_BYTES + size]
        return self._buffers[0][: ROOM_BYTES + self._source.fill(start, window)], ROOM_BYTES

    def rows(self) -> np.ndarray:
        self._rooms.rotate(1)
        return self._rooms[0]

    def given(self) -> None:
        self._in_use = True


class ScapReader(SourceReader):
    """A scap file, packed or not. `damage` says where reading had to end, when `items` is through.

    Raises:
        FormatError: the file cannot be opened, or is none of a little-endian machine.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.damage: Damage | None = None
        self.bad_lists = 0
        self._packets = np.zeros(1, np.int64)
        self._unknown = 0
        head = self._source.window(0, 28).tobytes()
        if len(head) < 28 or _section_problem(head[8:]):
            self._source.close()
            raise FormatError(f"{self._source.path} is no scap file of a little-endian machine")

    def items(self, kept_bytes: int = 0) -> Iterator[Events | Listed]:
        """Lists and events in the order of the file. With `kept_bytes` windows have that size, and what is
        given is valid until two more were asked for.
        """
        windows = (
            _KeptWindows(self._source, kept_bytes) if kept_bytes else _Windows(self._source, WINDOW_BYTES)
        )
        start, size = 0, windows.size
        data, first = windows.next(start, size)
        at, rows, count = first, windows.rows(), 0
        while True:
            count, at, state = walk.walk(data, at, tables(), rows, count, self._packets)
            problem, found, end = "a block contradicts itself", None, 0
            if state == walk.COLD:
                found, end, problem = self._cold(data, at)
                state = walk.COLD if end else walk.BAD if problem else walk.MORE
            # Events belong to what was said before them.
            if count and (state != walk.COLD or found is not None):
                windows.given()
                yield Events(data, rows[:count], first, windows.number)
                rows, count = windows.rows(), 0
            if state == walk.COLD:
                at = end
                if found is not None:
                    yield found
            elif state == walk.BAD:
                self.damage = Damage("file_damaged", start + at - first, problem)
                return
            elif state == walk.MORE:
                if at == first and len(data) - first < size:
                    if len(data) > first or self._source.broken:
                        reason = self._source.broken or "the file ends inside a block"
                        self.damage = Damage("file_cut", start, reason)
                    return
                # A block that does not fit the window gets a larger one.
                size = windows.size if at > first else 2 * size
                start += at - first
                data, first = windows.next(start, size)
                at = first

    def _cold(self, window: np.ndarray, at: int) -> tuple[Listed | None, int, str]:
        """A block that holds no event: what it says, its end (0: beyond the window), or a problem."""
        kind, length = struct.unpack("<II", window[at : at + 8].tobytes())
        if length < 12 or length > blocks.BLOCK_MAX:
            return None, 0, "a block claims an impossible length"
        if at + length > len(window):
            return None, 0, ""
        block = window[at : at + length].tobytes()
        if block[-4:] != block[4:8]:
            return None, 0, "the two lengths of a block differ"
        body = block[8:-4]
        if kind == blocks.SECTION:
            problem = _section_problem(body)
            return (None, 0, problem) if problem else (Listed("section", None, block), at + length, "")
        try:
            listed = metadata.read(kind, body)
        except metadata.CutError:
            self.bad_lists += 1
            return None, at + length, ""
        if listed is None:
            self._unknown += 1
            return None, at + length, ""
        return Listed(listed[0], listed[1], block), at + length, ""

    @property
    def skipped_blocks(self) -> int:
        """Blocks of no kind of sysdig's so far, packets among them."""
        return self._unknown + int(self._packets[0])


def _section_problem(body: bytes) -> str:
    if len(body) < 16:
        return "a section header is too short"
    magic, major = struct.unpack("<IH", body[:6])
    if magic != blocks.ORDER_MAGIC:
        return "a section is not in little-endian order"
    return "" if major == blocks.MAJOR else "a section has an unknown version"
