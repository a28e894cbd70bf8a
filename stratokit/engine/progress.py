"""How far a file was read, told to whoever wants to show it. Nobody does where no person is watching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# (file name, bytes on disk read so far, bytes of the file); both are equal at the end of a pass.
Watcher = Callable[[str, int, int], None]

_watchers: list[Watcher] = []


@contextmanager
def watched(watcher: Watcher | None) -> Iterator[None]:
    """Tell `watcher` of every file that is read in here, in whatever thread."""
    if watcher is None:
        yield
        return
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


@contextmanager
def reading(paths: Sequence[Path], reader: Any) -> Iterator[Callable[[], None] | None]:
    """What a pass over files calls as it goes on; None when nobody watches."""
    if not _watchers:
        yield None
        return
    watcher, size = _watchers[-1], sum(path.stat().st_size for path in paths)
    name = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
    try:
        yield lambda: watcher(name, min(reader.position(), size - 1), size)
    finally:
        watcher(name, size, size)
