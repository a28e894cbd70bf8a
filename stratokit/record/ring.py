"""The kernel's ring buffer, mapped and drained in bulk: no work per event.

A BPF ring buffer is three mappings (kernel/bpf/ringbuf.c): a page with the consumer's position, which we
write, a page with the producer's position, and the data, mapped twice in a row so that a span that wraps
around is still in one piece. Programs reserve a record, fill it and clear its busy bit; the producer's
position counts reserved records. To know that all records below a position are filled, one could walk their
heads. Instead `membarrier(MEMBARRIER_CMD_GLOBAL)` waits until every processor has left whatever RCU read-side
section it was in. BPF programs run inside such sections, so what was reserved before the wait is filled after
it, and the whole span is written at once. Where the call is refused (nohz_full), the heads are walked.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import TYPE_CHECKING

from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY = 1 << 31
LENGTH_MASK = (1 << 30) - 1
HEAD_BYTES = 8
_MEMBARRIER_QUERY, _MEMBARRIER_GLOBAL = 0, 1
_libc = ctypes.CDLL(None, use_errno=True)


def barrier_number() -> int | None:
    """Number of the membarrier system call when the kernel offers its global command, else None."""
    for call in load.syscalls().values():
        if (
            call.name == "membarrier"
            and _libc.syscall(call.number, _MEMBARRIER_QUERY, 0, 0) & _MEMBARRIER_GLOBAL
        ):
            return call.number
    return None


def records_within(span: memoryview, most: int) -> int:
    """Bytes of the records at the start of `span` that fit in `most` bytes. Walks them one by one: for
    emergencies.
    """
    position = 0
    while position < len(span):
        (head,) = struct.unpack_from("<I", span, position)
        after = position + HEAD_BYTES + ((head & LENGTH_MASK) + 7 & ~7)
        if after > most:
            break
        position = after
    return position


class Ring:
    """A mapped ring buffer of `size` bytes (a power of two)."""

    def __init__(self, map_fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self.size = size
        self._mask = size - 1
        self._consumer_map = mmap.mmap(
            map_fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0
        )
        self._producer_map = mmap.mmap(map_fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = memoryview(self._consumer_map).cast("Q")
        self._producer = memoryview(self._producer_map)[:page].cast("Q")
        self._data = memoryview(self._producer_map)[page:]
        self._barrier = barrier_number()
        self.position = self._consumer[0]

    def pending(self) -> int:
        """Bytes reserved and not yet taken."""
        return self._producer[0] - self.position

    def drain(self, write: Callable[[memoryview], None]) -> int:
        """Hand everything that is complete to `write`, free it, and return its bytes.

        An exception of `write` passes through with the span not freed.
        """
        end = self._producer[0]
        if end == self.position:
            return 0
        if self._barrier is None or _libc.syscall(self._barrier, _MEMBARRIER_GLOBAL, 0, 0) != 0:
            end = self._first_busy(end)
        taken = end - self.position
        if taken:
            start = self.position & self._mask
            write(self._data[start : start + taken])
            self.position = end
            self._consumer[0] = end
        return taken

    def discard(self) -> int:
        """Free everything complete without writing it, and return its bytes."""
        return self.drain(lambda _: None)

    def _first_busy(self, end: int) -> int:
        position = self.position
        while position < end:
            (head,) = struct.unpack_from("<I", self._data, position & self._mask)
            if head & BUSY:
                break
            position += HEAD_BYTES + ((head & LENGTH_MASK) + 7 & ~7)
        return position

    def close(self) -> None:
        """Unmap. The ring must not be used afterwards."""
        for view in (self._consumer, self._producer, self._data):
            view.release()
        self._consumer_map.close()
        self._producer_map.close()
