"""Reads scap files: windows of events, and the lists that stand before them, in the order of the file."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stratokit.errors import FormatError
from stratokit.formats.frames import Damage
from stratokit.formats.scap import blocks, metadata, walk
from stratokit.formats.scap.params import tables
from stratokit.formats.source import WINDOW_BYTES, SourceReader

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

BATCH_EVENTS = 1 << 17


@dataclasses.dataclass(frozen=True, slots=True)
class Events:
    """Events of one window: rows of `walk.EVENT` whose positions count in `data`."""

    data: np.ndarray
    rows: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """A list before the events; `block` are its bytes. A new section has the name "section" and no value."""

    name: str
    value: Any
    block: bytes


class Taker(Protocol):
    """Takes the event blocks of a window: what a reader goes through a file with."""

    window_bytes: int

    def take(self, window: np.ndarray, at: int, passed: np.ndarray) -> tuple[int, int]:
        """Go on from block `at`; returns where the next one begins and why it ended there, as `walk.walk`."""
        ...

    def taken(self) -> Any | None:
        """What was made of blocks since the last time, if anything is due."""
        ...


class _Walked:
    """Makes `Events`."""

    window_bytes = WINDOW_BYTES

    def __init__(self) -> None:
        self._tables = tables()
        self._window = np.zeros(0, np.uint8)
        self._rows, self._count = np.empty(BATCH_EVENTS, walk.EVENT), 0

    def take(self, window: np.ndarray, at: int, passed: np.ndarray) -> tuple[int, int]:
        self._window = window
        self._count, at, why = walk.walk(window, at, self._tables, self._rows, self._count, passed)
        return at, why

    def taken(self) -> Events | None:
        if not self._count:
            return None
        found = Events(self._window, self._rows[: self._count])
        self._rows, self._count = np.empty(BATCH_EVENTS, walk.EVENT), 0
        return found


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

    def items(self, taker: Taker | None = None) -> Iterator[Any]:
        """Lists and events, or what `taker` makes of them, in the order of the file."""
        taker = taker or _Walked()
        start, at, size = 0, 0, taker.window_bytes
        window = self._source.window(start, size)
        while True:
            at, state = taker.take(window, at, self._packets)
            problem = "a block contradicts itself"
            if state == walk.COLD:
                found, end, problem = self._cold(window, at)
                if end:
                    # Events belong to what was said before them.
                    if found is not None:
                        if (made := taker.taken()) is not None:
                            yield made
                        yield found
                    at = end
                    continue
                state = walk.BAD if problem else walk.MORE
            if (made := taker.taken()) is not None:
                yield made
            if state == walk.BAD:
                self.damage = Damage("file_damaged", start + at, problem)
                return
            if state == walk.MORE:
                if at == 0 and len(window) < size:
                    if len(window) or self._source.broken:
                        reason = self._source.broken or "the file ends inside a block"
                        self.damage = Damage("file_cut", start, reason)
                    return
                # A block that does not fit the window gets a larger one.
                size = taker.window_bytes if at else 2 * size
                start, at = start + at, 0
                window = self._source.window(start, size)

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
