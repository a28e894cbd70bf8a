"""What is wrong with a filter, and where in its text."""

from __future__ import annotations

from stratokit.errors import UsageError

_AROUND = 100  # characters of a long filter that are shown on each side of the place


class FilterError(UsageError):
    """Shows the filter with the place marked: `at` and `end` are positions in `text`."""

    def __init__(self, message: str, text: str, at: int, end: int) -> None:
        self.reason, self.text, self.at, self.end = message, text, at, end
        # A filter from a script may span lines; marking only works within one.
        line = text.replace("\n", " ").replace("\t", " ")
        before, after = max(0, at - _AROUND), min(len(line), end + _AROUND)
        mark = " " * (at - before) + "^" * max(1, min(end, after) - at)
        line = line[before:after]
        super().__init__(f"filter: {message}\n  {line}\n  {mark}")
