"""Keeping within `--max-cpu` and `--max-disk`: which step is taken when, and when it is taken back.

What costs most and tells least goes first, one step a look; a step that would save little is passed over. A
step is taken back when what it left out has become so rare that recording it would fit again. Each step is a
row that the file keeps. No clocks or kernels here: `Limiter.look` is told what was used.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from stratokit.record.options import Limits

PAYLOAD, DATA, PLAINTEXT, BUSY_CALLS, DROPS, PACKETS, CALLS = range(7)
STEPS = (
    "packet payload",
    "data of system calls",
    "plaintext of TLS",
    "busy system calls",
    "dropped packets",
    "packets",
    "system calls",
)
# Counts what each leaves out.
COUNTERS = (
    "packet_payload_shed",
    "syscall_data_shed",
    "tls_shed_bytes",
    "syscall_shed",
    "drop_shed",
    "packet_shed",
    "syscall_shed",
)
# A step that would save less of the whole is passed over.
WORTH = 0.1
# Busy calls are the most frequent ones that make up so much of all.
BUSY_SHARE = 0.8
# What is taken back must leave so much of the limit unused.
COMFORT = 0.8
# A step is held so long before it is taken back, twice as long each time that it had to be taken again.
HOLD_NS = 2_000_000_000
HOLD_MOST_NS = 64_000_000_000
# The file holds so many rows, which is enough to see what happened.
ROWS_MOST = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What was used and done between two looks, `span_ns` apart; `written` is the total so far.

    `payload`, `data` and `plaintext` are recorded bytes of these kinds, `drained` of all; `packets`, `drops`
    and `events` are numbers of records, `calls` those of each system call by number, `shed` what was left out
    by counter.
    """

    span_ns: int
    cpu_ns: int
    written: int
    drained: int = 0
    payload: int = 0
    data: int = 0
    plaintext: int = 0
    packets: int = 0
    drops: int = 0
    events: int = 0
    calls: dict[int, int] = dataclasses.field(default_factory=dict)
    shed: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class _Taken:
    step: int
    because: str
    at_ns: int
    used: float  # share of a processor before it
    share: float  # of the cost, that it was to save
    calls: frozenset[int] = frozenset()
    saved: float | None = None  # share of a processor, known one look later
    rate: float = 0.0  # left out a second, at first


class Limiter:
    """Decides. `taken` are the steps in force, in order; `rows` all that was decided, for the file."""

    def __init__(self, limits: Limits, spared: Collection[int] = ()) -> None:
        """`spared`: calls that are never left out."""
        self._limits = limits
        self._spared = frozenset(spared)
        self._taken: list[_Taken] = []
        self._holds: dict[int, int] = {}
        self._returned_ns: dict[int, int] = {}
        self._exhausted: set[str] = set()
        self.rows: list[dict[str, Any]] = []
        self.decisions = 0

    @property
    def steps(self) -> frozenset[int]:
        """Steps in force."""
        return frozenset(taken.step for taken in self._taken)

    @property
    def calls(self) -> frozenset[int]:
        """System calls that are left out by name; with CALLS all are but the spared ones."""
        return frozenset().union(*(taken.calls for taken in self._taken))

    def look(self, now_ns: int, usage: Usage) -> bool:
        """Take a step or one back; True when `steps` or `calls` have changed."""
        used = usage.cpu_ns / max(usage.span_ns, 1)
        if self._taken and self._taken[-1].saved is None:
            last = self._taken[-1]
            # Not more than it was to save: the rest is load that went at the same time.
            last.saved = min(max(last.used - used, 0.0), last.share * last.used)
            last.rate = _rate(last.step, usage)
        for because, amount, allowed in self._over(used, usage.written):
            return self._take(now_ns, usage, because, amount, allowed)
        return self._take_back(now_ns, usage, used)

    def _over(self, used: float, written: int) -> list[tuple[str, float, float]]:
        found = []
        if self._limits.cpu is not None and used > self._limits.cpu:
            found.append(("cpu", round(used, 4), self._limits.cpu))
        if self._limits.disk_bytes is not None and written > self._disk_mark():
            found.append(("disk", float(written), float(self._limits.disk_bytes)))
        return found

    def _disk_mark(self) -> float:
        """The next step is due when half is used of what was left at the one before."""
        before = sum(taken.because == "disk" for taken in self._taken)
        return float(self._limits.disk_bytes or 0) * (1 - 0.5 ** (before + 1))

    def _take(self, now_ns: int, usage: Usage, because: str, used: float, allowed: float) -> bool:
        for step in range(len(STEPS)):
            share = _share(step, usage, self._spared)
            if step in self.steps or share < WORTH:
                continue
            calls = _busy(usage, self._spared) if step == BUSY_CALLS else frozenset()
            cpu = usage.cpu_ns / max(usage.span_ns, 1)
            self._taken.append(_Taken(step, because, now_ns, cpu, share, calls))
            again = now_ns - self._returned_ns.get(step, -HOLD_MOST_NS) < HOLD_MOST_NS
            self._holds[step] = min(2 * self._holds.get(step, HOLD_NS), HOLD_MOST_NS) if again else HOLD_NS
            self._row(now_ns, STEPS[step], "left out", because, used, allowed, calls)
            self._exhausted.clear()
            return True
        if because not in self._exhausted:
            self._exhausted.add(because)
            self._row(now_ns, "", "nothing more to leave out", because, used, allowed)
        return False

    def _take_back(self, now_ns: int, usage: Usage, used: float) -> bool:
        if not self._taken:
            return False
        last = self._taken[-1]
        if last.because == "disk":
            if usage.written > self._disk_mark_before():
                return False
        elif self._limits.cpu is None or now_ns - last.at_ns < self._holds[last.step] or last.saved is None:
            return False
        else:
            now = _rate(last.step, usage)
            back = last.saved * (now / last.rate if last.rate else 1.0) if now else 0.0
            if now_ns - last.at_ns >= HOLD_MOST_NS:
                back = 0.0  # what was foreseen so long ago is worth a try
            if used + back > COMFORT * self._limits.cpu:
                return False
        self._taken.pop()
        self._returned_ns[last.step] = now_ns
        self._exhausted.clear()
        allowed = self._limits.cpu if last.because == "cpu" else self._limits.disk_bytes
        amount = round(used, 4) if last.because == "cpu" else float(usage.written)
        self._row(
            now_ns, STEPS[last.step], "recorded again", last.because, amount, float(allowed or 0), last.calls
        )
        return True

    def _disk_mark_before(self) -> float:
        """Below this the last step for the disk was not due: older files of a rotation have gone."""
        before = sum(taken.because == "disk" for taken in self._taken)
        return COMFORT * float(self._limits.disk_bytes or 0) * (1 - 0.5**before)

    def note(self, now_ns: int, step: str, because: str, used: float, allowed: float) -> None:
        """A decision that was made elsewhere: a smaller buffer, the end."""
        self._row(now_ns, step, "", because, used, allowed)

    def _row(
        self,
        now_ns: int,
        step: str,
        action: str,
        because: str,
        used: float,
        allowed: float,
        calls: frozenset[int] = frozenset(),
    ) -> None:
        self.decisions += 1
        if len(self.rows) < ROWS_MOST:
            row = {"at_ns": now_ns, "step": step, "action": action, "because": because}
            self.rows.append(row | {"used": used, "allowed": allowed, "calls": sorted(calls)})


def _share(step: int, usage: Usage, spared: Collection[int]) -> float:
    """How much of the cost a step would save, about: by bytes where it leaves out bytes, else by records."""
    if step == PAYLOAD:
        return usage.payload / max(usage.drained, 1)
    if step == DATA:
        return usage.data / max(usage.drained, 1)
    if step == PLAINTEXT:
        return usage.plaintext / max(usage.drained, 1)
    if step == DROPS:
        return usage.drops / max(usage.events, 1)
    if step == PACKETS:
        return usage.packets / max(usage.events, 1)
    chosen = _busy(usage, spared) if step == BUSY_CALLS else usage.calls.keys() - frozenset(spared)
    return sum(usage.calls[call] for call in chosen) / max(usage.events, 1)


def _busy(usage: Usage, spared: Collection[int]) -> frozenset[int]:
    """The most frequent calls, until they make up BUSY_SHARE of all that may be left out."""
    found = {call: n for call, n in usage.calls.items() if n and call not in spared}
    total, sum_, chosen = sum(found.values()), 0, set()
    for call in sorted(found, key=lambda call: -found[call]):
        if sum_ >= BUSY_SHARE * total:
            break
        chosen.add(call)
        sum_ += found[call]
    return frozenset(chosen)


def _rate(step: int, usage: Usage) -> float:
    return usage.shed.get(COUNTERS[step], 0) * 1e9 / max(usage.span_ns, 1)
