"""A capture.parquet that was made of a packet file, read as that file: frames in their order.

So several of them can be read as one, with conversations and fragments that go on from file to file. What the
capture knows beside the bytes of its frames comes along as `FrameBatch.stored`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.formats.frames import FrameBatch, Interface
from stratokit.formats.parquet import ROW_BYTES, CaptureReader
from stratokit.formats.source import WINDOW_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Self

    import pyarrow as pa
    from numpy.typing import NDArray

    from stratokit.formats.frames import Damage

_OF_RECORD = ("frame", "ts", "orig_len", "cap_len", "link_type", "ifindex", "interface", "packet_block")


class CaptureFrames:
    """Reads packets as the readers of packet files do (see `pcap.PcapReader`).

    Args:
        path: the capture.
        stored: columns that shall come along.
        with_bytes: False leaves frames empty; their lengths are told all the same.
    """

    def __init__(self, path: str | os.PathLike[str], stored: Collection[str], with_bytes: bool) -> None:
        self._reader = CaptureReader(path)
        self._stored, self._with_bytes = sorted(stored), with_bytes
        self.interfaces: list[Interface] = []
        self.processes: tuple[tuple[int, str], ...] = ()
        self.damage: Damage | None = None
        self._numbers: dict[tuple[str, int], int] = {}
        self._size_bytes, self._given = os.stat(path).st_size, 0

    def batches(self) -> Iterator[FrameBatch]:
        """All frames, of a row group as many at once as stand in a window of a packet file."""
        names = [*_OF_RECORD, *self._stored, *(["data"] if self._with_bytes else [])]
        for table in self._reader.iter_packets(names):
            ends = np.cumsum(_column(table, "cap_len") + ROW_BYTES)
            at = 0
            while at < table.num_rows:
                size = WINDOW_BYTES + (ends[at - 1] if at else 0)
                to = max(int(np.searchsorted(ends, size, "right")), at + 1)
                self._given += to - at
                yield self._batch(table.slice(at, to - at))
                at = to

    def _batch(self, table: pa.Table) -> FrameBatch:
        count = table.num_rows
        data, offsets, cap_lens = np.zeros(0, np.uint8), np.zeros(count, np.int64), _column(table, "cap_len")
        if self._with_bytes:
            data, offsets, cap_lens = _bytes(table["data"])
        none = np.zeros(count, np.int64)
        return FrameBatch(
            data,
            offsets,
            cap_lens.astype(np.uint32),
            _column(table, "orig_len").astype(np.uint32),
            _column(table, "link_type").astype(np.uint16),
            _column(table, "ts"),
            self._interfaces(table),
            none,
            none,
            np.zeros(count, np.bool_),
            _column(table, "packet_block").astype(np.uint8),
            np.full(count, -1, np.int32),
            stored=table.select(self._stored) if self._stored else None,
        )

    def _interfaces(self, table: pa.Table) -> NDArray[np.uint32]:
        """Numbers in `interfaces`, which are those that packets name."""
        index = _column(table, "ifindex")
        names = table["interface"].combine_chunks()
        codes = np.array(names.indices.fill_null(-1), np.int64) + 1
        known = ["", *names.dictionary.to_pylist()]
        found, rows = np.unique(index << 32 | codes, return_inverse=True)
        numbers = []
        for key in found.tolist():
            interface = (known[key & 0xFFFFFFFF], key >> 32)
            if interface not in self._numbers:
                self._numbers[interface] = len(self.interfaces)
                self.interfaces.append(Interface(name=interface[0], ifindex=interface[1]))
            numbers.append(self._numbers[interface])
        return np.array(numbers, np.uint32)[rows]

    def position(self) -> int:
        """How far the file was read, in bytes on disk."""
        rows = sum(group.rows for group in self._reader.groups_of("packet"))
        return self._size_bytes * self._given // max(rows, 1)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _column(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Numbers of a column, 0 where it has none."""
    return np.array(table[name].cast("int64").fill_null(0), np.int64)


def _bytes(column: pa.ChunkedArray) -> tuple[Any, NDArray[np.int64], NDArray[np.int64]]:
    """A large_binary column as (bytes, where each begins, how many each has)."""
    array: Any = column.combine_chunks()
    _, offsets, data = array.buffers()
    ends = np.array(np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1])
    bytes_ = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    return bytes_, ends[:-1] - ends[0], np.diff(ends)
