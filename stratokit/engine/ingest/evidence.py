"""Evidence about what something was from a time on: rows that pile up, of which only changes are kept."""

from __future__ import annotations

from typing import Any

import polars as pl

# Rows are reduced whenever this many have come together.
COMPACT_ROWS = 1 << 20


class Evidence:
    """Rows of keys, ts and values.

    What a key meant at a time is the last row before it. A file pointer that is freed and used again goes
    from one name to another and back, so rows that are merely alike must not be dropped: only those that
    repeat the row before.
    """

    def __init__(self, keys: tuple[str, ...], schema: dict[str, Any], most: int = COMPACT_ROWS) -> None:
        self._keys = keys
        self._schema = schema
        self._values = [name for name in schema if name not in (*keys, "ts")]
        self._most = most
        self._parts: list[pl.DataFrame] = []
        self._rows = 0

    def add(self, columns: dict[str, Any]) -> None:
        """Add rows, in any order."""
        part = pl.DataFrame(columns, schema=self._schema)
        self._parts.append(part)
        self._rows += part.height
        if self._rows > self._most:
            # The last row of a run stays too: an earlier row that comes later may still split the run.
            self._parts = [self._sorted().filter(self._differs(1) | self._differs(-1))]
            self._rows = self._parts[0].height // 2

    def frame(self) -> pl.DataFrame:
        """All rows that say something new, in order of time."""
        return self._sorted().filter(self._differs(1))

    def _sorted(self) -> pl.DataFrame:
        parts = self._parts or [pl.DataFrame(schema=self._schema)]
        return pl.concat(parts).sort("ts", maintain_order=True)

    def _differs(self, step: int) -> pl.Expr:
        """True where the row `step` before, of the same key, has another value or is none."""
        row = pl.int_range(pl.len()).shift(step).over(self._keys)
        changes = (
            pl.col(name).ne_missing(pl.col(name).shift(step).over(self._keys)) for name in self._values
        )
        return pl.any_horizontal(row.is_null(), *changes)
