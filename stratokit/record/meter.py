"""Reads what a recording uses and does: from its programs' maps, its process, and the host."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any

from stratokit.record.host_load import EVENT_NS, busy_ns, programs_ns
from stratokit.record.usage import COUNTERS, Usage

if TYPE_CHECKING:
    from stratokit.record.loader import Kernel

# The kernel counts in ticks of 10 ms how busy processors are: the mean of about so long is taken.
BUSY_NS = 1_000_000_000
# Calls that are not watched are counted for a moment of each second.
GLANCE_S, GLANCE_EVERY_NS = 0.005, 1_000_000_000
_RECORDED = ("packet", "frame", "drop", "syscall", "socket", "owner", "endpoint", "process", "tls")
_COUNTED = frozenset((*(f"recorded_{name}" for name in _RECORDED), *filter(None, COUNTERS)))
_MEASURED = _RECORDED[:4]


class Meter:
    """What was used between two readings."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._before: dict[str, Any] = {}
        self._busy: float | None = None  # processors
        self._calls_per_s = 0.0  # while they are not watched
        self._next_glance_ns = 0

    def read(self, now_ns: int, written: int) -> Usage | None:
        """Since the last call; None at the first one. `written` are bytes so far."""
        before, self._before = self._before, self._reading(now_ns, written)
        return self._between(before, self._before) if before else None

    def _reading(self, now_ns: int, written: int) -> dict[str, Any]:
        return {
            "now": now_ns,
            "cpu": time.process_time_ns(),
            "busy": busy_ns(),
            "totals": self._kernel.totals(_COUNTED),
            "written": written,
            "seen": self._kernel.seen(),
            "costs": self._kernel.costs(),
        }

    def _between(self, before: dict[str, Any], now: dict[str, Any]) -> Usage:
        grown = {name: n - before["totals"][name] for name, n in now["totals"].items()}
        recorded = {name: grown[f"recorded_{name}"] for name in _RECORDED}
        span_ns = now["now"] - before["now"]
        busy = (now["busy"] - before["busy"]) / span_ns
        self._busy = (
            busy if self._busy is None else self._busy + min(span_ns / BUSY_NS, 1) * (busy - self._busy)
        )
        processors = programs_ns(before["costs"], now["costs"])
        *calls, payload, data, plaintext, _ = (
            n - old for n, old in zip(now["seen"], before["seen"], strict=True)
        )
        usage = Usage(
            span_ns=span_ns,
            written=now["written"],
            entered=self._entered(before, now, span_ns),
            recorder_ns=now["cpu"] - before["cpu"],
            other_ns=EVENT_NS * sum(n for name, n in recorded.items() if name not in _MEASURED),
            busy_ns=round(self._busy * span_ns),
            drained=now["written"] - before["written"],
            payload=payload,
            data=data,
            plaintext=plaintext,
            packets=recorded["packet"] + recorded["frame"],
            drops=recorded["drop"],
            events=sum(recorded.values()),
            calls={number: n for number, n in enumerate(calls) if n},
            shed=grown,
        )
        hot = _with_programs(dataclasses.replace(usage, recorder_ns=0, other_ns=0), max(processors, key=sum))
        total = tuple(map(sum, zip(*processors, strict=True)))
        return dataclasses.replace(_with_programs(usage, total), hot=hot)

    def _entered(self, before: dict[str, Any], now: dict[str, Any], span_ns: int) -> int:
        """System calls of the host: two programs look at each, or one now and then."""
        if self._kernel.watches_calls:
            runs, runs_then = (sum(runs for runs, _ in reading["costs"][0]) for reading in (now, before))
            self._calls_per_s = (runs - runs_then) * 0.5e9 / span_ns
        elif now["now"] >= self._next_glance_ns:
            self._next_glance_ns = now["now"] + GLANCE_EVERY_NS
            with contextlib.suppress(OSError):  # if that is not permitted, attaching them again is neither
                # A moment may be a quiet one.
                self._calls_per_s = max(self._kernel.calls_glanced(GLANCE_S), self._calls_per_s / 4)
        return round(self._calls_per_s * span_ns / 1e9)


def _with_programs(usage: Usage, times_ns: tuple[int, ...]) -> Usage:
    """Times by kind as bpf/limits.c has them."""
    calls_ns, packets_ns, drops_ns, *tls_ns = times_ns
    return dataclasses.replace(
        usage, calls_ns=calls_ns, packets_ns=packets_ns, drops_ns=drops_ns, plaintext_ns=sum(tls_ns)
    )
