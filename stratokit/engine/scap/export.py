"""A capture as a scap file: lists of what there was at the start, then every call as its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.engine.frames import collect
from stratokit.engine.scap import events_out as eo
from stratokit.engine.scap.boxes import boxes
from stratokit.engine.scap.people import People, user_list
from stratokit.engine.scap.sightings import at_start, first_sightings, introductions, state_changes
from stratokit.formats.scap import lists
from stratokit.formats.scap import metadata as md
from stratokit.formats.scap.fill import Rows
from stratokit.formats.scap.writer import ScapWriter

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

Progress = Callable[[int, int], None]
BATCH_ROWS = 1 << 16
_PEOPLE = (
    "ts",
    "event",
    "pid",
    "tid",
    "parent_pid",
    "comm",
    "path",
    "cmdline",
    "uid",
    "gid",
    "cgroup",
    "cwd",
)


def export(capture: Capture, output: Path, profile: str, progress: Progress | None = None) -> None:
    """Write the system calls of a capture with the processes and descriptors they need."""
    outgoing = Outgoing(capture, profile)
    with ScapWriter(output) as writer:
        writer.blocks(outgoing.lists())
        for events, rows in outgoing.batches(progress):
            writer.write(events, rows)


class Outgoing:
    """The system calls of a recording on their way out; `profile` as `events_out.Layout` knows them."""

    def __init__(self, capture: Capture, profile: str) -> None:
        self._capture = capture
        rows = capture.rows("process").with_columns(pl.col("ts").cast(pl.Int64))
        self._processes = collect(rows.select(*_PEOPLE, "exit_code"))
        self._people = People(self._processes)
        self._sightings = first_sightings(capture, profile)
        self._layout = eo.Layout(profile, self._people, self._sightings.threads)
        self._profile = profile

    def lists(self) -> Iterator[bytes]:
        """Blocks of what there was at the start."""
        pids = [person.pid for person in self._people.at_start]
        return _lists(self._capture, self._people, at_start(self._sightings, pids))

    def batches(self, progress: Progress | None = None) -> Iterator[tuple[np.ndarray, Rows]]:
        """Events in order of time, batch by batch, with the rows that they are from."""
        total = sum(file.rows.get("syscall", 0) for file in self._capture.files)
        done = 0
        extra = introductions(self._processes, self._sightings, self._people)
        more = [boxes(self._capture)]
        if self._profile == eo.AMONG_PACKETS:
            more.append(state_changes(self._capture))
        extra = pl.concat([*more, extra]).sort("ts", maintain_order=True)
        for frame, cutoff in _batches(self._capture, extra):
            typed = self._layout.typed(frame)
            events = self._layout.events(typed)
            yield events[events["ts"] < cutoff] if cutoff is not None else events, self._layout.rows(typed)
            done += frame.height
            if progress:
                progress(min(done, total), total)


def _lists(capture: Capture, people: People, descriptors: dict[int, list[md.Descriptor]]) -> Iterator[bytes]:
    host = capture.files[0].host
    yield lists.machine(
        md.Machine(
            int(host.get("processors") or 1),
            int(host.get("memory_bytes") or 0),
            4194304,
            str(host.get("hostname") or ""),
        )
    )
    known = collect(capture.rows("interface").select("interface", "addresses")).drop_nulls("interface")
    yield from lists.interfaces((name, found or ()) for name, found in known.iter_rows())
    yield from lists.users(user_list(people.versions[1:]))
    yield from lists.processes(person.listed() for person in people.at_start)
    for pid, found in descriptors.items():
        yield from lists.descriptors(pid, found)


def _batches(capture: Capture, extra: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, int | None]]:
    """Rows in order of time, and until when their events are due; calls that last longer come again."""
    calls = capture.rows("syscall").select(eo.COLUMNS).with_columns(pl.col("ts").cast(pl.Int64)).sort("ts")
    waiting: pl.DataFrame | None = None
    held: pl.DataFrame | None = None
    end = (pl.col("ts") + pl.col("duration_ns").fill_null(0).cast(pl.Int64)).alias("end")
    for part in calls.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
        batch = eo.with_ends(part).with_columns(end, entered=pl.lit(value=False))
        if held is not None:
            yield (joined := _joined(waiting, held, extra, cutoff := int(batch["ts"][0]))), cutoff
            extra = extra.filter(pl.col("ts") >= cutoff)
            waiting = joined.filter(pl.col("end") >= cutoff).with_columns(
                entered=pl.col("entered") | (pl.col("ts") < cutoff)
            )
        held = batch
    if held is not None:
        yield _joined(waiting, held, extra, None), None
    elif extra.height:
        yield extra, None


def _joined(
    waiting: pl.DataFrame | None, batch: pl.DataFrame, extra: pl.DataFrame, cutoff: int | None
) -> pl.DataFrame:
    due = extra if cutoff is None else extra.filter(pl.col("ts") < cutoff)
    parts = [part for part in (waiting, batch, due) if part is not None and part.height]
    return pl.concat(parts, how="diagonal_relaxed")
