"""`record --rotate-...`: each segment becomes a capture of its own."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import TYPE_CHECKING

from stratokit.record.conversions import Conversions, Job
from stratokit.record.segments import left

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from stratokit.record.options import RecordOptions
    from stratokit.record.segments import Segment, Segments

STAMP = "%Y%m%dT%H%M%SZ"


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """Names of the files beside `output`: NAME-000001-20260102T030405Z.parquet, sorted as they were made."""

    output: pathlib.Path

    def path(self, number: int, suffix: str, at_s: float | None = None) -> pathlib.Path:
        """The file with this number."""
        stamp = time.strftime(STAMP, time.gmtime(at_s))
        return self.output.with_name(f"{self.output.stem}-{number:06}-{stamp}{suffix}")

    def existing(self, *suffixes: str) -> list[tuple[int, pathlib.Path]]:
        """(number, path) of those that are there, in order, those of earlier recordings too."""
        ends = "|".join(re.escape(suffix) for suffix in suffixes)
        pattern = re.compile(rf"{re.escape(self.output.stem)}-(\d{{6,}})-\d{{8}}T\d{{6}}Z(?:{ends})")
        matches = ((pattern.fullmatch(path.name), path) for path in self.output.parent.iterdir())
        return sorted((int(match[1]), path) for match, path in matches if match)


class Rotate:
    """What becomes of complete segments."""

    def __init__(
        self,
        options: RecordOptions,
        say: Callable[[str], None],
        own_child: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._rotation = options.rotation
        self._output = options.output
        self._say = say
        self._names = Names(options.output)
        self._first = max((n for n, _ in self._names.existing(options.output.suffix, ".spool")), default=0)
        self._conversions = Conversions(self._converted, own_child)
        self.outputs: list[pathlib.Path] = []
        for segments in left(path for _, path in self._names.existing(".spool")).values():
            for segment in segments:  # of a recording that was killed
                self._convert(segment)

    def path_of(self, number: int) -> pathlib.Path:
        """The spool of a segment."""
        return self._names.path(self._first + number, ".spool")

    def is_due(self, segments: Segments, now_ns: int) -> bool:
        """Whether the current segment is full."""
        rotation = self._rotation
        if rotation.time_ns is not None and now_ns - segments.begin_ns >= rotation.time_ns:
            return True
        return rotation.size_bytes is not None and segments.row_bytes >= rotation.size_bytes

    with_calls = False  # a call that goes on has its row where it ends

    def completed(self, segment: Segment) -> None:
        """Convert it. What would be removed anyway once it is converted is not."""
        self._convert(segment)
        most = self._rotation.count
        if most is not None and len(self._conversions) > most + 1:
            job = self._conversions.give_up_oldest()
            for old in job.segments if job else ():
                old.drop()
                self._say(f"{old.path.name} is removed unconverted: segments come faster than they convert")

    def _convert(self, segment: Segment) -> None:
        self._conversions.add(Job((segment,), segment.path.with_suffix(self._output.suffix)))

    def sampled(self, at_ns: int) -> None:
        """Counters were sampled."""

    def tick(self, now_ns: int) -> None:  # noqa: ARG002 the window's is asked with the time
        """About every 50 ms."""
        self._conversions.poll()

    def make_room(self) -> bool:
        """Remove the oldest file because the disk is full; False when that is not permitted."""
        if self._rotation.count is None:
            return False
        there = self._names.existing(self._output.suffix)
        for _, path in there[:1]:
            path.unlink(missing_ok=True)
            self._say(f"the disk is full: {path.name} is removed")
        return bool(there)

    def ending(self, reason: str) -> None:
        """The recording is about to end."""

    def finish(self, last: Segment) -> None:
        """The recording has ended: convert what is left."""
        self.completed(last)
        self._conversions.wait()

    def _converted(self, job: Job, failed: str) -> None:
        if failed:
            kept = " ".join(str(segment.path) for segment in job.segments)
            self._say(f"{job.output.name} was not made: {failed}; the recording is kept in {kept}")
            return
        for segment in job.segments:
            segment.drop()
        self.outputs.append(job.output)
        if self._rotation.count is not None:
            there = self._names.existing(self._output.suffix)
            for _, path in there[: max(len(there) - self._rotation.count, 0)]:
                path.unlink(missing_ok=True)
                self.outputs = [kept for kept in self.outputs if kept != path]
