"""`--trigger EXPR`: counts of the kernel programs that are watched while recording."""

from __future__ import annotations

import collections
import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stratokit.record.options import Trigger


class _Alarm:
    """One expression: whether its count grew by more than it may within its time."""

    def __init__(self, trigger: Trigger, total: Callable[[], int]) -> None:
        self.trigger = trigger
        self._total = total
        self._before: collections.deque[tuple[int, int]] = collections.deque()
        self._told = False

    def is_due(self, now_ns: int) -> bool:
        """Whether it has come true since it was asked last."""
        total = self._total()
        if not self._before:
            self._before.append((now_ns, total))
            return False
        horizon = now_ns - self.trigger.within_ns
        # One reading from before the time stays, so that what grew since then is in the difference.
        while len(self._before) > 1 and self._before[1][0] <= horizon:
            self._before.popleft()
        grown = total - self._before[0][1]
        if self.trigger.within_ns:
            self._before.append((now_ns, total))
        else:
            self._before[0] = (now_ns, total)
        is_true = grown > self.trigger.more_than
        # A rate that stays above its bound is one alarm.
        due = is_true and not (self._told and self.trigger.within_ns)
        self._told = is_true
        return due


class Alarms:
    """All expressions of a recording."""

    def __init__(self, triggers: Iterable[Trigger], total: Callable[[int], int]) -> None:
        """`total` reads how many events met the test of the trigger with this number."""
        self._alarms = [
            _Alarm(trigger, functools.partial(total, number))
            for number, trigger in enumerate(triggers)
            if trigger.test
        ]

    def due(self, now_ns: int) -> Iterator[str]:
        """Texts of the expressions that came true since the last call."""
        for alarm in self._alarms:
            if alarm.is_due(now_ns):
                yield alarm.trigger.text
