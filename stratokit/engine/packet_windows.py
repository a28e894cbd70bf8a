"""Windows of a packet file as columns: only those that were asked for, windows in parallel, in file order."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stratokit.dissect.columns import column, packet_columns
from stratokit.dissect.fragments import Reassembler
from stratokit.dissect.packets import dissect
from stratokit.dissect.payloads import COLUMNS as PAYLOAD_COLUMNS
from stratokit.dissect.payloads import payload_columns
from stratokit.engine.in_order import Turn, map_in_order
from stratokit.formats.frames import FrameBatch
from stratokit.formats.views import bytes_views
from stratokit.schema import load
from stratokit.streams.flows import FlowTable
from stratokit.streams.packet_flows import COLUMNS as FLOW_COLUMNS
from stratokit.streams.packet_flows import flow_columns

Columns = dict[str, pa.Array]

# What no bytes of a frame are needed for.
_OF_RECORD = frozenset(
    ("kind", "ts", "frame", "interface", "ifindex", "link_type", "orig_len", "cap_len", "data")
)
_OF_OPTIONS = frozenset(
    ("direction", "pid", "tid", "comm", "container_id", "pod", "namespace", "comment")
)  # by formats.pcapng.options
_OF_BLOCK = frozenset(("packet_block", "packet_options"))
# Columns that need no look into frames: all that a packet file needs.
OF_FILE = _OF_RECORD | _OF_OPTIONS | _OF_BLOCK
# Of these, what a capture that was made of a packet file holds, and its frames do not tell.
STORED = _OF_OPTIONS | {"packet_options"}
_OF_FLOWS = frozenset(FLOW_COLUMNS)
_OF_PAYLOAD = frozenset(PAYLOAD_COLUMNS)
SIMPLE_PACKET = 3  # pcapng's block without a time


@dataclasses.dataclass(frozen=True, slots=True)
class _Window:
    """A batch with what the reader knew when it was read."""

    batch: FrameBatch
    before: int
    interfaces: Sequence[Any]
    processes: Sequence[tuple[int, str]]


def columns_of(
    reader: Any,
    names: Collection[str],
    *,
    progress: Callable[[], None] | None = None,
    threads: int | None = None,
) -> Iterator[Columns]:
    """Columns `names` of kind packet, window by window.

    Bytes of frames are views into the window, which stays mapped as long as they are used.
    """
    with contextlib.closing(windows_of(reader, names, progress=progress, threads=threads)) as windows:
        for columns, _ in windows:
            yield columns


def windows_of(
    reader: Any,
    names: Collection[str],
    *,
    progress: Callable[[], None] | None = None,
    threads: int | None = None,
) -> Generator[tuple[Columns, Any]]:
    """As `columns_of`, and what keeps the memory that payload_address leads to.

    Names may be those of dissect.payloads, too.
    """
    decoder = _Decoder(frozenset(names))
    return map_in_order(_windows(reader, progress), decoder.decode, threads)


def _windows(reader: Any, progress: Callable[[], None] | None) -> Iterator[_Window]:
    before = 0
    processes: Sequence[tuple[int, str]] = ()
    for batch in reader.batches():
        known = getattr(reader, "processes", ())
        # The reader's own list grows while windows are decoded; of several files each batch has its own.
        if isinstance(known, tuple) or len(known) > len(processes):
            processes = tuple(known)
        yield _Window(batch, before, reader.interfaces, processes)
        before += len(batch.offsets)
        if progress:
            progress()


class _Decoder:
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._flows = FlowTable()
        self._fragments = Reassembler()
        packet = {column.name for column in load.capture().of_kind("packet")}
        self._dissects = bool(names & (packet - OF_FILE | _OF_PAYLOAD))

    def decode(self, window: _Window, turn: Turn) -> tuple[Columns, Any]:
        """Columns of one window, and its memory. Fragments and conversations go window after window."""
        batch = window.batch
        memory: Any = batch.data
        columns = self._record(window)
        if self._dissects:
            found = dissect(batch.data, batch.offsets, batch.cap_lens, batch.orig_lens, batch.link_types)
            with turn.taken():
                datagrams = self._fragments.feed(found, batch.data, batch.offsets, batch.ts_ns)
                if self._names & _OF_FLOWS:
                    columns |= flow_columns(self._flows, found, batch.ts_ns)
            turn.end()
            columns = packet_columns(found, self._names, datagrams) | columns
            if self._names & _OF_PAYLOAD:
                columns |= payload_columns(found, batch.data, batch.offsets, batch.cap_lens, datagrams)
                memory = (batch.data, datagrams.data)
        if batch.blocks.any():
            columns |= self._options(window)
        if batch.stored is not None:
            for name in batch.stored.column_names:
                columns[name] = _either(batch.stored[name].combine_chunks(), columns.get(name))
        if "data" in self._names:
            columns["data"] = bytes_views(batch.data, batch.offsets, batch.cap_lens)
        return {name: column for name, column in columns.items() if name in self._names}, memory

    def _record(self, window: _Window) -> Columns:
        batch, names = window.batch, self._names
        count = len(batch.offsets)
        columns = {"link_type": batch.link_types, "orig_len": batch.orig_lens, "cap_len": batch.cap_lens}
        found = {name: pa.array(values) for name, values in columns.items() if name in names}
        if "ts" in names:
            found["ts"] = column(batch.ts_ns, batch.blocks != SIMPLE_PACKET, pa.timestamp("ns", "UTC"))
        if "frame" in names:
            first = window.before + 1
            found["frame"] = pa.array(np.arange(first, first + count, dtype=np.uint64))
        if "ifindex" in names:
            numbers, codes = _distinct(batch.interfaces)
            values = [window.interfaces[number].ifindex for number in numbers]
            found["ifindex"] = pa.array(np.array(values, np.uint32)[codes])
        if "interface" in names:
            numbers, codes = _distinct(batch.interfaces)
            known = [window.interfaces[number].name for number in numbers]
            if any(known):
                nameless = np.array([not name for name in known])[codes]
                indices = pa.array(codes.astype(np.int32), mask=nameless)
                found["interface"] = pa.DictionaryArray.from_arrays(indices, pa.array(known, pa.string()))
        return found

    def _options(self, window: _Window) -> Columns:
        batch, columns = window.batch, {}
        if self._names & _OF_OPTIONS and (batch.options_end > batch.options_at).any():
            from stratokit.formats.pcapng.options import packet_options

            columns = packet_options(batch, window.processes)
        if "packet_options" in self._names:
            from stratokit.formats.pcapng.raw_options import raw_options

            of_pcapng = pa.array(batch.blocks != 0).buffers()[1]
            _, *options = raw_options(batch).buffers()
            columns["packet_options"] = pa.Array.from_buffers(
                pa.large_binary(), len(batch.blocks), [of_pcapng, *options]
            )
        columns["packet_block"] = column(batch.blocks, batch.blocks != 0)
        return columns


def _either(stored: Any, found: Any) -> Any:
    """What a capture knows of its frames, and what was found out about frames of other files."""
    if found is None:
        return stored
    import pyarrow.compute as pc  # takes long to load

    plain = (
        values.dictionary_decode() if hasattr(values, "dictionary") else values for values in (stored, found)
    )
    first, second = plain
    return pc.coalesce(first, second.cast(first.type))


def _distinct(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ones, and which of them each is; files with one interface need no sorting."""
    if len(numbers) and (numbers == numbers[0]).all():
        return numbers[:1], np.zeros(len(numbers), np.int64)
    return np.unique(numbers, return_inverse=True)
