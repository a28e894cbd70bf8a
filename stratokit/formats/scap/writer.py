"""Writes scap files block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratokit.formats.output import FileWriter
from stratokit.formats.packet_rows import BUFFER_BYTES, Run, pieces
from stratokit.formats.scap import fill, lists
from stratokit.formats.scap.params import tables

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator


class Encoder:
    """Turns events into blocks."""

    def __init__(self) -> None:
        self._tables = tables()
        self._buffer = np.empty(BUFFER_BYTES, np.uint8)

    def encoded(self, events: np.ndarray, rows: fill.Rows) -> Iterator[Run]:
        """Events (`fill.EVENT_OUT`) in their order, with what `rows` have for their parameters, in pieces
        that are valid until the next one is asked for.
        """
        ends = np.empty(events.size + 1, np.int64)
        fill.sizes(events, rows, self._tables, ends)
        for first, last in pieces(ends):
            size = int(ends[last] - ends[first])
            if size > len(self._buffer):
                self._buffer = np.empty(size, np.uint8)
            fill.fill(self._buffer, ends, first, last, events, rows, self._tables)
            times = np.ascontiguousarray(events["ts"][first:last])
            yield Run(self._buffer[:size], ends[first : last + 1] - ends[first], times)


class ScapWriter(FileWriter):
    """A scap file: lists first, then events. Readers take no list behind the first event."""

    def __init__(self, path: str | os.PathLike[str], *, headed: bool = True) -> None:
        super().__init__(path)
        self._encoder = Encoder()
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
        for piece in self._encoder.encoded(events, rows):
            self.raw(piece.data, 0)
        self.events += events.size

    def _finish(self) -> None:
        pass
