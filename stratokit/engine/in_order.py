"""Work on the parts of a file in parallel, results in the order of the parts, only so many at once."""

from __future__ import annotations

import collections
import enum
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar


class _End(enum.Enum):
    """What comes after the last part."""

    END = 0


_P = TypeVar("_P")
_R = TypeVar("_R")

# More threads than this wait for the one that walks the file.
_THREADS_MAX = 16


def processors() -> int:
    """Processors that this process may use."""
    return min(len(os.sched_getaffinity(0)), _THREADS_MAX)


class Turn:
    """Lets one step of the work be done part after part, while the rest is done at once."""

    def __init__(self, before: Turn | None = None) -> None:
        self._before = before
        self._done = threading.Event()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for this step of the part before."""
        if self._before is not None:
            self._before._done.wait()
            self._before = None  # or each would keep all that came before
        yield

    def end(self) -> None:
        """Let the next part go on, whatever became of this one: its failure is told first."""
        self._done.set()


def map_in_order(
    parts: Iterable[_P], work: Callable[[_P, Turn], _R], threads: int | None = None
) -> Generator[_R]:
    """`work(part, turn)` of every part; at most `threads` + 1 parts are taken ahead of the one given back."""
    threads = threads or processors()
    if threads == 1:
        for part in parts:
            yield work(part, Turn())
        return

    parts = iter(parts)

    def step(reading: Turn, turn: Turn) -> _R | _End:
        """Whoever is free reads the next part, which is then where it is worked on."""
        try:
            with reading.taken():
                part = next(parts, _End.END)
            reading.end()
            return part if isinstance(part, _End) else work(part, turn)
        finally:
            reading.end()
            turn.end()

    pending: collections.deque[Future[_R | _End]] = collections.deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="stratokit")
    last: tuple[Turn | None, Turn | None] = (None, None)
    try:
        while True:
            while len(pending) <= threads:
                reading, turn = last = Turn(last[0]), Turn(last[1])
                pending.append(pool.submit(step, reading, turn))
            found = pending.popleft().result()
            if isinstance(found, _End):
                return
            yield found
    finally:
        pool.shutdown(cancel_futures=True)
