"""A capture that came from a scap file, written as the file was: every list, every event's bytes.

Memory: the bytes of all events, which have to be brought back into their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.engine.scap import carried
from stratokit.formats.packet_rows import Run
from stratokit.formats.scap.walk import event_times
from stratokit.formats.scap.writer import ScapWriter

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

BATCH_ROWS = 1 << 16


def came_from_scap(capture: Capture) -> bool:
    """Whether the capture is one file that knows the scap file it was."""
    return len(capture.files) == 1 and carried.METADATA_KEY in capture.files[0].carried


def write_again(capture: Capture, output: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the events that the capture still has."""
    lists = carried.from_text(capture.files[0].carried[carried.METADATA_KEY])
    with ScapWriter(output, headed=not lists) as writer:
        for batch in _events(capture).collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            numbers = batch["number"].to_numpy()
            data, ends = _blocks(batch)
            at = 0
            while at < len(numbers):
                while lists and lists[0].events_before < numbers[at]:
                    writer.blocks([lists.pop(0).block])
                # Up to the next list, which belongs behind the events that came before it.
                stop = len(numbers)
                if lists:
                    stop = int(np.searchsorted(numbers, lists[0].events_before, "right"))
                writer.raw(data[ends[at] : ends[stop]], stop - at)
                at = stop
            if progress:
                progress(writer.events, int(numbers[-1]))
        writer.blocks(rest.block for rest in lists)


def runs(capture: Capture) -> Iterator[Run]:
    """The events that the capture still has, as they stood in the file."""
    for batch in _events(capture).collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
        data, ends = _blocks(batch)
        times = np.empty(len(ends) - 1, np.int64)
        event_times(data, ends, times)
        yield Run(data, ends, times)


def _blocks(batch: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of a batch's events, and where each begins and the last one ends."""
    column = batch["block"].rechunk().to_arrow()
    ends = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    # Copies, as kernels take arrays that are not read-only.
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)[ends[0] : ends[-1]].copy()
    return data, ends - ends[0]


def _events(capture: Capture) -> pl.LazyFrame:
    calls, others = capture.selected_rows("syscall"), capture.selected_rows("event")
    parts = [
        frame.select(pl.col(f"scap_{part}_number").alias("number"), pl.col(f"scap_{part}").alias("block"))
        for frame, part in ((calls, "enter"), (calls, "exit"), (others, "exit"))
    ]
    return pl.concat(parts).filter(pl.col("block").is_not_null()).sort("number")
