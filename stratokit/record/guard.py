"""Watches over what a recording uses, and has it use less: the part of `limits` that touches the host."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from stratokit.errors import RecordError, UsageError
from stratokit.record import limits, specs
from stratokit.record.host_load import Disk, anonymous_bytes, maps_bytes
from stratokit.record.meter import Meter
from stratokit.record.usage import CALLS, DATA, DROPS, PACKETS, PAYLOAD, PLAINTEXT, STEPS

if TYPE_CHECKING:
    from stratokit.record.loader import Kernel
    from stratokit.record.options import RecordOptions

# A look takes half a millisecond; it is taken more often where a step may be due soon.
LOOK_NS, TENSE_LOOK_NS = 250_000_000, 100_000_000
MEMORY_LOOK_NS = 1_000_000_000
SLOW_WRITE_NS = 250_000_000
# Python, what the compiler leaves, and all maps but the buffer; measured: 35 MB and 8 to 25 MB.
BASE_BYTES = 64 << 20
SMALLEST_BUFFER = 1 << 20
OVER_MEMORY, OVER_DISK, LITTLE_FREE = "--max-memory reached", "--max-disk reached", "little free disk left"
DISK_FULL = "disk full"
# Why a recording ended that was to go on, and how the user is told.
ENDED_EARLY = {
    DISK_FULL: "the disk is full",
    LITTLE_FREE: "the disk is nearly full (--min-free)",
    OVER_DISK: "as much was written as --max-disk allows",
    OVER_MEMORY: "more memory was needed than --max-memory allows",
}
_END = "end of the recording"
_MS = 1_000_000
# bpf/limits.c
_BITS = {
    PAYLOAD: 1,
    DATA: 2,
    PACKETS: 4,
    PLAINTEXT: 8,
    DROPS: 16,
    CALLS: 32,
}


def check(options: RecordOptions) -> None:
    """Refuse limits that no recording can keep.

    Raises:
        UsageError: with the least that is possible.
    """
    least = BASE_BYTES + SMALLEST_BUFFER
    wanted = options.limits
    if wanted.memory_bytes is not None and wanted.memory_bytes < least:
        raise UsageError(f"--max-memory takes {least >> 20}M or more, not {wanted.memory_bytes}")
    if wanted.disk_bytes is not None and wanted.disk_bytes < 1 << 20:
        raise UsageError(f"--max-disk takes 1M or more, not {wanted.disk_bytes}")


def fitted(options: RecordOptions) -> RecordOptions:
    """With a buffer that leaves room for the rest within `--max-memory`."""
    most = options.limits.memory_bytes
    if most is None or options.buffer_bytes <= most - BASE_BYTES:
        return options
    return dataclasses.replace(options, buffer_bytes=1 << (most - BASE_BYTES).bit_length() - 1)


class Guard:
    """Looks several times a second. `rows` are the decisions that the file does not hold yet."""

    def __init__(self, asked: RecordOptions, options: RecordOptions, kernel: Kernel) -> None:
        """`asked` before the buffer was fitted.

        Raises:
            RecordError: less of the disk is free than has to stay free.
        """
        self._limits = options.limits
        self._kernel = kernel
        self._disk = Disk(options.spool.parent, self._limits.disk_bytes, self._limits.free_bytes)
        if self._disk.room(0) <= 0:
            floor = self._disk.floor
            least = f"{floor >> 20} MB" if floor >> 20 else f"{floor} bytes"
            free = f"less than {least}" if floor else "no bytes"
            raise RecordError(
                f"{free} of the disk of {options.spool.parent} are free; "
                "write to another with -o, or say with --min-free what shall stay free"
            )
        # Those without which packets had no owners are not left out by name.
        self._limiter = limits.Limiter(self._limits, specs.owner_calls())
        self._next_look_ns = self._next_memory_look_ns = 0
        self._left_calls_ns: int | None = None
        self._calls_are_back = False
        self._unwatched_ns = 0
        self._told = 0
        self.counts: dict[str, int] = {}
        self._maps = 0
        if self._limits.memory_bytes is not None:
            self._maps = maps_bytes()
            if asked.buffer_bytes != options.buffer_bytes:
                step = f"a buffer of {options.buffer_bytes >> 10} KB instead of {asked.buffer_bytes >> 10} KB"
                self._note(time.monotonic_ns(), step, "memory", asked.buffer_bytes, self._limits.memory_bytes)
        self._meter = Meter(kernel)

    def room(self, written: int) -> int:
        """Bytes that may still be written."""
        return self._disk.room(written)

    def why_full(self, written: int) -> str:
        """Why there is no more room; DISK_FULL where the file system itself has none. It becomes a row."""
        if (
            self._limits.disk_bytes is not None
            and written + self._disk.room(written) >= self._limits.disk_bytes
        ):
            self._note(time.monotonic_ns(), _END, "disk", written, self._limits.disk_bytes)
            return OVER_DISK
        return LITTLE_FREE if self._disk.floor else DISK_FULL

    def wrote(self, took_ns: int) -> None:
        """A write to the disk has ended."""
        if took_ns > SLOW_WRITE_NS:
            self.counts["disk_slow"] = self.counts.get("disk_slow", 0) + 1

    def look(self, now_ns: int, written: int) -> str:
        """Called often: take what steps are due. Returns why the recording has to end, or nothing."""
        most = self._limits.memory_bytes
        if most is not None and now_ns >= self._next_memory_look_ns:
            self._next_memory_look_ns = now_ns + MEMORY_LOOK_NS
            if (used := anonymous_bytes() + self._maps) > most:
                self._note(now_ns, _END, "memory", used, most)
                return OVER_MEMORY
        if self._limits.shed and now_ns >= self._next_look_ns:
            self._look(now_ns, written)
        return ""

    def _look(self, now_ns: int, written: int) -> None:
        tense = False
        if (usage := self._meter.read(now_ns, written)) is not None:
            if self._limiter.look(now_ns, usage):
                self._apply(now_ns)
            tense = self._limiter.is_tense(usage)
        self._count_unwatched(now_ns)
        self.counts["limit_steps"] = self._limiter.decisions
        self._next_look_ns = now_ns + (TENSE_LOOK_NS if tense else LOOK_NS)

    def ending(self, now_ns: int) -> None:
        """Nothing is watched any longer."""
        self._count_unwatched(now_ns)

    def _count_unwatched(self, now_ns: int) -> None:
        if self._left_calls_ns is not None:
            self._unwatched_ns += now_ns - self._left_calls_ns
            self._left_calls_ns = now_ns
            self.counts["syscall_unwatched_ms"] = self._unwatched_ns // _MS

    def new_rows(self) -> list[dict[str, Any]]:
        """Decisions since the last call."""
        found = self._limiter.rows[self._told :]
        self._told = len(self._limiter.rows)
        return found

    def calls_are_back(self) -> bool:
        """Whether they are watched again since this was asked last."""
        back, self._calls_are_back = self._calls_are_back, False
        return back

    def rows_in_force(self) -> list[dict[str, Any]]:
        """Rows of the steps in force, for a file that begins now."""
        names = {STEPS[step] for step in self._limiter.steps}
        last = {row["step"]: row for row in self._limiter.rows if row["step"] in names}
        return list(last.values())

    def _note(self, now_ns: int, step: str, because: str, used: int, allowed: int) -> None:
        self._limiter.note(now_ns, step, because, float(used), float(allowed))
        self.counts["limit_steps"] = self._limiter.decisions

    def _apply(self, now_ns: int) -> None:
        steps = self._limiter.steps
        bits = sum(bit for step, bit in _BITS.items() if step in steps)
        leaves = CALLS in steps
        if not self._kernel.can_leave_calls:
            self._kernel.shed(bits, self._kernel.recorded_calls() if leaves else self._limiter.calls)
            return
        # At any time one of both tells owners of sockets: the calls, or what SHED_CALLS has programs do.
        if self._left_calls_ns is not None and not leaves:
            self._take_calls()
        self._kernel.shed(bits | (self._left_calls_ns is not None) * _BITS[CALLS], self._limiter.calls)
        if self._left_calls_ns is None and leaves:
            self._kernel.leave_calls()
            self._left_calls_ns = now_ns

    def _take_calls(self) -> None:
        try:
            self._kernel.take_calls()
        except RecordError:  # the kernel wants privileges for it that were given up
            self._kernel.leave_calls()
            self._limiter.refused()
            return
        self._count_unwatched(time.monotonic_ns())
        self._left_calls_ns = None
        self._calls_are_back = True
