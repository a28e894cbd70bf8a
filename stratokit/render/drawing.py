"""What all charts have in common: their size, a logarithmic axis, and the figure around them."""

from __future__ import annotations

import math
from collections.abc import Iterator

WIDTH = 640


class Log:
    """A logarithmic axis of durations over whole decades."""

    def __init__(self, least: float, most: float, start: float, end: float) -> None:
        self.low = math.floor(math.log10(max(least, 1)))
        self.high = max(self.low + 1, math.ceil(math.log10(max(most, 1))))
        self.start, self.end = start, end

    def __call__(self, ns: float) -> float:
        share = (math.log10(max(ns, 10**self.low)) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> Iterator[int]:
        """Durations to write beside it."""
        step = math.ceil((self.high - self.low) / 6)
        return (10**k for k in range(self.low, self.high + 1, step))


def figure(caption: str, label: str, height: int, marks: list[str]) -> str:
    """A picture; `caption` is HTML, `label` says to those who cannot see it what it is."""
    return (
        f'<figure><figcaption>{caption}</figcaption><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{label}">{"".join(marks)}</svg></figure>'
    )
