"""Writes a pcapng file again that became a capture: its sections, interfaces, options and rare blocks as they
were, among the same packets.

Only what cannot be told from another form is not kept: byte order and section lengths, obsolete packet blocks
(written as enhanced ones), block types that are not known, and digits of time beyond nanoseconds.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from stratokit.errors import FormatError
from stratokit.formats.output import FileWriter
from stratokit.formats.packet_rows import BATCH_ROWS, BUFFER_BYTES, pieces, times_of, value_buffers
from stratokit.formats.pcapng import blocks, cold, walk
from stratokit.formats.pcapng.fill import HEAD, TAIL, _copy, _put32
from stratokit.formats.pcapng.reader import parse_options, read_interface
from stratokit.formats.tables import conform
from stratokit.kernels import kernel

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pyarrow as pa

i64: Any = np.int64
u64: Any = np.uint64

COLUMNS = ("frame", "ts", "ifindex", "orig_len", "data", "packet_block", "packet_options")
SIMPLE_HEAD = 12
BILLION = 1_000_000_000
# Powers of two up to this are coarser than nanoseconds: each has nanoseconds of its own.
BITS_MAX = 29


@kernel
def _block_ends(cap_lens: np.ndarray, option_lens: np.ndarray, simple: np.ndarray, ends: np.ndarray) -> None:
    ends[0] = 0
    for i in range(len(cap_lens)):
        size = (SIMPLE_HEAD if simple[i] else HEAD) + (i64(cap_lens[i]) + 3 & ~3) + TAIL
        if option_lens[i] and not simple[i]:
            size += i64(option_lens[i]) + 4  # and the end of options
        ends[i + 1] = ends[i] + size


@kernel
def _fill(
    out: np.ndarray,
    ends: np.ndarray,
    first: int,
    last: int,
    data: np.ndarray,
    starts: np.ndarray,
    cap_lens: np.ndarray,
    orig_lens: np.ndarray,
    simple: np.ndarray,
    times: np.ndarray,
    interfaces: np.ndarray,
    options: np.ndarray,
    option_starts: np.ndarray,
) -> None:
    """Write the blocks of packets `first` to `last`: enhanced ones (see `fill`), or simple ones."""
    for i in range(first, last):
        at, length = ends[i] - ends[first], ends[i + 1] - ends[i]
        end = at + length
        _put32(out, at, 3 if simple[i] else 6)
        _put32(out, at + 4, length)
        if simple[i]:
            _put32(out, at + 8, i64(orig_lens[i]))
            at = _copy(out, at + SIMPLE_HEAD, data, starts[i], i64(cap_lens[i]))
        else:
            _put32(out, at + 8, i64(interfaces[i]))
            _put32(out, at + 12, i64(times[i] >> u64(32)))
            _put32(out, at + 16, i64(times[i] & u64(0xFFFFFFFF)))
            _put32(out, at + 20, i64(cap_lens[i]))
            _put32(out, at + 24, i64(orig_lens[i]))
            at = _copy(out, at + HEAD, data, starts[i], i64(cap_lens[i]))
            if at < end - TAIL:
                at = _copy(out, at, options, option_starts[i], option_starts[i + 1] - option_starts[i])
                _put32(out, at, 0)
        _put32(out, end - TAIL, length)


def is_exact(mode: int, factor: int) -> bool:
    """Whether nanoseconds tell every time of such a clock (see walk.CLOCK)."""
    return mode == walk.MULTIPLY or (mode == walk.SHIFT and factor <= BITS_MAX)


def _units(ts_ns: np.ndarray, clock: Any) -> np.ndarray:
    """Times as the clock of their interface counts them."""
    times = ts_ns - clock["offset_ns"]
    if clock["mode"] == walk.MULTIPLY:
        return times // np.int64(clock["factor"])  # type: ignore[no-any-return]
    bits = np.int64(clock["factor"])
    # The reader rounds down to nanoseconds, so the way back is to round up.
    fraction = -(-(times % BILLION << bits) // BILLION)
    return (times // BILLION << bits) + fraction  # type: ignore[no-any-return]


class PcapngRewriter(FileWriter):
    """Writes packets of a capture whose metadata hold the other blocks of the file that it came from.

    Args:
        path: where the file shall be.
        rare: the other blocks.
    """

    def __init__(self, path: str | os.PathLike[str], rare: Sequence[cold.ColdBlock]) -> None:
        super().__init__(path)
        self._cold = rare
        self._next = 0
        self._section_begins = 0
        self._clocks: list[Any] = []
        self._reduced: set[int] = set()
        self._buffer = np.empty(BUFFER_BYTES, np.uint8)

    def write(self, table: pa.Table) -> None:
        """Add packets, in order of their numbers."""
        for batch in conform(table, COLUMNS).to_batches(max_chunksize=BATCH_ROWS):
            frames = batch["frame"].fill_null(0).to_numpy(zero_copy_only=False)
            done = 0
            with self._output.errors():
                while done < batch.num_rows:
                    self._write_cold(int(frames[done]) - 1)
                    stop = batch.num_rows
                    if self._next < len(self._cold):
                        before = self._cold[self._next].before
                        stop = done + int(np.searchsorted(frames[done:], before, "right"))
                    self._write_packets(batch.slice(done, stop - done))
                    done = stop

    def _write_cold(self, before: int) -> None:
        """Write the blocks that stood before packet number `before` + 1."""
        while self._next < len(self._cold) and self._cold[self._next].before <= before:
            block = self._cold[self._next]
            self._next += 1
            body = block.body
            if block.kind == blocks.SECTION:
                self._section_begins = len(self._clocks)
            elif block.kind == blocks.INTERFACE:
                body = self._interface(body)
            elif block.kind == blocks.STATISTICS:
                body = self._statistics(body)
            self._output.file.write(cold.framed(block.kind, body))

    def _interface(self, body: bytes) -> bytes:
        clock = np.zeros((), walk.CLOCK)
        clock[()] = read_interface(body, "<")[1]
        if not is_exact(int(clock["mode"]), int(clock["factor"])):
            self._reduced.add(len(self._clocks))
            clock["mode"], clock["factor"] = walk.MULTIPLY, 1
            kept = [
                (code, blocks.NANOSECONDS if code == blocks.IF_TSRESOL else value)
                for code, value in parse_options(body[8:], "<")
            ]
            body = body[:8] + b"".join(cold.option(*pair) for pair in kept) + bytes(4)
        self._clocks.append(clock)
        return body

    def _statistics(self, body: bytes) -> bytes:
        """Times of an interface that now counts nanoseconds are left out: they count something else."""
        if self._section_begins + struct.unpack("<I", body[:4])[0] not in self._reduced:
            return body
        kept = [pair for pair in parse_options(body[12:], "<") if pair[0] not in (2, 3)]
        return body[:4] + bytes(8) + b"".join(cold.option(*pair) for pair in kept) + bytes(4)

    def _write_packets(self, batch: pa.RecordBatch) -> None:
        data, starts = value_buffers(batch["data"], np.int64)
        options, option_starts = value_buffers(batch["packet_options"], np.int64)
        ifindex = batch["ifindex"].fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        simple = batch["packet_block"].fill_null(0).to_numpy(zero_copy_only=False) == blocks.SIMPLE_PACKET
        orig_lens = batch["orig_len"].fill_null(0).to_numpy(zero_copy_only=False)
        times = self._times(times_of(batch), ifindex)
        cap_lens = np.diff(starts)
        ends = np.empty(batch.num_rows + 1, np.int64)
        _block_ends(cap_lens, np.diff(option_starts), simple, ends)
        for first, last in pieces(ends):
            size = int(ends[last] - ends[first])
            if size > len(self._buffer):
                self._buffer = np.empty(size, np.uint8)
            _fill(
                self._buffer,
                ends,
                first,
                last,
                data,
                starts,
                cap_lens,
                orig_lens,
                simple,
                times,
                ifindex - self._section_begins,
                options,
                option_starts,
            )
            self._output.file.write(self._buffer[:size].data)

    def _times(self, ts_ns: np.ndarray, ifindex: np.ndarray) -> np.ndarray:
        if len(ifindex) and not self._section_begins <= ifindex.min() <= ifindex.max() < len(self._clocks):
            raise FormatError("the packets of this capture do not fit the description of their file in it")
        times = np.zeros(len(ts_ns), np.int64)
        for number in np.unique(ifindex):
            of_interface = ifindex == number
            times[of_interface] = _units(ts_ns[of_interface], self._clocks[number])
        return times.view(np.uint64)

    def _finish(self) -> None:
        self._write_cold(1 << 62)
