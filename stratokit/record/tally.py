"""What a recording has counted, by the kernel programs, the limits, the devices and the recorder itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from stratokit.record.options import Status
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.record.guard import Guard
    from stratokit.record.loader import Kernel

_RECORDED = "recorded_"


class Tally:
    """All counters of a recording."""

    def __init__(self, kernel: Kernel, guard: Guard) -> None:
        self._kernel = kernel
        self._guard = guard
        self._own: dict[str, int] = {}

    def add(self, counts: dict[str, int]) -> None:
        """Count what the recorder itself saw."""
        for name, amount in counts.items():
            self._own[name] = self._own.get(name, 0) + amount

    def totals(self) -> dict[str, int]:
        """All counters so far, by name."""
        return self._kernel.totals() | self._own | self._guard.counts | self._kernel.devices.counts

    def sample(self) -> dict[str, Any]:
        """As the spool has them: those that are not zero, and when."""
        totals = self.totals()
        counted = {name: amount for name, amount in totals.items() if amount}
        return {"monotonic_ns": time.monotonic_ns(), "totals": counted}

    def status(self, began_ns: int | None, bytes_written: int) -> Status:
        """For the user."""
        totals = self.totals()
        counters = load.counters()
        return Status(
            0 if began_ns is None else time.monotonic_ns() - began_ns,
            {name.removeprefix(_RECORDED): n for name, n in totals.items() if name.startswith(_RECORDED)},
            bytes_written,
            {name: n for name, n in totals.items() if n and name in counters and counters[name].loss},
        )
