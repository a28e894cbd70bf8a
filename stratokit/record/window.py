"""`record --keep`: a rolling window of segments, of which a trigger makes a capture.

A segment is dropped when those after it cover the window. A trigger asks for what was `before` it and will be
`after` it: then the segment that is being written ends, and the segments that have this become one capture in
the background. A trigger that comes while an earlier one still waits for its `after` joins it: one file,
which has both; after that it makes a file of its own, whose beginning may be in the other too.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import time
from typing import TYPE_CHECKING

from stratokit.record.control import ControlSocket
from stratokit.record.conversions import Conversions, Job
from stratokit.record.rotation import STAMP
from stratokit.record.segments import left

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from stratokit.record.options import RecordOptions
    from stratokit.record.segments import Segment, Segments

# A window has about so many segments: with fewer more is kept than asked for, with more the host is looked
# at more often.
SHARE = 8
SEGMENT_NS_LEAST, SEGMENT_NS_MOST = 1_000_000_000, 120_000_000_000
SAMPLES_MOST = 100_000
# Of captures that wait to be made; what triggers ask for beyond is not kept.
JOBS_MOST = 4


@dataclasses.dataclass(slots=True)
class Freeze:
    """A capture that is to be made: times are CLOCK_MONOTONIC."""

    since_ns: int
    until_ns: int
    output: pathlib.Path


class Window:
    """What becomes of complete segments, and when a capture is made of them."""

    def __init__(
        self,
        options: RecordOptions,
        say: Callable[[str], None],
        own_child: Callable[[bool], None] = lambda _: None,
        put: Callable[[str, int, list[object]], None] = lambda *_: None,
    ) -> None:
        """`put` writes a table (name, time, rows) into the segment that is being written."""
        self._keep = options.keep
        self._output = options.output
        self._say = say
        self._put = put
        self._segments: collections.deque[Segment] = collections.deque()
        self._samples: collections.deque[int] = collections.deque(maxlen=SAMPLES_MOST)
        self._current_bytes = 0
        self._pending: Freeze | None = None
        self._cut: Freeze | None = None  # whose last segment is ending
        self._by_expression = 0
        self._conversions = Conversions(self._converted, own_child)
        self.outputs: list[pathlib.Path] = []
        self._planned: set[pathlib.Path] = set()
        there = self._spools()
        self._first = max((number for number, _ in there), default=0)
        for segments in left(path for _, path in there).values():
            self._conversions.add(Job(tuple(segments), self._free_name("left-")))
            self._say(f"{len(segments)} segments are left of a recording that was killed; they are converted")
        self._control = ControlSocket(self._asked, self.status)
        if self._control.problem:
            say(f"stratokit trigger cannot reach this recorder, only SIGUSR1 can: {self._control.problem}")

    def _spools(self) -> list[tuple[int, pathlib.Path]]:
        pattern = re.compile(rf"{re.escape(self._output.stem)}-(\d{{6,}})\.spool")
        matches = ((pattern.fullmatch(path.name), path) for path in self._output.parent.iterdir())
        return sorted((int(match[1]), path) for match, path in matches if match)

    def path_of(self, number: int) -> pathlib.Path:
        """The spool of a segment."""
        return self._output.with_name(f"{self._output.stem}-{self._first + number:06}.spool")

    # What the recording asks -------------------------------------------------------------------------------

    @property
    def with_calls(self) -> bool:
        """Whether the segment that ends now ends a capture, which shall tell what hangs."""
        return self._cut is not None

    def is_due(self, segments: Segments, now_ns: int) -> bool:
        """Whether the current segment is to end: it is full, or a capture ends here."""
        self._current_bytes = segments.current.bytes_written
        if self._cut is None and self._pending is not None and now_ns >= self._pending.until_ns:
            self._cut, self._pending = self._pending, None
        if self._cut is not None:
            return True
        keep = self._keep
        age = SEGMENT_NS_MOST if keep.keep_ns is None else keep.keep_ns // SHARE
        age = min(max(age, SEGMENT_NS_LEAST), SEGMENT_NS_MOST)
        return now_ns - segments.begin_ns >= age or segments.row_bytes >= keep.size_bytes // SHARE

    def completed(self, segment: Segment) -> None:
        """Keep it; a capture that waited for it can be made."""
        self._segments.append(segment)
        self._current_bytes = 0
        if self._cut is not None:
            self._freeze(self._cut)
        self._trim(segment.end_ns)

    def sampled(self, at_ns: int) -> None:
        """Counters were sampled: a capture can begin there."""
        self._samples.append(at_ns)

    def tick(self, now_ns: int) -> None:
        """About every 50 ms: triggers, conversions, and what is too old."""
        self._control.poll()
        self._conversions.poll()
        self._trim(now_ns)

    def make_room(self) -> bool:
        """Drop the oldest segment because the disk is full; False when all are needed."""
        return not self._keep.in_memory and self._drop_oldest()

    def ending(self, reason: str) -> None:
        """The recording is about to end."""
        if any(trigger.kind == "exit" for trigger in self._keep.triggers):
            self.trigger("exit", reason)

    def finish(self, last: Segment) -> None:
        """The recording has ended: what waits is made into a capture, and the window is dropped."""
        self._control.close()
        self._segments.append(last)
        self._current_bytes = 0
        for freeze in (self._cut, self._pending):
            if freeze is not None:
                self._freeze(freeze)
        self._conversions.wait()
        for segment in self._segments:
            if self._keep.in_memory or not segment.pins:
                segment.drop()
        self._segments.clear()

    def close(self) -> None:
        """Nobody can trigger any more."""
        self._control.close()

    # Triggers ----------------------------------------------------------------------------------------------

    def trigger(self, by: str, reason: str, now_ns: int | None = None) -> str:
        """Ask for a capture of what was before and comes after now; returns a sentence that says which."""
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        keep = self._keep
        if self._pending is None and (len(self._conversions) >= JOBS_MOST or self._too_much()):
            self._say(f"trigger ({by}) refused: {JOBS_MOST} captures wait to be written")
            return ""
        self._put("triggers", now_ns, [{"monotonic_ns": now_ns, "by": by, "reason": reason}])
        span_ns = keep.keep_ns if keep.before_ns is None else keep.before_ns
        before = 0 if span_ns is None else now_ns - span_ns
        if self._pending is None:
            self._pending = Freeze(before, now_ns + keep.after_ns, self._free_name())
            self._say(f"triggered ({by}{': ' + reason if reason else ''}): {self._pending.output}")
        else:
            self._pending.since_ns = min(self._pending.since_ns, before)
            self._pending.until_ns = max(self._pending.until_ns, now_ns + keep.after_ns)
        return str(self._pending.output)

    def by_expression(self, text: str, now_ns: int) -> None:
        """An expression came true."""
        if self._by_expression >= self._keep.limit and self._pending is None:
            return
        if self._pending is None:
            self._by_expression += 1
            if self._by_expression == self._keep.limit:
                self._say(f"--trigger-limit is reached: after this {text!r} and the like trigger no more")
        self.trigger("expression", text, now_ns)

    def status(self) -> dict[str, object]:
        """For `stratokit trigger --list`."""
        first = self._segments[0].begin_ns if self._segments else None
        return {
            "output": str(self._output),
            "kept_ns": None if first is None else time.monotonic_ns() - first,
            "kept_bytes": self.size_bytes,
            "segments": len(self._segments) + 1,
            "captures": len(self.outputs),
            "waiting": len(self._conversions) + sum(f is not None for f in (self._cut, self._pending)),
        }

    def _asked(self, reason: str) -> str:
        return self.trigger("stratokit trigger", reason)

    def _free_name(self, what: str = "") -> pathlib.Path:
        stamp = what + time.strftime(STAMP, time.gmtime())
        for count in range(1, 10_000):
            name = f"{self._output.stem}-{stamp}{f'_{count}' if count > 1 else ''}{self._output.suffix}"
            path = self._output.with_name(name)
            if path not in self._planned and not path.exists():
                self._planned.add(path)
                return path
        raise AssertionError("no second has so many captures")

    # The window --------------------------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """Of all segments."""
        return sum(segment.size_bytes for segment in self._segments) + self._current_bytes

    def _too_much(self) -> bool:
        return self.size_bytes > 2 * self._keep.size_bytes

    def _needed(self, segment: Segment) -> bool:
        if segment.pins:
            return True
        waiting = (freeze for freeze in (self._cut, self._pending) if freeze is not None)
        return any(segment.end_ns > freeze.since_ns for freeze in waiting)

    def _trim(self, now_ns: int) -> None:
        keep_ns = self._keep.keep_ns
        while len(self._segments) > 1:
            too_old = keep_ns is not None and self._segments[1].begin_ns <= now_ns - keep_ns
            if not (too_old or self.size_bytes > self._keep.size_bytes) or not self._drop_oldest():
                break
        if self._pending is not None and self._too_much():
            self._pending.until_ns = min(self._pending.until_ns, now_ns)  # or the bound would be passed

    def _drop_oldest(self) -> bool:
        if not self._segments or self._needed(self._segments[0]):
            return False
        self._segments.popleft().drop()
        return True

    def _freeze(self, freeze: Freeze) -> None:
        self._cut = None
        chosen = tuple(segment for segment in self._segments if segment.end_ns > freeze.since_ns)
        since: int | None = max((at for at in self._samples if at <= freeze.since_ns), default=0)
        if chosen and since is not None and since <= chosen[0].begin_ns:
            since = None
        self._conversions.add(Job(chosen, freeze.output, since))

    def _converted(self, job: Job, failed: str) -> None:
        self._planned.discard(job.output)
        if failed:
            for segment in job.segments:
                segment.pins += 1  # for good: it can be converted later
            kept = " ".join(str(segment.path) for segment in job.segments)
            where = "" if self._keep.in_memory else f"; what it was to be made of is kept: {kept}"
            self._say(f"{job.output.name} was not made: {failed}{where}")
            return
        self.outputs.append(job.output)
        self._say(f"written: {job.output}")
        for segment in job.segments:
            if segment not in self._segments:
                segment.drop()  # it was left of another recording
