"""Several packet files read as one: their packets in order of time, as Wireshark's mergecap puts them.

Each file keeps its own order. Of the next packets of all files the earliest comes first, of equal times that
of the file that was named first. Files are opened when their first packet is due: of rotated files one or two
are open at a time, of files that were recorded at the same time all, each with a window of its own. Of these,
packets of one window together are taken at a time.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.formats.frames import FrameBatch
from stratokit.formats.source import WINDOW_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    import pyarrow as pa

    from stratokit.formats.frames import Interface

OF_A_FRAME = tuple(
    field.name
    for field in dataclasses.fields(FrameBatch)
    if field.name not in ("data", "processes", "stored")
)


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A file to be merged: `begins_ns` is the time of its first packet, `done` is told its reader at
    its end and how many packets it gave."""

    begins_ns: int
    open: Callable[[], Any]
    done: Callable[[Any, int], None]


class MergedReader:
    """Reads packet files as if they were one (see `pcap.PcapReader`)."""

    def __init__(self, parts: Sequence[Part]) -> None:
        order = sorted(range(len(parts)), key=lambda number: (parts[number].begins_ns, number), reverse=True)
        self._due = [(number, parts[number]) for number in order]
        self._open: list[_File] = []
        self._read_bytes = 0
        self.interfaces: list[Interface] = []
        self.processes: tuple[tuple[int, str], ...] = ()
        # From a file and an interface in it to one of all.
        self._interfaces: dict[tuple[int, int], int] = {}

    def batches(self) -> Iterator[FrameBatch]:
        """All frames; a batch is one of a file wherever no other file has packets between."""
        while self._due or self._open:
            if not self._open:
                self._start()
                continue
            for file in self._open:
                file.look_ahead(WINDOW_BYTES // len(self._open))
            ends = min(self._open, key=lambda file: (file.last, file.number))
            if self._due and self._due[-1][1].begins_ns <= ends.last:
                self._start()
                continue
            taken = [(file, count) for file in self._open if (count := file.before(ends))]
            yield self._merged(taken)
            for file, count in taken:
                file.at += count
            if ends.at == len(ends.keys):
                self._next(ends)

    def _start(self) -> None:
        number, part = self._due.pop()
        file = _File(number, part)
        self._open.append(file)
        self._next(file)

    def _next(self, file: _File) -> None:
        """Go on to a file's next batch; one at its end is closed."""
        if not file.advance():
            self._open.remove(file)
            self._read_bytes += file.reader.position()
            file.close()

    def _merged(self, taken: list[tuple[_File, int]]) -> FrameBatch:
        processes: list[tuple[int, str]] = []
        parts = []
        for file, count in taken:
            part = file.slice(count)
            found, codes = np.unique(part.interfaces, return_inverse=True)
            numbers = [self._interface(file, int(number)) for number in found]
            first = len(processes)
            processes += file.reader.processes
            span = np.full((count, 2), (first, len(processes)), np.int64)
            interfaces = np.array(numbers, np.uint32)[codes]
            parts.append(dataclasses.replace(part, interfaces=interfaces, processes=span))
        self.processes = tuple(processes)
        if len(parts) == 1:
            return parts[0]
        keys = np.concatenate([file.keys[file.at : file.at + count] for file, count in taken])
        owners = np.repeat([file.number for file, _ in taken], [count for _, count in taken])
        return _interleaved(parts, np.lexsort((owners, keys)))

    def _interface(self, file: _File, number: int) -> int:
        key = (file.number, number)
        if key not in self._interfaces:
            self._interfaces[key] = len(self.interfaces)
            self.interfaces.append(file.reader.interfaces[number])
        return self._interfaces[key]

    def position(self) -> int:
        """How far the files were read, in bytes on disk."""
        return self._read_bytes + sum(int(file.reader.position()) for file in self._open)

    def close(self) -> None:
        """Let go of the files."""
        for file in self._open:
            file.reader.close()
        self._open = []
        self._due = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _File:
    """A file that is open, with the batch that is being taken from."""

    def __init__(self, number: int, part: Part) -> None:
        self.number = number
        self.reader = part.open()
        self._done = part.done
        self._batches = self.reader.batches()
        self.at = 0
        # What a packet is ordered by: the latest time in its file up to it.
        self.keys = np.empty(0, np.int64)
        # The key of the last packet that may be taken now.
        self.last = 0
        self._ahead = self._given = 0
        self._batch: FrameBatch

    def look_ahead(self, size_bytes: int) -> None:
        """Let the next packets be taken, as many as stand in so many bytes, and at least one."""
        offsets = self._batch.offsets
        end = int(np.searchsorted(offsets, offsets[self.at] + size_bytes)) if len(offsets) else 0
        self._ahead = max(end, self.at + 1)
        self.last = int(self.keys[self._ahead - 1])

    def advance(self) -> bool:
        """Read the next batch; false at the end of the file."""
        batch = next(self._batches, None)
        if batch is None:
            return False
        keys = np.maximum.accumulate(batch.ts_ns)
        if len(self.keys):
            np.maximum(keys, self.keys[-1], out=keys)
        self._batch, self.keys, self.at = batch, keys, 0
        self._given += len(keys)
        return True

    def before(self, ends: _File) -> int:
        """How many packets come before what follows those that are taken of the file `ends`."""
        if self is ends:
            return self._ahead - self.at
        side: Any = "right" if self.number < ends.number else "left"
        return int(np.searchsorted(self.keys, ends.last, side)) - self.at

    def slice(self, count: int) -> FrameBatch:
        """The next packets."""
        if count == len(self._batch.offsets):
            return self._batch
        return _rows(self._batch, slice(self.at, self.at + count))

    def close(self) -> None:
        self._done(self.reader, self._given)
        self.reader.close()


def _rows(batch: FrameBatch, rows: slice) -> FrameBatch:
    stored = None if batch.stored is None else batch.stored.slice(rows.start, rows.stop - rows.start)
    return dataclasses.replace(
        batch, stored=stored, **{name: getattr(batch, name)[rows] for name in OF_A_FRAME}
    )


def _interleaved(parts: list[FrameBatch], order: np.ndarray) -> FrameBatch:
    """Frames of all parts in that order; their bytes are copied to lie in one buffer."""
    moved, at = [], 0
    for part in parts:
        ends = part.offsets + part.cap_lens
        first, last = int(part.offsets[0]), int(max(ends.max(), part.options_end.max()))
        shift = at - first
        optional = part.options_end > 0
        moved.append(
            dataclasses.replace(
                part,
                data=part.data[first:last],
                offsets=part.offsets + shift,
                options_at=np.where(optional, part.options_at + shift, 0),
                options_end=np.where(optional, part.options_end + shift, 0),
            )
        )
        at += last - first
    data = np.concatenate([part.data for part in moved])
    data.flags.writeable = False
    names = (*OF_A_FRAME, "processes")
    return FrameBatch(
        data,
        stored=_stored(parts, order),
        **{name: np.concatenate([getattr(part, name) for part in moved])[order] for name in names},
    )


def _stored(parts: list[FrameBatch], order: np.ndarray) -> pa.Table | None:
    """Columns of those that have any; null for the frames of others."""
    known = [part.stored for part in parts]
    if all(table is None for table in known):
        return None
    import pyarrow as pa

    schema = next(table.schema for table in known if table is not None)
    tables = [
        pa.table([pa.nulls(len(part.offsets), field.type) for field in schema], schema=schema)
        if part.stored is None
        else part.stored
        for part in parts
    ]
    return pa.concat_tables(tables).unify_dictionaries().take(pa.array(order))
