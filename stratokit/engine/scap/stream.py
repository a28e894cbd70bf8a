"""Columns of calls or events, without a row of everything between: windows are walked, followed and put into
columns in one go, while who asked works on the columns before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from stratokit.engine.scap import follow, layout, rows, state
from stratokit.engine.scap.follower import Follower
from stratokit.formats.scap import params, walk
from stratokit.formats.scap.reader import Listed, ScapReader
from stratokit.formats.source import WINDOW_BYTES
from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_part as part
from stratokit.loads import load64

i64: Any = np.int64
u64: Any = np.uint64

# As many as have room in a processor's cache with their rows.
BLOCK_EVENTS = 256
BATCH_ROWS = 1 << 16
# Copied into memory that stays in the cache.
SMALL_WINDOW_BYTES = 4 << 20
VALUES_BYTES, ROW_BYTES = 8 * params.NUMBERS, layout.ROW.itemsize
# In `where`: what the kernel goes on with.
AT, COUNT, NEXT, NUMBER, MADE, NEED, FDS, WHY = range(8)
# Why it returned, beside what `walk` says.
GROW, TAKE = 8, 9


@part
def _put(
    out: layout.Out, rows_raw: np.ndarray, values_raw: np.ndarray, fields: np.ndarray, calls: bool,
    made: np.ndarray, first: int,
) -> Any:  # fmt: skip
    """The fields of all rows of the kind that is wanted; `fields` has of each what `_field` says."""
    n = first
    for r in range(out.used[0]):
        if (out.rows[r].kind == layout.SYSCALL) != calls:
            continue
        for f in range(len(fields)):
            if fields[f, 0]:
                word = load64(values_raw, r * VALUES_BYTES + fields[f, 1])
            else:
                word = load64(rows_raw, r * ROW_BYTES + fields[f, 1])
            shift = fields[f, 2]
            if fields[f, 3]:
                made[f, n] = (word << shift) >> shift
            else:
                made[f, n] = i64((u64(word) << u64(shift)) >> u64(shift))
        n += 1
    return n


@kernel
def _run(
    data: np.ndarray, tables: params.Tables, events: np.ndarray, known: state.State, fd_args: np.ndarray,
    work: layout.Scratch, out: layout.Out, rows_raw: np.ndarray, values_raw: np.ndarray, fields: np.ndarray,
    calls: bool, made: np.ndarray, where: np.ndarray, passed: np.ndarray,
) -> Any:  # fmt: skip
    """Go on in `data`; returns why it cannot any further."""
    while True:
        while where[NEXT] < where[COUNT]:
            if where[MADE] + 2 * BLOCK_EVENTS > made.shape[1]:
                return TAKE
            out.used[0] = 0
            out.used[1] = 0
            walked = events[: where[COUNT]]
            at, need, fds = follow.follow(
                data, walked, where[NEXT], where[NUMBER], known, tables, fd_args, work, out
            )
            where[MADE] = _put(out, rows_raw, values_raw, fields, calls, made, where[MADE])
            where[NEXT] = at
            if at < where[COUNT]:
                where[NEED] = need
                where[FDS] = fds
                return GROW
        where[NUMBER] += where[COUNT]
        where[COUNT] = 0
        where[NEXT] = 0
        if where[WHY] != walk.FULL:
            why = where[WHY]
            where[WHY] = walk.FULL
            return why
        count, at, why = walk.walk(data, where[AT], tables, events, 0, passed)
        where[COUNT] = count
        where[AT] = at
        where[WHY] = why


@kernel
def _put_all(
    out: layout.Out, rows_raw: np.ndarray, values_raw: np.ndarray, fields: np.ndarray, calls: bool,
    made: np.ndarray,
) -> Any:  # fmt: skip
    return i64(_put(out, rows_raw, values_raw, fields, calls, made, 0))


class Columns:
    """Fields of rows by name and numbers by place, as `layout.Out` has them in arrays of records."""

    def __init__(self, made: np.ndarray, index: dict[Any, int], size: int) -> None:
        self._made, self._index, self.size = made, index, size

    def __getitem__(self, key: Any) -> np.ndarray:
        if not isinstance(key, str):
            return self._made[self._index[key[1]], : self.size]
        dtype, column = layout.ROW[key], self._made[self._index[key], : self.size]
        return column.view(dtype) if dtype.itemsize == 8 else column.astype(dtype)


class _Asked(Columns):
    """Learns what is asked for."""

    def __init__(self) -> None:
        self.index: dict[Any, int] = {}
        self.size = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        name = key if isinstance(key, str) else key[1]
        self.index.setdefault(name, len(self.index))
        return np.zeros(0, layout.ROW[name] if isinstance(name, str) else np.int64)


class Made(NamedTuple):
    """Fields of rows with what their numbers mean: texts that were known, bytes of the window."""

    columns: Columns
    known: state.State
    data: np.ndarray


def _field(name: str | int) -> tuple[int, int, int, bool]:
    """Where a field of a row, or a number, lies: in rows (0) or numbers (1), its byte, shift and sign."""
    if isinstance(name, int):
        return 1, 8 * name, 0, True
    found = layout.ROW.fields
    assert found is not None
    dtype, at = found[name][:2]
    return 0, at, 64 - 8 * dtype.itemsize, dtype.kind == "i"


class _Stream:
    """Takes what a reader goes through (`reader.Taker`) and keeps the fields of its rows that are needed."""

    def __init__(self, kind: int, names: Collection[str]) -> None:
        self.follower = Follower(names)
        asked = _Asked()
        rows.table(asked, asked, rows.Texts(self.follower.known), self.follower.data, kind, names)
        self._index = asked.index or {"ts": 0}
        self._fields = np.array([_field(name) for name in self._index], np.int64)
        # Columns of bytes are made while the window is there.
        self.of_window = any(str(name).endswith("_at") for name in self._index)
        self.window_bytes = WINDOW_BYTES if self.of_window else SMALL_WINDOW_BYTES
        self._calls = kind == layout.SYSCALL
        self._events = np.empty(BLOCK_EVENTS, walk.EVENT)
        # A load of eight bytes may reach beyond the last row.
        self._rows_raw = np.zeros(2 * BLOCK_EVENTS * ROW_BYTES + 8, np.uint8)
        self._out = layout.room(BLOCK_EVENTS)._replace(rows=self._rows_raw[:-8].view(layout.ROW))
        self._values_raw = self._out.values.reshape(-1).view(np.uint8)
        self._where = np.zeros(8, np.int64)
        self._where[NUMBER] = 1
        self._made = self._room()
        self._full = False

    def _room(self) -> np.ndarray:
        return np.empty((len(self._fields), BATCH_ROWS + 2 * BLOCK_EVENTS), np.int64)

    def take(self, window: np.ndarray, at: int, passed: np.ndarray) -> tuple[int, int]:
        """See `Taker`."""
        follower, where = self.follower, self._where
        follower.enter_window(window)
        where[AT] = at + follower.prefix_bytes
        while True:
            why = _run(
                follower.data, follower.tables, self._events, follower.known, follower.fd_args, follower.work,
                self._out, self._rows_raw, self._values_raw, self._fields, self._calls, self._made, where,
                passed,
            )  # fmt: skip
            follower.events_before = int(where[NUMBER] + where[NEXT]) - 1
            if why != GROW:
                break
            follower.grow(int(where[NEED]), int(where[FDS]))
        self._full = why == TAKE
        return int(where[AT]) - follower.prefix_bytes, walk.FULL if self._full else why

    def taken(self) -> Made | None:
        """See `Taker`."""
        return self.rest() if self._full or self.of_window else None

    def rest(self) -> Made | None:
        """What was made since the last time."""
        size = int(self._where[MADE])
        if not size:
            return None
        found = Made(Columns(self._made, self._index, size), self.follower.known, self.follower.data)
        self._where[MADE] = 0
        self._made = self._room()
        return found

    def end(self) -> Made | None:
        """Rows of calls that never returned."""
        out = self.follower.end()
        raw = np.concatenate([out.rows.view(np.uint8), np.zeros(8, np.uint8)])
        self._made = np.empty((len(self._fields), max(out.used[0], 1)), np.int64)
        values = out.values.reshape(-1).view(np.uint8)
        self._where[MADE] = _put_all(out, raw, values, self._fields, self._calls, self._made)
        return self.rest()


class Streamed:
    """Columns `names` of all rows of a kind that a reader finds; `follower` knows the rest at the end."""

    def __init__(self, reader: ScapReader, kind: int, names: Collection[str]) -> None:
        self._reader, self._kind, self._names = reader, kind, names
        self._stream = _Stream(kind, names)
        self.follower = self._stream.follower

    def tables(self) -> Iterator[pa.Table]:
        """They in pieces."""
        for made in self._made() if self._stream.of_window else _ahead(self._made()):
            texts = rows.Texts(made.known)
            yield rows.table(made.columns, made.columns, texts, made.data, self._kind, self._names)

    def _made(self) -> Iterator[Made]:
        stream = self._stream
        for item in self._reader.items(stream):
            if isinstance(item, Listed):
                self.follower.listed(item)
            else:
                yield item
        for rest in (stream.rest(), stream.end()):
            if rest is not None:
                yield rest


def _ahead(items: Iterator[Made]) -> Iterator[Made]:
    """The same items, each made while who asked works on the one before."""
    with ThreadPoolExecutor(1, thread_name_prefix="stratokit-scap") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
