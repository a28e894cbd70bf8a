"""The spools of a recording: one, or a row of segments of which each can be read alone.

A segment begins while the one before is still written: it is opened, a thread looks around the host (which
takes a tenth of a second, on large hosts seconds), and meanwhile events go to both. When the thread is done
the ring buffer is drained once more, and at that place of it the rows of the old segment end and those of the
new one begin, so no event is lost or doubled. Threads of this process are not recorded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import uuid
from typing import TYPE_CHECKING, Any

from stratokit.errors import FormatError, RecordError
from stratokit.formats import spool
from stratokit.record import host

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterable

    from stratokit.record.open_calls import Waiting
    from stratokit.record.surroundings import Look, Surroundings


@dataclasses.dataclass(slots=True, eq=False)
class Segment:
    """A spool that is complete. `pins` says how many captures are still to be made of it; `memory` holds it
    where it is no file.
    """

    path: pathlib.Path
    size_bytes: int
    begin_ns: int = 0
    end_ns: int = 0
    pins: int = 0
    memory: spool.SpoolWriter | None = None

    @classmethod
    def of(cls, writer: spool.SpoolWriter, begin_ns: int = 0, end_ns: int = 0) -> Segment:
        """What a writer has written; a file is closed."""
        if not writer.in_memory:
            with contextlib.suppress(OSError):
                writer.close()
        memory = writer if writer.in_memory else None
        return cls(writer.path, writer.bytes_written, begin_ns, end_ns, memory=memory)

    def drop(self) -> None:
        """Remove it."""
        if self.memory is not None:
            self.memory.close()
        else:
            self.path.unlink(missing_ok=True)


def left(paths: Iterable[pathlib.Path]) -> dict[str, list[Segment]]:
    """Segments that a killed recorder left behind, by recording.

    Raises:
        RecordError: a recorder that lives writes one of them.
    """
    found: dict[str, list[Segment]] = {}
    for path in paths:
        if spool.is_being_written(path):
            raise RecordError(f"{path} is being written by another recording; choose another -o")
        try:
            recording, _ = spool.segment_of(spool.SpoolReader(path))
        except (FormatError, OSError, ValueError):
            continue  # killed before it had anything
        found.setdefault(recording or f"{path}", []).append(Segment(path, path.stat().st_size))
    return found


@dataclasses.dataclass(slots=True)
class _Looking:
    """A thread that looks around the host, and what it found."""

    thread: threading.Thread | None = None
    look: Look | None = None
    waiting: list[Waiting] = dataclasses.field(default_factory=list)
    failed: Exception | None = None

    def is_alive(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def run(self, surroundings: Surroundings, with_calls: bool) -> None:
        try:
            members = surroundings.members()
            found = surroundings.look(members)
            if with_calls:
                self.waiting = surroundings.waiting(members)
            self.look = found
        except Exception as error:  # noqa: BLE001 whatever it is, the recording goes on in this segment
            self.failed = error


class Segments:
    """What is being written: `current`, and while a segment change is under way the next one."""

    def __init__(self, path_of: Callable[[int], pathlib.Path], rolling: bool, in_memory: bool) -> None:
        """`path_of`: the file of a segment by its number, which counts from 1."""
        self._path_of = path_of
        self._in_memory = in_memory
        self._number = 1
        self._recording = uuid.uuid4().hex if rolling else ""
        self._opening: dict[str, Any] = {}
        self._clock: dict[str, int] = {}
        self._next: spool.SpoolWriter | None = None
        self._looking: _Looking | None = None
        self._given_up: _Looking | None = None
        self._done_bytes = self._head_bytes = 0
        self.current = spool.SpoolWriter(path_of(1), in_memory)
        self.begin_ns = 0

    @property
    def bytes_written(self) -> int:
        """In all segments so far."""
        return self._done_bytes + self.current.bytes_written

    @property
    def row_bytes(self) -> int:
        """Of the current segment, without what says what there was before."""
        return self.current.bytes_written - self._head_bytes

    def open(self, opening: dict[str, Any]) -> None:
        """Write the first chunks of the first segment."""
        self._opening = opening
        self._clock = host.clock_pair()
        self.begin_ns = self._clock["monotonic_ns"]
        self._head(self.current, leads=False)
        self.current.write_json(spool.CLOCK, self._clock)

    def _head(self, writer: spool.SpoolWriter, leads: bool) -> None:
        segment = {
            "recording": self._recording,
            "number": self._number + leads,
            "leads": leads,
            "clock": self._clock,
        }
        writer.write_json(spool.OPENING, self._opening | ({"segment": segment} if self._recording else {}))

    def events(self, span: memoryview) -> None:
        """Append a span of the ring buffer.

        Raises:
            OSError: it does not fit into the current segment.
        """
        self.current.write(spool.EVENTS, span)
        if self._next is not None:
            try:
                self._next.write(spool.EVENTS, span)
            except OSError:
                self.abandon()  # which makes room for the current one

    def table(self, name: str, at_ns: int, rows: list[Any]) -> None:
        """Append a table."""
        self.current.write_json(spool.TABLE, {"table": name, "monotonic_ns": at_ns, "rows": rows})

    def prepare(self, surroundings: Surroundings, with_calls: bool) -> None:
        """Open the next segment and begin to look around.

        `with_calls`: the current one shall tell which system calls had not returned when it ended.
        """
        self._next = spool.SpoolWriter(self._path_of(self._number + 1), self._in_memory)
        try:
            self._head(self._next, leads=True)
            self._next.write_json(spool.CLOCK, host.clock_pair())
        except OSError:
            self.abandon()
            raise
        looking = self._looking = _Looking()
        looking.thread = threading.Thread(
            target=looking.run, args=(surroundings, with_calls), name="look", daemon=True
        )
        looking.thread.start()

    @property
    def changing(self) -> bool:
        """Whether the next segment is being prepared."""
        before = self._given_up is not None and self._given_up.is_alive()
        return self._next is not None or before

    @property
    def ready(self) -> bool:
        """Whether the next segment may begin."""
        return self._looking is not None and not self._looking.is_alive()

    def change(self, surroundings: Surroundings, sample: dict[str, Any]) -> tuple[Segment, dict[str, int]]:
        """Begin the next segment, right after the ring was drained; returns the one that is complete now and
        what could not be looked at.

        `sample`: the counters as they are.

        Raises:
            Exception: what kept the thread from looking; the segment goes on.
        """
        looking, upcoming = self._looking, self._next
        if looking is None or upcoming is None or looking.look is None:
            self.abandon()
            raise (looking and looking.failed) or RuntimeError("nothing was looked at")
        # First what may fail because the disk is full, and what is still to be taken back.
        for name, at_ns, rows in looking.look.tables:
            upcoming.write_json(spool.TABLE, {"table": name, "monotonic_ns": at_ns, "rows": rows})
        upcoming.write_json(spool.BEGIN, sample)
        if looking.waiting:
            surroundings.open_calls(looking.waiting)
        for chunk, value in (
            (spool.COUNTERS, sample),
            (spool.CLOCK, host.clock_pair()),
            (spool.CLOSING, {"reason": "segment full", "continues": True}),
        ):
            self.current.write_json(chunk, value)
        old = self._complete(sample["monotonic_ns"])
        self.current, self._next, self._looking = upcoming, None, None
        self._number += 1
        self.begin_ns = sample["monotonic_ns"]
        self._head_bytes = upcoming.bytes_written
        surroundings.known(looking.look)
        return old, looking.look.counts

    def abandon(self) -> bool:
        """Give up the next segment; False where there is none."""
        there = self._next is not None
        if self._next is not None:
            Segment.of(self._next).drop()
        self._given_up = self._looking or self._given_up
        self._next = self._looking = None
        return there

    def settle(self) -> None:
        """Give up the next segment and wait for the thread, which uses the kernel's tables."""
        self.abandon()
        if self._given_up is not None and self._given_up.thread is not None:
            self._given_up.thread.join()

    def end(self, now_ns: int) -> Segment:
        """No more is written; returns the last segment."""
        return self._complete(now_ns)

    def _complete(self, now_ns: int) -> Segment:
        self._done_bytes += self.current.bytes_written
        return Segment.of(self.current, self.begin_ns, now_ns)
