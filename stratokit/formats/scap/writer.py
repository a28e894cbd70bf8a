"""Writes scap files block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratokit.formats.output import FileWriter
from stratokit.formats.packet_rows import BUFFER_BYTES, pieces
from stratokit.formats.scap import fill, lists
from stratokit.formats.scap.params import tables

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable


class ScapWriter(FileWriter):
    """A scap file: lists first, then events. Readers take no list behind the first event."""

    def __init__(self, path: str | os.PathLike[str], *, headed: bool = True) -> None:
        super().__init__(path)
        self._tables = tables()
        self._buffer = np.empty(BUFFER_BYTES, np.uint8)
        self.events = 0
        if headed:
            self.blocks([lists.section()])

    def blocks(self, found: Iterable[bytes]) -> None:
        """Add blocks that are ready."""
        with self._output.errors():
            for block in found:
                self._output.file.write(block)

    def raw(self, data: np.ndarray, count: int) -> None:
        """Add `count` event blocks that stand in `data` one behind the other."""
        with self._output.errors():
            self._output.file.write(np.ascontiguousarray(data).data)
        self.events += count

    def write(self, events: np.ndarray, rows: fill.Rows) -> None:
        """Add events (`fill.EVENT_OUT`) in their order, with what `rows` have for their parameters."""
        for block in self.encoded(events, rows):
            with self._output.errors():
                self._output.file.write(block.data)
        self.events += events.size

    def encoded(self, events: np.ndarray, rows: fill.Rows) -> Iterable[np.ndarray]:
        """The events as they stand in a file, in pieces that are valid until the next one is asked for."""
        ends = np.empty(events.size + 1, np.int64)
        fill.sizes(events, rows, self._tables, ends)
        for first, last in pieces(ends):
            size = int(ends[last] - ends[first])
            if size > len(self._buffer):
                self._buffer = np.empty(size, np.uint8)
            fill.fill(self._buffer, ends, first, last, events, rows, self._tables)
            yield self._buffer[:size]

    def _finish(self) -> None:
        pass
