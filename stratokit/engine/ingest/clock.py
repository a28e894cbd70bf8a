"""Kernel times to UTC: CLOCK_MONOTONIC nanoseconds through the recorder's pairs of clock readings."""

from __future__ import annotations

from typing import Any

import numpy as np

# NTP slews at most 500 ppm, which is 5 ms in the 10 s between readings. More is a step of the real clock.
STEP_NS = 10_000_000


class Clock:
    """Converts times; between two readings the offset is interpolated, and a step takes effect at the reading
    that shows it.
    """

    def __init__(self, pairs: list[dict[str, int]], first: dict[str, int] | None = None) -> None:
        """`pairs` hold monotonic_ns, real_ns, boot_ns, in order of time; at least one. `first` is the first
        of the recording, so that a process has the same start in all its segments.
        """
        at: list[int] = []
        offset: list[int] = []
        for pair in pairs:
            now = pair["real_ns"] - pair["monotonic_ns"]
            if offset and abs(now - offset[-1]) > STEP_NS:
                at.append(pair["monotonic_ns"] - 1)
                offset.append(offset[-1])
            at.append(pair["monotonic_ns"])
            offset.append(now)
        self._base = offset[0]
        self._at = np.array(at, np.int64)
        self._change = np.array(offset, np.int64) - self._base
        first = first or pairs[0]
        self._boot_offset = first["real_ns"] - first["boot_ns"]

    def utc_ns(self, monotonic_ns: Any) -> Any:
        """UTC nanoseconds (int64) of monotonic times; outside the readings the nearest offset holds."""
        times = np.asarray(monotonic_ns).astype(np.int64)
        # The change of the offset is small, so float64 keeps its nanoseconds; the times themselves stay
        # integers.
        change = np.rint(np.interp(times, self._at, self._change)).astype(np.int64)
        return times + self._base + change

    def boot_to_utc_ns(self, boot_ns: Any) -> Any:
        """UTC nanoseconds of CLOCK_BOOTTIME times, as process starts are."""
        return np.asarray(boot_ns).astype(np.int64) + self._boot_offset
