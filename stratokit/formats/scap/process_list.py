"""Process lists of every version, taken apart in one pass: a list may have a hundred thousand threads.

An entry is a row of numbers and texts, each text behind its length of 2; since V9 its own length stands
before it, and what later writers put behind that is passed over.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from stratokit.kernels import lean_kernel as kernel
from stratokit.loads import load16, load32, load64

NUMBERS = ("tid", "pid", "ptid", "sid", "vpgid", "flags", "uid", "gid", "vtid", "vpid")
TEXTS = ("comm", "exe", "exepath", "args", "cwd", "env", "cgroups", "root")
_UNKNOWN = (0, 0, 0, -1, -1, 0, 0, 0, -1, -1)
# Parts of an entry beside texts and numbers of 4 and 8 bytes: bytes that are passed over.
_TEXT, _WORD, _LONG, _SKIP = range(4)
_V9 = 9


@dataclasses.dataclass(slots=True)
class Process:
    """A thread of the process list. Lists of texts are kept with their NULs."""

    tid: int = 0
    pid: int = 0
    ptid: int = 0
    sid: int = -1
    vpgid: int = -1
    comm: bytes = b""
    exe: bytes = b""
    exepath: bytes = b""
    args: bytes = b""
    cwd: bytes = b""
    flags: int = 0
    uid: int = 0
    gid: int = 0
    env: bytes = b""
    vtid: int = -1
    vpid: int = -1
    cgroups: bytes = b""
    root: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True)
class Processes(Sequence[Process]):
    """`numbers` [entry, NUMBERS], and where texts lie in `data`: `spans` [entry, TEXTS, 2]."""

    data: np.ndarray
    numbers: np.ndarray
    spans: np.ndarray

    def __len__(self) -> int:
        """How many entries."""
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Process: ...
    @overload
    def __getitem__(self, index: slice) -> list[Process]: ...
    def __getitem__(self, index: int | slice) -> Process | list[Process]:
        """An entry as an object."""
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        texts = (self.data[at : at + size].tobytes() for at, size in self.spans[index].tolist())
        named: dict[str, Any] = dict(zip(NUMBERS, self.numbers[index].tolist(), strict=True))
        return Process(**named | dict(zip(TEXTS, texts, strict=True)))


@functools.cache
def _plan(version: int) -> np.ndarray:
    """Parts of an entry in order: what each is, and its place among NUMBERS or TEXTS, or how long it is."""
    parts: list[tuple[int, str | int, int]] = [
        *((_LONG, name, 1) for name in ("tid", "pid", "ptid")), (_LONG, "sid", 6), (_LONG, "vpgid", 8),
        (_TEXT, "comm", 1), (_TEXT, "exe", 1), (_TEXT, "exepath", 7), (_TEXT, "args", 1), (_TEXT, "cwd", 1),
        (_SKIP, 8, 1),  # the limit of descriptors
        *((_WORD, name, 1) for name in ("flags", "uid", "gid")),
        (_SKIP, 28, 2),  # three sizes of memory, two counts of page faults
        (_TEXT, "env", 3), (_LONG, "vtid", 4), (_LONG, "vpid", 4), (_TEXT, "cgroups", 4), (_TEXT, "root", 5),
    ]  # fmt: skip
    places = {name: n for names in (NUMBERS, TEXTS) for n, name in enumerate(names)}
    return np.array(
        [
            (kind, places[what] if isinstance(what, str) else what)
            for kind, what, since in parts
            if version >= since
        ],
        np.int64,
    )


@kernel
def _taken_apart(
    data: np.ndarray, plan: np.ndarray, counted: bool, numbers: np.ndarray, spans: np.ndarray
) -> Any:
    """Fill in all entries; returns how many there are, -1 where one contradicts its length."""
    at = np.int64(0)
    n = np.int64(0)
    while len(data) - at >= 4:
        end = np.int64(len(data))
        if counted:
            size = load32(data, at)
            if size < 4 or size > end - at:
                return np.int64(-1)
            end = at + size
            at += 4
        for k in range(len(plan)):
            kind, place = plan[k, 0], plan[k, 1]
            size = place if kind == _SKIP else 8 if kind == _LONG else 4 if kind == _WORD else 2
            if size > end - at:
                return np.int64(-1)
            if kind == _LONG:
                numbers[n, place] = load64(data, at)
            elif kind == _WORD:
                numbers[n, place] = load32(data, at)
            elif kind == _TEXT:
                length = load16(data, at)
                if length > end - at - 2:
                    return np.int64(-1)
                spans[n, place, 0] = at + 2
                spans[n, place, 1] = length
                size += length
            at += size
        if counted:
            at = end
        n += 1
    return n


def processes(body: bytes, version: int) -> Processes | None:
    """A process list; None where an entry contradicts its length."""
    plan = _plan(version)
    fixed = (2, 4, 8)
    least = sum(int(place) if kind == _SKIP else fixed[kind] for kind, place in plan)
    most = len(body) // least + 1
    numbers = np.tile(np.array(_UNKNOWN, np.int64), (most, 1))
    spans = np.zeros((most, len(TEXTS), 2), np.int64)
    data = np.frombuffer(body, np.uint8).copy()
    count = int(_taken_apart(data, plan, version >= _V9, numbers, spans))
    return Processes(data, numbers[:count], spans[:count]) if count >= 0 else None
