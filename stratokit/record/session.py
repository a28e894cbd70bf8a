"""One recording from start to end: attach, look around, drain until it is over, leave a spool."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from stratokit.errors import RecordError, UsageError
from stratokit.formats import spool
from stratokit.record import guard, host, netns, open_calls, pidns, procfs, scope
from stratokit.record.loader import Kernel
from stratokit.record.options import IO_BYTES_MOST, SNAPLEN_MOST, RecordOptions, Result, Status
from stratokit.record.ring import records_within
from stratokit.record.watch import Watch, sockets_of
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DRAIN_INTERVAL_S = 0.05
COUNTERS_INTERVAL_NS = 1_000_000_000
CLOCK_INTERVAL_NS = 10_000_000_000
# A ring this full is drained again at once instead of after the interval.
BUSY_SHARE = 8
NICE = -15
# Left free for the last counters and the closing chunk when the disk is full.
ENDING_BYTES = 64 << 10


def check(options: RecordOptions) -> None:
    """Refuse settings out of range.

    Raises:
        UsageError: with the range.
    """
    if not 64 <= options.snaplen <= SNAPLEN_MOST:
        raise UsageError(f"--snaplen takes 64 to {SNAPLEN_MOST} bytes, not {options.snaplen}")
    if not 0 <= options.io_bytes <= IO_BYTES_MOST:
        raise UsageError(f"--io-bytes takes 0 to {IO_BYTES_MOST}, not {options.io_bytes}")
    if not 1 << 16 <= options.buffer_bytes <= 1 << 30:
        raise UsageError(f"--buffer takes 64K to 1G, not {options.buffer_bytes}")
    if options.duration_ns is not None and options.duration_ns <= 0:
        raise UsageError("--duration takes a time above zero, as 30s or 5m")
    guard.check(options)


def layouts() -> dict[str, Any]:
    """How the events of this version lie in memory, so that a later version reads them by what the file
    says.
    """
    return {
        event.name: {
            "id": event.id,
            "size": event.size,
            "fields": [[f.name, f.type, f.offset] for f in event.fields],
            "sections": [[s.name, s.length] for s in event.sections],
        }
        for event in load.events().values()
    }


class Session:
    """A recording that is under way."""

    def __init__(self, options: RecordOptions, status: Callable[[Status], None] | None) -> None:
        self._asked = options
        self.options = guard.fitted(options)
        self._status = status
        self._stop = ""
        self._began_ns: int | None = None
        self._recorder_counts: dict[str, int] = {}
        self._known_groups: set[tuple[int, str]] = set()
        self._known_interfaces: list[dict[str, Any]] = []
        self._kept_bytes = 0  # of the span that did not fit on the disk

    def run(self) -> Result:
        """Record until duration, command's end, signal, or a full disk."""
        with self._signals():
            self._watch = Watch(self.options.scope)
            self.options = dataclasses.replace(self.options, scope=self._watch.scope)
            self._kernel = Kernel(self.options, self._watch.chosen.groups)
            try:
                self._unless_stopped()
                self._guard = guard.Guard(self._asked, self.options, self._kernel)
                self._spool = spool.SpoolWriter(self.options.spool)
            except OSError as error:
                self._kernel.close()
                raise RecordError(f"cannot write {self.options.spool}: {error.strerror}") from error
            except RecordError:
                self._kernel.close()
                raise
            return self._record()

    def _record(self) -> Result:
        exit_code: int | None = None
        try:
            self._open()
            self._unless_stopped()
            command = self._start_command()
            with _urgent():
                exit_code = self._loop(command)
                self._finish()
        except RecordError:
            self.options.spool.unlink()  # it holds nothing but snapshots
            raise
        except OSError as error:
            if not spool.is_disk_full(error):
                raise RecordError(f"cannot write {self.options.spool}: {error.strerror}") from error
            self._disk_full()
        finally:
            status = self._current()
            self._spool.close()
            self._guard.close()
            self._kernel.close()
        return Result(self.options.spool, exit_code, self._stop, status)

    def stop(self, reason: str) -> None:
        """Let the recording end soon; the first reason counts."""
        self._stop = self._stop or reason

    def _unless_stopped(self) -> None:
        if self._stop:
            raise RecordError(f"{self._stop} before the recording began; nothing was recorded")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        handled = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
        before = {
            number: signal.signal(number, lambda n, _: self.stop(handled[signal.Signals(n)]))
            for number in handled
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _open(self) -> None:
        """Opening chunk, attach, then the snapshots: what begins between both is in the events."""
        options = dataclasses.asdict(self.options) | {"output": None, "spool": None}
        self._spool.write_json(
            spool.OPENING,
            {
                "tool": "stratokit",
                "host": host.facts(),
                "options": options,
                "programs": self._kernel.names,
                "syscalls": sorted(self._kernel.syscalls),
                "events": layouts(),
                "has_btf": bool(self._kernel.offsets),
                "self_pid": self._kernel.pid,
            },
        )
        self._clock()
        self._kernel.attach()
        self._proc_agrees = pidns.proc_agrees(self._kernel.pid)
        members = self._watch.begin(self._kernel, self._proc_agrees)
        seen = procfs.ProcSnapshot()
        if self._proc_agrees:
            seen = procfs.snapshot(self._kernel.pid, only=members)
            self._recorder_counts |= {"process_gone": seen.gone, "process_unreadable": seen.unreadable}
            self._table("processes", seen.processes)
            self._table("descriptors", seen.descriptors)
        else:
            self._recorder_counts["proc_foreign"] = 1
        networks = netns.snapshot()
        self._recorder_counts["namespace_unreadable"] = networks.unreadable
        self._sockets(networks.sockets, seen)
        self._interfaces(networks.interfaces)
        self._groups(members)

    def _sockets(self, rows: list[dict[str, Any]], seen: procfs.ProcSnapshot) -> None:
        """Note sockets, of a scope those that its processes hold."""
        if self.options.scope:
            rows = sockets_of(rows, seen)
            self._kernel.choose_sockets(row["socket_cookie"] for row in rows)
        self._table("sockets", rows)

    def _groups(self, members: set[int] | None) -> None:
        """Note containers and cgroups that are not noted yet."""
        if boxes := self._watch.container_rows(members):
            self._table("containers", boxes)
        rows = self._watch.cgroup_rows(members)
        if (new := [row for row in rows if row not in self._known_groups]) or not self._known_groups:
            self._table("cgroups", new)
        self._known_groups.update(rows)

    def _follow(self, now_ns: int) -> None:
        """Containers come and go: attach to those that are chosen, and note who was in them already."""
        newcomers = self._watch.look_again(self._kernel, now_ns)
        if newcomers is None:
            return
        if newcomers:
            seen = procfs.snapshot(self._kernel.pid, only=newcomers)
            self._table("processes", [row | {"at_ns": now_ns} for row in seen.processes])
            self._table("descriptors", seen.descriptors)
            self._sockets(netns.snapshot().sockets, seen)
        self._groups(self._watch.members(self._kernel))

    def _interfaces(self, rows: list[dict[str, Any]]) -> None:
        """Note those that are new or have changed."""
        if new := [row for row in rows if row not in self._known_interfaces]:
            self._known_interfaces += new
            self._table("interfaces", new)

    def _table(self, name: str, rows: list[Any]) -> None:
        now = time.monotonic_ns()
        self._spool.write_json(spool.TABLE, {"table": name, "monotonic_ns": now, "rows": rows})

    def _clock(self) -> None:
        self._spool.write_json(spool.CLOCK, host.clock_pair())

    def _counters(self) -> None:
        totals = self._kernel.totals() | self._recorder_counts | self._guard.counts
        counted = {name: amount for name, amount in totals.items() if amount}
        self._spool.write_json(spool.COUNTERS, {"monotonic_ns": time.monotonic_ns(), "totals": counted})

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
            self._guard.poll(now)
            if now >= next_counters:
                next_counters = now + COUNTERS_INTERVAL_NS
                self._within_limits(now)
                self._counters()
                if self._status:
                    self._status(self._current())
            if now >= next_clock:
                next_clock = now + CLOCK_INTERVAL_NS
                self._clock()
                self._interfaces(netns.snapshot(with_sockets=False).interfaces)
            if next_look is not None and now >= next_look:
                next_look = now + scope.INTERVAL_NS
                self._follow(now)
            if not self._stop and self._kernel.ring.pending() < busy:
                time.sleep(DRAIN_INTERVAL_S)
        return _end_command(command)

    def _within_limits(self, now_ns: int) -> None:
        if over := self._guard.look(now_ns, self._kernel.totals(), self._spool.bytes_written):
            self.stop(over)
        if rows := self._guard.new_rows():
            self._table("limits", rows)

    def _write_events(self, span: memoryview) -> None:
        start = time.monotonic_ns()
        try:
            if len(span) > self._guard.room(self._spool.bytes_written) - ENDING_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._spool.write(spool.EVENTS, span)
        except OSError as error:
            if spool.is_disk_full(error):
                with contextlib.suppress(OSError):
                    room = self._guard.room(self._spool.bytes_written)
                    whole = records_within(span, room - ENDING_BYTES)
                    self._spool.write(spool.EVENTS, span[:whole])
                    self._kept_bytes = whole
            raise
        finally:
            self._guard.wrote(time.monotonic_ns() - start)

    def _finish(self) -> None:
        if self.options.scope.by_cgroup:
            self._follow(time.monotonic_ns())
        members = self._watch.members(self._kernel)
        waiting = open_calls.waiting(only=members) if self._proc_agrees else []
        self._kernel.detach()
        while self._kernel.ring.pending():
            self._kernel.ring.drain(self._write_events)
        self._table(
            "open_calls",
            open_calls.rows(waiting, self._kernel.open_since, lambda: netns.snapshot().sockets),
        )
        self._interfaces(netns.snapshot(with_sockets=False).interfaces)
        self._groups(members)
        self._counters()
        self._clock()
        self._spool.write_json(spool.CLOSING, {"reason": self._stop})

    def _disk_full(self) -> None:
        """What is in the ring is lost and counted; the room of the chunk that did not fit serves for the
        end.
        """
        self._stop = self._guard.why_full(self._spool.bytes_written)
        self._kernel.detach()
        lost = 0
        while self._kernel.ring.pending():
            lost += self._kernel.ring.discard()
        self._recorder_counts["disk_full_bytes"] = lost - self._kept_bytes
        with contextlib.suppress(OSError):
            if rows := self._guard.new_rows():
                self._table("limits", rows)
            self._counters()
            self._clock()
            self._spool.write_json(spool.CLOSING, {"reason": self._stop})

    def _current(self) -> Status:
        totals = self._kernel.totals() | self._recorder_counts | self._guard.counts
        counters = load.counters()
        prefix = "recorded_"
        return Status(
            0 if self._began_ns is None else time.monotonic_ns() - self._began_ns,
            {name.removeprefix(prefix): n for name, n in totals.items() if name.startswith(prefix)},
            self._spool.bytes_written,
            {name: n for name, n in totals.items() if n and name in counters and counters[name].loss},
        )


@contextlib.contextmanager
def _urgent() -> Iterator[None]:
    """Ahead of other programs where that is permitted: the ring buffer must not overflow because the host is
    busy, and a busy host is what recordings are made for.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, min(before, NICE))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _end_command(command: subprocess.Popen[bytes] | None) -> int | None:
    """Exit code of the command; one that still runs gets SIGTERM, and after five seconds SIGKILL."""
    if command is None:
        return None
    if command.poll() is None:
        command.terminate()
    try:
        return command.wait(timeout=5)
    except subprocess.TimeoutExpired:
        command.kill()
        return command.wait()


def record(options: RecordOptions, status: Callable[[Status], None] | None = None) -> Result:
    """Record as `options` say and leave the spool; `status` is called about once a second.

    Raises:
        UsageError: an option is out of range.
        RecordError: recording cannot start here, with what to do.
    """
    check(options)
    return Session(options, status).run()
