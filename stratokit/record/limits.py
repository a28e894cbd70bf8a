"""Keeping within `--max-cpu`, `--max-disk` and the default limit: which step is taken when, and taken back.

What tells least for what it costs goes first; all steps that are needed are taken in one look, as far as it
can be foreseen what they save, and none that is not. The more too much is used, the sooner. A step is taken
back when what it left out has become so rare that recording it would fit again. Each step is a row that the
file keeps. No clocks or kernels here: `Limiter.look` is told what was used.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from stratokit.record.limit_rows import BACK, LEFT_OUT, NOTHING_MORE
from stratokit.record.usage import BUSY_CALLS, CALLS, STEPS, busy, bytes_share, foreseen, rate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from stratokit.record.options import Limits
    from stratokit.record.usage import Usage

# A step that would save less of the whole is passed over.
WORTH = 0.1
# What is taken back must leave so much of the limit unused. Above half of it more looks are taken.
COMFORT, TENSE = 0.8, 0.5
# So much too much may be used before a step is taken: a second of the limit, as a tenth of a second at eleven
# times the limit. A short burst is recorded.
PATIENCE_NS = 1_000_000_000
# After a change that what is in the buffer is written first.
SETTLE_NS = 200_000_000
# A step is held so long before it is taken back, twice as long each time that it had to be taken again.
HOLD_NS, HOLD_MOST_NS = 2_000_000_000, 64_000_000_000
CALM_NS = 1_000_000_000
# After so many times as long it is tried whether what was foreseen is still true.
TRIAL_HOLDS, TRIAL_MOST_NS = 16, 512_000_000_000
# The file holds so many rows, which is enough to see what happened.
ROWS_MOST = 1000


@dataclasses.dataclass(slots=True)
class _Taken:
    step: int
    because: str
    at_ns: int
    before: float  # what was used before it, in limits
    part: float  # of it, that it was to save
    parts: float  # that it and those taken with it were to save
    calls: frozenset[int] = frozenset()
    saved: float | None = None  # of the limit, known when it has settled
    rate: float = 0.0  # left out a second, at first
    fits_since_ns: int | None = None


class Limiter:
    """Decides. `steps` are in force; `rows` are all that was decided, for the file."""

    def __init__(self, limits: Limits, spared: Collection[int] = ()) -> None:
        """`spared`: calls that are never left out by name."""
        self._limits = limits
        self._spared = frozenset(spared)
        self._taken: list[_Taken] = []
        self._holds: dict[int, int] = {}
        self._returned_ns: dict[int, int] = {}
        self._exhausted: set[str] = set()
        self._too_much_ns = 0.0  # in nanoseconds of the limit
        self._changed_ns = -SETTLE_NS
        self.rows: list[dict[str, Any]] = []
        self.decisions = 0

    @property
    def steps(self) -> frozenset[int]:
        """Steps in force."""
        return frozenset(taken.step for taken in self._taken)

    @property
    def calls(self) -> frozenset[int]:
        """System calls that are left out by name."""
        return frozenset().union(*(taken.calls for taken in self._taken))

    def is_tense(self, usage: Usage) -> bool:
        """Whether a step may be due soon."""
        return self._too_much_ns > 0 or self._pressure(usage) > TENSE

    def _measures(self, usage: Usage) -> Iterator[tuple[Usage, float]]:
        """What is bounded, and the share of one processor that it may take."""
        if self._limits.cpu is not None:
            yield usage, self._limits.cpu
        elif self._limits.busy_share is not None:
            yield usage, self._limits.busy_share * max(1.0, usage.busy_ns / max(usage.span_ns, 1))
            if usage.hot is not None:
                yield usage.hot, self._limits.busy_share

    def _pressure(self, usage: Usage, steps: Collection[int] = ()) -> float:
        """How much of the limit would have been used with these steps too: 1 is all of it."""
        shares = (
            foreseen(part, steps, self._spared) / max(part.span_ns, 1) / allowed
            for part, allowed in self._measures(usage)
        )
        return max(shares, default=0.0)

    def _amounts(self, usage: Usage) -> tuple[float, float]:
        """What is used and allowed, as shares of a processor, of the measure that is nearest to its limit."""
        amounts = [(part.cpu_ns / max(part.span_ns, 1), allowed) for part, allowed in self._measures(usage)]
        return max(amounts, key=lambda amount: amount[0] / amount[1])

    def look(self, now_ns: int, usage: Usage) -> bool:
        """Take steps or one back; True when `steps` or `calls` have changed."""
        pressure = self._pressure(usage)
        self._too_much_ns = max(self._too_much_ns + (pressure - 1) * usage.span_ns, 0.0)
        if now_ns - self._changed_ns < SETTLE_NS:
            self._too_much_ns = 0.0
            return False
        self._settle(pressure, usage)
        changed = False
        if self._limits.disk_bytes is not None and usage.written > self._disk_mark():
            changed = self._take_for_disk(now_ns, usage, pressure)
        elif pressure > 1 and self._too_much_ns >= PATIENCE_NS:
            changed = self._take_for_cpu(now_ns, usage, pressure)
        else:
            changed = self._take_back(now_ns, usage, pressure)
        if changed:
            self._changed_ns = now_ns
            self._too_much_ns = 0.0
        return changed

    def _settle(self, pressure: float, usage: Usage) -> None:
        for taken in self._taken:
            if taken.saved is None:
                # Not more than it was to save: the rest is load that went at the same time.
                share = max(taken.before - pressure, 0.0) / max(taken.parts, 1e-9)
                taken.saved = taken.part * min(share, 1.0)
                taken.rate = taken.rate or rate(taken.step, usage)

    def _disk_mark(self) -> float:
        """The next step is due when half is used of what was left at the one before."""
        before = sum(taken.because == "disk" for taken in self._taken)
        return float(self._limits.disk_bytes or 0) * (1 - 0.5 ** (before + 1))

    def _take_for_disk(self, now_ns: int, usage: Usage, pressure: float) -> bool:
        amounts = (float(usage.written), float(self._limits.disk_bytes or 0))
        for step in range(len(STEPS)):
            if step not in self.steps and bytes_share(step, usage, self._spared) >= WORTH:
                self._take(now_ns, usage, "disk", pressure, [step], amounts)
                return True
        return self._nothing_more(now_ns, "disk", amounts)

    def _take_for_cpu(self, now_ns: int, usage: Usage, pressure: float) -> bool:
        """All steps that are needed, and of these none that the others make needless."""
        because = "cpu" if self._limits.cpu is not None else "load"
        chosen: list[int] = []
        left = pressure
        for step in range(len(STEPS)):
            if left <= 1:
                break
            lower = self._pressure(usage, [*chosen, step])
            if step not in self.steps and left - lower >= WORTH * pressure:
                chosen.append(step)
                left = lower
        for step in reversed(chosen[:-1]):
            others = [other for other in chosen if other != step]
            if self._pressure(usage, others) <= max(left, 1):
                chosen = others
        if not chosen:
            return self._nothing_more(now_ns, because, self._amounts(usage))
        self._take(now_ns, usage, because, pressure, chosen, self._amounts(usage))
        return True

    def _take(
        self,
        now_ns: int,
        usage: Usage,
        because: str,
        pressure: float,
        steps: list[int],
        amounts: tuple[float, float],
    ) -> None:
        lower = [self._pressure(usage, steps[:count]) for count in range(len(steps) + 1)]
        for step, before, after in zip(steps, lower[:-1], lower[1:], strict=True):
            calls = busy(usage, self._spared) if step == BUSY_CALLS else frozenset()
            taken = _Taken(step, because, now_ns, pressure, before - after, lower[0] - lower[-1], calls)
            if step == CALLS:
                taken.rate = rate(step, usage)  # of others only what is left out is counted
            self._taken.append(taken)
            again = now_ns - self._returned_ns.get(step, -HOLD_MOST_NS) < HOLD_MOST_NS
            self._holds[step] = min(2 * self._holds.get(step, HOLD_NS), HOLD_MOST_NS) if again else HOLD_NS
            self._row(now_ns, STEPS[step], LEFT_OUT, because, amounts, calls)
        self._exhausted.clear()

    def _nothing_more(self, now_ns: int, because: str, amounts: tuple[float, float]) -> bool:
        if because not in self._exhausted:
            self._exhausted.add(because)
            self._row(now_ns, "", NOTHING_MORE, because, amounts)
        return False

    def _take_back(self, now_ns: int, usage: Usage, pressure: float) -> bool:
        """The last one that fits: what tells most."""
        for taken in reversed(self._taken):
            if taken.because == "disk":
                fits = usage.written <= self._disk_mark_before()
                amounts = (float(usage.written), float(self._limits.disk_bytes or 0))
            else:
                fits = self._fits(taken, now_ns, usage, pressure)
                amounts = self._amounts(usage)
            if fits:
                self._taken.remove(taken)
                self._returned_ns[taken.step] = now_ns
                self._exhausted.clear()
                self._row(now_ns, STEPS[taken.step], BACK, taken.because, amounts, taken.calls)
                return True
        return False

    def _fits(self, taken: _Taken, now_ns: int, usage: Usage, pressure: float) -> bool:
        """Whether it would fit for some time already: what costs much may stand still for a moment."""
        if taken.saved is None:
            return False
        held, hold = now_ns - taken.at_ns, self._holds[taken.step]
        now = rate(taken.step, usage)
        back = taken.saved * (now / taken.rate if taken.rate else 1.0) if now else 0.0
        if held >= min(TRIAL_HOLDS * hold, TRIAL_MOST_NS):
            back = 0.0  # what was foreseen so long ago is worth a try
        if pressure + back > COMFORT:
            taken.fits_since_ns = None
        elif taken.fits_since_ns is None:
            taken.fits_since_ns = now_ns
        since = taken.fits_since_ns
        return held >= hold and since is not None and now_ns - since >= CALM_NS

    def _disk_mark_before(self) -> float:
        """Below this the last step for the disk was not due: older files of a rotation have gone."""
        before = sum(taken.because == "disk" for taken in self._taken)
        return COMFORT * float(self._limits.disk_bytes or 0) * (1 - 0.5**before)

    def refused(self) -> None:
        """The step that was just taken back stays for good: the kernel does not permit another."""
        if self.rows[-1]["action"] == BACK:
            self.rows[-1]["action"] = "could not be recorded again"

    def note(self, now_ns: int, step: str, because: str, used: float, allowed: float) -> None:
        """A decision that was made elsewhere: a smaller buffer, the end."""
        self._row(now_ns, step, "", because, (used, allowed))

    def _row(
        self,
        now_ns: int,
        step: str,
        action: str,
        because: str,
        amounts: tuple[float, float],
        calls: frozenset[int] = frozenset(),
    ) -> None:
        self.decisions += 1
        if len(self.rows) < ROWS_MOST:
            used, allowed = (round(amount, 4) for amount in amounts)
            row = {"at_ns": now_ns, "step": step, "action": action, "because": because}
            self.rows.append(row | {"used": used, "allowed": allowed, "calls": sorted(calls)})
