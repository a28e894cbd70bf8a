"""One recording from start to end: attach, look around, drain until it is over, leave a spool."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from stratokit.errors import RecordError
from stratokit.formats import spool
from stratokit.record import guard, host, limit_rows, netns, opening, privileges, scope
from stratokit.record.alarms import Alarms
from stratokit.record.checks import check
from stratokit.record.command import end_command, urgent
from stratokit.record.host_load import give_back_pages
from stratokit.record.loader import Kernel
from stratokit.record.openssl import OpenSsl
from stratokit.record.options import RecordOptions, Result, Status
from stratokit.record.ring import records_within
from stratokit.record.rotation import Rotate
from stratokit.record.segments import Segments
from stratokit.record.surroundings import Surroundings
from stratokit.record.tally import Tally
from stratokit.record.watch import Watch
from stratokit.record.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DRAIN_INTERVAL_S = 0.05
COUNTERS_INTERVAL_NS = 1_000_000_000
CLOCK_INTERVAL_NS = 10_000_000_000
# A ring this full is drained again at once instead of after the interval.
BUSY_SHARE = 64
RETRY_NS = 5_000_000_000
# A thread that looks around the host gives way to the one that drains.
SWITCH_INTERVAL_S = 0.0005
# Left free for the last counters and the closing chunk when the disk is full.
ENDING_BYTES = 64 << 10


class Session:
    """A recording that is under way."""

    def __init__(
        self,
        options: RecordOptions,
        status: Callable[[Status], None] | None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._wanted = options
        self.options = guard.fitted(options)
        self._status = status
        self._say = say
        self._stop = ""
        self._asked = False  # by SIGUSR1
        self._ended = False
        self._began_ns: int | None = None
        self._kept_bytes = 0  # of the span that did not fit on the disk
        self._roll: Rotate | Window | None = None
        self._retry_ns = 0
        self._alarms: Alarms | None = None

    def run(self) -> Result:
        """Record until duration, command's end, signal, or a full disk."""
        with self._signals():
            self._watch = Watch(self.options.scope)
            self.options = dataclasses.replace(self.options, scope=self._watch.scope)
            self._kernel = Kernel(self.options, self._watch.chosen.groups)
            try:
                self._unless_stopped()
                self._guard = guard.Guard(self._wanted, self.options, self._kernel)
                self._tally = Tally(self._kernel, self._guard)
                self._roll = self._rolling()
                path_of = self._roll.path_of if self._roll else lambda _: self.options.spool
                keep = self.options.keep
                self._segments = Segments(path_of, self.options.rolling, keep.in_memory)
            except OSError as error:
                self._kernel.close()
                raise RecordError(f"cannot write {self.options.spool}: {error.strerror}") from error
            except RecordError:
                self._kernel.close()
                raise
            try:
                return self._record()
            finally:
                if isinstance(self._roll, Window):
                    self._roll.close()

    def _rolling(self) -> Rotate | Window | None:
        if self.options.rolling:
            sys.setswitchinterval(SWITCH_INTERVAL_S)
        if self.options.rotation:
            return Rotate(self.options, self._say, self._kernel.own_child)
        if self.options.keep:
            self._alarms = Alarms(self.options.keep.triggers, self._kernel.trigger_hits)
            return Window(self.options, self._say, self._kernel.own_child, self._put)
        return None

    def _put(self, name: str, at_ns: int, rows: list[Any]) -> None:
        self._segments.table(name, at_ns, rows)

    def _record(self) -> Result:
        exit_code: int | None = None
        try:
            self._open()
            self._unless_stopped()
            command = self._start_command()
            with urgent():
                self._drop_privileges()
                exit_code = self._loop(command)
                self._finish()
        except RecordError:
            if not self.options.keep.in_memory:
                self._segments.current.path.unlink(missing_ok=True)  # it holds nothing but snapshots
            raise
        except OSError as error:
            if not spool.is_disk_full(error):
                raise RecordError(f"cannot write {self._segments.current.path}: {error.strerror}") from error
            self._disk_full()
        finally:
            self._segments.settle()
            status = self._current()
            last = self._segments.end(time.monotonic_ns())
            self._kernel.detach()
            if self._roll is None:
                self._kernel.close()
        if self._roll is None:
            return Result(self.options.spool, exit_code, self._stop, status)
        self._ended = True
        try:
            self._roll.finish(last)
        except KeyboardInterrupt:
            self._say(f"not all is converted; the segments are kept in {self.options.spool.parent}")
        self._kernel.close()
        return Result(None, exit_code, self._stop, status, tuple(self._roll.outputs))

    def stop(self, reason: str) -> None:
        """Let the recording end soon; the first reason counts."""
        self._stop = self._stop or reason

    def _unless_stopped(self) -> None:
        if self._stop:
            raise RecordError(f"{self._stop} before the recording began; nothing was recorded")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        handled = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

        def stop(number: int, _: object) -> None:
            if self._ended:
                raise KeyboardInterrupt  # it was stopped, and the user does not wait for conversions
            self.stop(handled[signal.Signals(number)])

        before = {number: signal.signal(number, stop) for number in handled}
        if self.options.keep:
            before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda *_: self._ask())
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self) -> None:
        self._asked = True

    def _open(self) -> None:
        """Opening chunk, attach, then the snapshots: what begins between both is in the events."""
        self._segments.open(opening.facts(self.options, self._kernel))
        give_back_pages()  # everything is compiled; nothing happens yet that would wait
        self._clock_read = host.clock_pair()
        self._kernel.attach()
        self._surroundings = Surroundings(self._watch, self._kernel, self._put)
        self._openssl = OpenSsl(self._kernel) if self.options.tls else None
        self._tally.add(self._surroundings.begin(self._watch_openssl))

    def _clock(self) -> None:
        self._clock_read = host.clock_pair()
        self._segments.current.write_json(spool.CLOCK, self._clock_read)

    def _counters(self) -> None:
        sample = self._tally.sample()
        self._segments.current.write_json(spool.COUNTERS, sample)
        if self._roll is not None:
            self._roll.sampled(sample["monotonic_ns"])

    def _start_command(self) -> subprocess.Popen[bytes] | None:
        if not self.options.command:
            return None
        try:
            if self.options.scope.command:
                self._kernel.choose_tasks([self._kernel.pid])  # for the moment in which the command is forked
            return subprocess.Popen(self.options.command)
        except OSError as error:
            self._kernel.detach()
            raise RecordError(f"cannot run {self.options.command[0]}: {error.strerror}") from error
        finally:
            if self.options.scope.command:
                self._kernel.forget_task(self._kernel.pid)

    def _drop_privileges(self) -> None:
        owned = [] if self.options.keep.in_memory else [self._segments.current.path]
        others, command = netns.there_are_others(), bool(self.options.command)
        privileges.drop(self.options, command, others, owned, self._kernel.readable)

    def _loop(self, command: subprocess.Popen[bytes] | None) -> int | None:
        self._began_ns = begin = time.monotonic_ns()
        next_counters, next_clock = begin, begin + CLOCK_INTERVAL_NS
        next_look = begin + scope.INTERVAL_NS if self.options.scope.by_cgroup else None
        end = begin + self.options.duration_ns if self.options.duration_ns is not None else None
        busy = self._kernel.ring.size // BUSY_SHARE
        while not self._stop:
            now = time.monotonic_ns()
            if command is not None and command.poll() is not None:
                self.stop("command ended")
            elif end is not None and now >= end:
                self.stop("duration reached")
            self._kernel.ring.drain(self._write_events)
            self._within_limits(now)
            self._surroundings.note_interfaces(self._kernel.devices.poll())
            self._look_for_openssl(now)
            if now >= next_counters:
                next_counters = now + COUNTERS_INTERVAL_NS
                if host.was_set(self._clock_read):
                    self._tally.add({"clock_set": 1})
                    self._clock()
                self._counters()
                if self._status:
                    self._status(self._current())
            if now >= next_clock:
                next_clock = now + CLOCK_INTERVAL_NS
                self._clock()
                self._surroundings.interfaces()
                self._tally.add(self._surroundings.drops())
            if next_look is not None and now >= next_look:
                next_look = now + scope.INTERVAL_NS
                self._look_for_openssl(now, self._surroundings.follow(now))
            if self._roll is not None:
                self._turn(self._roll, now)
            if not self._stop and self._kernel.ring.pending() < busy:
                time.sleep(DRAIN_INTERVAL_S)
        return end_command(command)

    def _watch_openssl(self, members: set[int] | None) -> None:
        if self._openssl:
            scope_ = self._watch.scope
            self._openssl.begin(members, look_here=scope_.by_task or not scope_)

    def _look_for_openssl(self, now: int, newcomers: set[int] | None = None) -> None:
        if self._openssl:
            self._openssl.look(now, newcomers or ())

    def _turn(self, roll: Rotate | Window, now: int) -> None:
        """What a recording in segments does beside: triggers, and the change to the next segment."""
        if isinstance(roll, Window):
            if self._asked:
                self._asked = False
                roll.trigger("SIGUSR1", "")
            for text in self._alarms.due(now) if self._alarms else ():
                roll.by_expression(text, now)
        roll.tick(now)
        if self._segments.ready:
            self._change(roll)
        elif now >= self._retry_ns and not self._segments.changing and roll.is_due(self._segments, now):
            try:
                self._segments.prepare(self._surroundings, roll.with_calls)
            except OSError as error:
                self._not_changed(error)

    def _change(self, roll: Rotate | Window) -> None:
        self._kernel.ring.drain(self._write_events)
        if not self._segments.ready:
            return  # given up while writing, because the disk is full
        try:
            self._tally.add(self._surroundings.drops())
            old, counts = self._segments.change(self._surroundings, self._tally.sample())
        except Exception as error:  # noqa: BLE001 the recording goes on in the segment that there is
            self._not_changed(error)
            return
        self._tally.add(counts)
        if rows := self._guard.rows_in_force():
            self._put("limits", time.monotonic_ns(), rows)
        roll.completed(old)

    def _not_changed(self, error: Exception) -> None:
        self._segments.abandon()
        self._retry_ns = time.monotonic_ns() + RETRY_NS
        self._say(f"the segment could not be changed ({error}); it goes on")

    def _within_limits(self, now_ns: int) -> None:
        if over := self._guard.look(now_ns, self._segments.bytes_written):
            self.stop(over)
        if rows := self._guard.new_rows():
            self._put("limits", now_ns, rows)
            for sentence in limit_rows.sentences(rows, time.strftime("%H:%M:%S UTC", time.gmtime())):
                self._say(sentence)
        if self._guard.calls_are_back():
            self._surroundings.folders()

    def _room(self) -> int:
        """Bytes that may still be written, but for those that the end takes."""
        if self.options.keep.in_memory:
            return 1 << 62
        return self._guard.room(self._segments.bytes_written) - ENDING_BYTES

    def _write_events(self, span: memoryview) -> None:
        start = time.monotonic_ns()
        try:
            self._write(span)
        finally:
            self._guard.wrote(time.monotonic_ns() - start)

    def _write(self, span: memoryview) -> None:
        while True:
            try:
                if len(span) > self._room():
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._segments.events(span)
            except OSError as error:
                if not spool.is_disk_full(error):
                    raise
                if self._segments.abandon():
                    continue  # two segments at once were too much
                if self._roll is None or not self._roll.make_room():
                    with contextlib.suppress(OSError):
                        whole = records_within(span, self._room())
                        self._segments.current.write(spool.EVENTS, span[:whole])
                        self._kept_bytes = whole
                    raise
            else:
                return

    def _finish(self) -> None:
        self._segments.settle()
        surroundings = self._surroundings
        if self.options.scope.by_cgroup:
            surroundings.follow(time.monotonic_ns())
        if self._openssl:
            self._tally.add(self._openssl.counts)
        members = surroundings.members()
        waiting = surroundings.waiting(members)
        surroundings.holders(members)
        self._kernel.detach()
        self._guard.ending(time.monotonic_ns())
        while self._kernel.ring.pending():
            self._kernel.ring.drain(self._write_events)
        if self._roll is not None:
            self._roll.ending(self._stop)
        surroundings.open_calls(waiting)
        self._tally.add(surroundings.drops())
        surroundings.interfaces()
        surroundings.groups(members)
        self._counters()
        self._clock()
        self._segments.current.write_json(spool.CLOSING, {"reason": self._stop})

    def _disk_full(self) -> None:
        """What is in the ring is lost and counted; the room of the chunk that did not fit serves for the
        end.
        """
        self._stop = self._guard.why_full(self._segments.bytes_written)
        self._kernel.detach()
        self._guard.ending(time.monotonic_ns())
        lost = 0
        while self._kernel.ring.pending():
            lost += self._kernel.ring.discard()
        self._tally.add({"disk_full_bytes": lost - self._kept_bytes})
        with contextlib.suppress(OSError):
            if self._roll is not None:
                self._roll.ending(self._stop)
            if rows := self._guard.new_rows():
                self._put("limits", time.monotonic_ns(), rows)
            self._counters()
            self._clock()
            self._segments.current.write_json(spool.CLOSING, {"reason": self._stop})

    def _current(self) -> Status:
        return self._tally.status(self._began_ns, self._segments.bytes_written)


def record(
    options: RecordOptions,
    status: Callable[[Status], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Record as `options` say and leave the spool; `status` is called about once a second, `say` when a
    recording in segments has something to tell.

    Raises:
        UsageError: an option is out of range.
        RecordError: recording cannot start here, with what to do.
    """
    check(options)
    return Session(options, status, say).run()
