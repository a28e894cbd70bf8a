"""Packets and events of sysdig in one pcapng file, in order of time.

Wireshark lists both. libpcap's readers pass over the events; libs' readers (sysdig) refuse such a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.formats.packet_rows import BUFFER_BYTES, Run
from stratokit.formats.pcapng.writer import PcapngWriter
from stratokit.kernels import kernel

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping


@kernel
def merge(packets: Run, i: int, events: Run, j: int, out: np.ndarray) -> tuple[int, int, int]:
    """Copy blocks to `out`, the earlier first and an event before a packet of its time, until one of both
    is through or `out` is full; where each then stands, and how many bytes `out` has.
    """
    at = 0
    while i < packets.ts.size and j < events.ts.size:
        first = events.ts[j] <= packets.ts[i]
        run, k = (events, j) if first else (packets, i)
        start, size = run.ends[k], run.ends[k + 1] - run.ends[k]
        if at + size > out.size:
            break
        out[at : at + size] = run.data[start : start + size]
        at += size
        if first:
            j += 1
        else:
            i += 1
    return i, j, at


class MergedWriter(PcapngWriter):
    """Writes packet rows, and `events` between them.

    Args:
        path, metadata, interfaces, options: as for `PcapngWriter`.
        lists: blocks that events stand on; they come before everything else.
        events: in order of time; each run is used up before the next is asked for.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, str],
        interfaces: Iterable[Any] = (),
        *,
        lists: Iterable[bytes],
        events: Iterable[Run],
        **options: Any,
    ) -> None:
        super().__init__(path, metadata, interfaces, **options)
        self._events = iter(events)
        self._run: Run | None = None
        self._next = 0
        self._latest = 0
        self._merged = np.empty(BUFFER_BYTES, np.uint8)
        with self._output.errors():
            for block in lists:
                self._output.file.write(block)

    def _refill(self) -> Run | None:
        """The run whose next event is due, None when there are no more."""
        while self._run is None or self._next == len(self._run.ts):
            self._run, self._next = next(self._events, None), 0
            if self._run is None:
                return None
        return self._run

    def _put(self, data: np.ndarray, ends: np.ndarray, ts: np.ndarray) -> None:
        # A packet that comes late in the file keeps its place there.
        due = np.maximum.accumulate(np.concatenate([[self._latest], ts]))[1:]
        self._latest = int(due[-1])
        packets, i = Run(data, ends, due), 0
        while i < len(ts) and (run := self._refill()) is not None:
            largest = max(int(np.diff(ends).max()), int(np.diff(run.ends).max()))
            if largest > len(self._merged):
                self._merged = np.empty(largest, np.uint8)
            i, self._next, size = merge(packets, i, run, self._next, self._merged)
            self._output.file.write(self._merged[:size].data)
        self._output.file.write(data[ends[i] :].data)

    def _finish(self) -> None:
        while (run := self._refill()) is not None:
            self._output.file.write(run.data[run.ends[self._next] : run.ends[-1]].data)
            self._next = len(run.ts)
        super()._finish()
