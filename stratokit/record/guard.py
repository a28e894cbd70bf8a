"""Watches over what a recording uses, and has it use less: the part of `limits` that touches the host."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from stratokit.errors import RecordError, UsageError
from stratokit.record import limits, specs
from stratokit.record.host_load import Disk, ProgramTime, anonymous_bytes, maps_bytes

if TYPE_CHECKING:
    from stratokit.record.loader import Kernel
    from stratokit.record.options import RecordOptions

LOOK_NS = 1_000_000_000
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
# bpf/limits.c
_BITS = {
    limits.PAYLOAD: 1,
    limits.DATA: 2,
    limits.PACKETS: 4,
    limits.PLAINTEXT: 8,
    limits.DROPS: 16,
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
    """Looks once a second. `rows` are the decisions that the file does not hold yet."""

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
        # Calls without which packets had no owners are no cost that could be saved.
        self._limiter = limits.Limiter(self._limits, specs.owner_calls())
        self._programs = ProgramTime(kernel.program_fds) if self._limits.cpu is not None else None
        self._told = 0
        self.counts: dict[str, int] = {}
        self._maps = 0
        if self._limits.memory_bytes is not None:
            self._maps = maps_bytes()
            if asked.buffer_bytes != options.buffer_bytes:
                step = f"a buffer of {options.buffer_bytes >> 10} KB instead of {asked.buffer_bytes >> 10} KB"
                self._note(time.monotonic_ns(), step, "memory", asked.buffer_bytes, self._limits.memory_bytes)
        self._before: dict[str, Any] = {}

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

    def poll(self, now_ns: int) -> None:
        """Called often."""
        if self._programs:
            self._programs.end(now_ns)

    def look(self, now_ns: int, totals: dict[str, int], written: int) -> str:
        """Called once a second: take what steps are due. Returns why the recording has to end, or nothing."""
        most = self._limits.memory_bytes
        if most is not None and (used := anonymous_bytes() + self._maps) > most:
            self._note(now_ns, _END, "memory", used, most)
            return OVER_MEMORY
        if not self._limits.shed:
            return ""
        now = self._reading(now_ns, totals, written)
        # The first span holds the start, which is no load.
        if self._before and self._limiter.look(now_ns, self._between(now)):
            self._apply()
        self._before = now
        self.counts["limit_steps"] = self._limiter.decisions
        if self._programs:
            self._programs.begin(now_ns)
        return ""

    def new_rows(self) -> list[dict[str, Any]]:
        """Decisions since the last call."""
        found = self._limiter.rows[self._told :]
        self._told = len(self._limiter.rows)
        return found

    def rows_in_force(self) -> list[dict[str, Any]]:
        """Rows of the steps in force, for a file that begins now."""
        names = {limits.STEPS[step] for step in self._limiter.steps}
        last = {row["step"]: row for row in self._limiter.rows if row["step"] in names}
        return list(last.values())

    def close(self) -> None:
        """Nothing is measured any longer."""
        if self._programs:
            self._programs.close()

    def _note(self, now_ns: int, step: str, because: str, used: int, allowed: int) -> None:
        self._limiter.note(now_ns, step, because, float(used), float(allowed))
        self.counts["limit_steps"] = self._limiter.decisions

    def _reading(self, now_ns: int, totals: dict[str, int], written: int) -> dict[str, Any]:
        return {
            "now": now_ns,
            "cpu": time.process_time_ns(),
            "totals": totals,
            "written": written,
            "seen": self._kernel.seen() if self._limits.shed else (),
        }

    def _between(self, now: dict[str, Any]) -> limits.Usage:
        before = self._before
        grown = {name: n - before["totals"].get(name, 0) for name, n in now["totals"].items()}
        events = sum(n for name, n in grown.items() if name.startswith("recorded_"))
        seen = events + sum(grown.get(name, 0) for name in ("packet_shed", "syscall_shed", "drop_shed"))
        span = now["now"] - before["now"]
        *calls, payload, data, plaintext, _ = (
            n - old for n, old in zip(now["seen"], before["seen"], strict=True)
        )
        programs = self._programs.spent_ns(span, seen) if self._programs else 0
        return limits.Usage(
            span_ns=span,
            cpu_ns=now["cpu"] - before["cpu"] + programs,
            written=now["written"],
            drained=now["written"] - before["written"],
            payload=payload,
            data=data,
            plaintext=plaintext,
            packets=grown.get("recorded_packet", 0) + grown.get("recorded_frame", 0),
            drops=grown.get("recorded_drop", 0),
            events=events,
            calls={number: n for number, n in enumerate(calls) if n},
            shed={name: grown.get(name, 0) for name in limits.COUNTERS},
        )

    def _apply(self) -> None:
        steps = self._limiter.steps
        bits = sum(bit for step, bit in _BITS.items() if step in steps)
        self._kernel.shed(
            bits, self._kernel.recorded_calls() if limits.CALLS in steps else self._limiter.calls
        )
