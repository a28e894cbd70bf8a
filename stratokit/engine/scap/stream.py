"""Columns of calls or events, without a row of everything between. Three things go on at once: one window is
read and walked, the one before it is followed, and who asked works on columns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from stratokit.engine.scap import follow, layout, rows, state
from stratokit.engine.scap.follower import Follower
from stratokit.engine.scap.hashing import find, slot_of
from stratokit.formats.scap import params
from stratokit.formats.scap.reader import Events, Listed, ScapReader
from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_part as part
from stratokit.loads import load64

T = TypeVar("T")
i64: Any = np.int64
u64: Any = np.uint64

# As many as have room in a processor's cache with their rows.
BLOCK_EVENTS = 128
BATCH_ROWS = 1 << 16
# Of windows: small where nothing but numbers is made of each, so that they stay in the processor's cache.
SMALL_WINDOW_BYTES, WINDOW_BYTES = 2 << 20, 16 << 20
VALUES_BYTES, ROW_BYTES = 8 * params.NUMBERS, layout.ROW.itemsize
# In `where`: what the kernel goes on with.
NEXT, NUMBER, MADE, NEED, FDS, FETCHED = range(6)
# Why it returned.
DONE, GROW, TAKE = range(3)


@part
def _put(
    out: layout.Out, rows_raw: np.ndarray, values_raw: np.ndarray, fields: np.ndarray, calls: bool,
    made: np.ndarray, first: int,
) -> Any:  # fmt: skip
    """The fields of all rows of the kind that is wanted; `fields` has of each what `_field` says."""
    n = first
    for f in range(len(fields)):
        of_numbers, at, shift, signed = fields[f, 0], fields[f, 1], fields[f, 2], fields[f, 3]
        n = first
        for r in range(out.used[0]):
            if (out.rows[r].kind == layout.SYSCALL) != calls:
                continue
            if of_numbers:
                word = load64(values_raw, r * VALUES_BYTES + at)
            else:
                word = load64(rows_raw, r * ROW_BYTES + at)
            if signed:
                made[f, n] = (word << shift) >> shift
            else:
                made[f, n] = i64((u64(word) << u64(shift)) >> u64(shift))
            n += 1
    return n


@part
def _fetched(events: np.ndarray, first: int, last: int, known: state.State) -> Any:
    """Look at what is known of the threads of these events: memory gives that for many at once, where
    following would wait for each. Returns a number, or nothing would be looked at.
    """
    tid, seen = i64(-1), i64(0)
    for i in range(first, last):
        if events[i].tid == tid:
            continue
        tid = events[i].tid
        index = find(known.thread_slots, known.thread_keys, u64(tid))
        if index >= 0:
            used = known.threads[index].used
            seen += known.enters[index].at + known.threads[index].alive
            seen += known.fds[used].open + known.fd_slots[slot_of(known.fd_keys[used], known.fd_slots.size)]
    return seen


@kernel
def _run(
    data: np.ndarray, events: np.ndarray, tables: params.Tables, known: state.State, fd_args: np.ndarray,
    work: layout.Scratch, out: layout.Out, rows_raw: np.ndarray, values_raw: np.ndarray, fields: np.ndarray,
    calls: bool, made: np.ndarray, where: np.ndarray,
) -> Any:  # fmt: skip
    """Go on with `events`; returns why it cannot any further."""
    while where[NEXT] < events.size:
        if where[MADE] + 2 * BLOCK_EVENTS > made.shape[1]:
            return TAKE
        last = min(where[NEXT] + BLOCK_EVENTS, events.size)
        where[FETCHED] = _fetched(events, where[NEXT], last, known)
        out.used[0] = 0
        out.used[1] = 0
        at, need, fds = follow.follow(
            data, events[:last], where[NEXT], where[NUMBER], known, tables, fd_args, work, out
        )
        where[MADE] = _put(out, rows_raw, values_raw, fields, calls, made, where[MADE])
        where[NEXT] = at
        if at < last:
            where[NEED] = need
            where[FDS] = fds
            return GROW
    return DONE


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
    """Takes what a reader finds and keeps the fields of its rows that are needed."""

    def __init__(self, kind: int, names: Collection[str]) -> None:
        self.follower = Follower(names)
        asked = _Asked()
        rows.table(asked, asked, rows.Texts(self.follower.known), self.follower.data, kind, names)
        self._index = asked.index or {"ts": 0}
        self._fields = np.array([_field(name) for name in self._index], np.int64)
        # Columns of bytes are made while the window is there.
        self.of_window = any(str(name).endswith("_at") for name in self._index)
        self._calls = kind == layout.SYSCALL
        # A load of eight bytes may reach beyond the last row.
        self._rows_raw = np.zeros(2 * BLOCK_EVENTS * ROW_BYTES + 8, np.uint8)
        self._out = layout.room(BLOCK_EVENTS)._replace(rows=self._rows_raw[:-8].view(layout.ROW))
        self._values_raw = self._out.values.reshape(-1).view(np.uint8)
        self._where = np.zeros(6, np.int64)
        self._made = self._room()

    def _room(self) -> np.ndarray:
        return np.empty((len(self._fields), BATCH_ROWS + 2 * BLOCK_EVENTS), np.int64)

    def follow(self, batch: Events) -> Iterator[Made]:
        """Take a batch in; gives what was made as often as there is enough of it."""
        follower, where = self.follower, self._where
        events = follower.entered(batch)
        where[NEXT], where[NUMBER] = 0, follower.events_before + 1
        why = GROW
        while why != DONE:
            why = _run(
                follower.data, events, follower.tables, follower.known, follower.fd_args, follower.work,
                self._out, self._rows_raw, self._values_raw, self._fields, self._calls, self._made, where,
            )  # fmt: skip
            if why == GROW:
                follower.grow(int(where[NEED]), int(where[FDS]))
            elif why == TAKE or self.of_window:
                yield from self.rest()
        follower.events_before += events.size

    def rest(self) -> Iterator[Made]:
        """What was made since the last time."""
        size = int(self._where[MADE])
        if not size:
            return
        found = Made(Columns(self._made, self._index, size), self.follower.known, self.follower.data)
        self._where[MADE] = 0
        self._made = self._room()
        yield found

    def end(self) -> Iterator[Made]:
        """Rows of calls that never returned."""
        out = self.follower.end()
        raw = np.concatenate([out.rows.view(np.uint8), np.zeros(8, np.uint8)])
        self._made = np.empty((len(self._fields), max(out.used[0], 1)), np.int64)
        values = out.values.reshape(-1).view(np.uint8)
        self._where[MADE] = _put_all(out, raw, values, self._fields, self._calls, self._made)
        yield from self.rest()


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
        for item in _ahead(self._reader.items(WINDOW_BYTES if stream.of_window else SMALL_WINDOW_BYTES)):
            if isinstance(item, Listed):
                self.follower.listed(item)
            else:
                yield from stream.follow(item)
        yield from stream.rest()
        yield from stream.end()


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made while who asked works on the one before."""
    with ThreadPoolExecutor(1, thread_name_prefix="stratokit-scap") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
