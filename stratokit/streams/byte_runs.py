"""Conversations put together, as streams of bytes with a map back to the packets that brought them.

`Streams` knows where the bytes lie; `heads` and `byte_runs` copy those that are asked for. Or whoever reads
them does, as most bytes are bodies that nobody looks at.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.layers import i64
from stratokit.formats.source import forget_pages
from stratokit.kernels import kernel, read_only, routine
from stratokit.streams.memory import Bytes, copy_bytes
from stratokit.streams.segments import STREAM_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Of a mapped file so much payload is looked at before its pages are given back.
_LOOKED_AT_BYTES = 1 << 27
_LF, _CR = 10, 13
# A status code may be looked for behind the end of a line.
_MORE_BYTES = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Payload:
    """Payloads of packets, one behind the other: that of packet i is data[bounds[i] : bounds[i + 1]]."""

    data: NDArray[np.uint8]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, series: pl.Series) -> Payload:
        """From a Binary column without nulls."""
        array = series.rechunk().to_arrow()
        _, offsets, data = array.buffers()
        bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        return cls(np.frombuffer(data or b"", np.uint8), bounds)


@dataclasses.dataclass(frozen=True, slots=True)
class ByteRuns:
    """Streams as bytes. Flow k has two: 2k from its client, 2k + 1 from its server.

    Stream s has the runs run_bounds[s] to run_bounds[s + 1]. Run r is data[run_start[r] : run_start[r + 1]]
    and begins at offset run_offset[r] of its stream; where the next run begins later than it ends, bytes are
    missing.
    """

    data: NDArray[np.uint8]
    flow_id: NDArray[np.int64]
    began: NDArray[np.bool_]  # per stream: offset 0 is the first byte, for the SYN was seen
    fin: NDArray[np.int64]  # per stream: offset of its FIN, or a number above all offsets
    run_bounds: NDArray[np.int64]
    run_start: NDArray[np.int64]
    run_offset: NDArray[np.int64]
    piece_start: NDArray[np.int64]  # where in data the bytes of another packet begin, ascending
    piece_row: NDArray[np.int64]  # and which row of the packets that is
    piece_ready: NDArray[np.int64]  # the row with which these bytes and all before them had arrived
    frame: NDArray[np.int64]  # per row
    ts_ns: NDArray[np.int64]  # per row
    # Pieces that were not copied yet: whether one is absent, and where it begins in `payload`.
    absent: NDArray[np.bool_]
    piece_source: NDArray[np.int64]
    payload: NDArray[np.uint8]

    @property
    def source(self) -> Any:
        """What a kernel copies absent pieces from, and where it knows that none is absent; see `fill`."""
        return self.payload, self.piece_start, self.piece_source, self.absent, np.zeros(2, np.int64)

    def with_bytes(
        self, data: NDArray[np.uint8], piece_start: NDArray[np.int64], **changes: NDArray[Any]
    ) -> ByteRuns:
        """Streams of other bytes, all of them there."""
        nothing = np.zeros(piece_start.size, np.int64)
        return dataclasses.replace(
            self,
            data=data,
            piece_start=piece_start,
            absent=nothing.astype(np.bool_),
            piece_source=nothing,
            payload=read_only(data, np.uint8),
            **changes,
        )

    def whole(self) -> ByteRuns:
        """Itself, with all bytes copied."""
        if self.absent.any():
            _fill_all(self.data, self.source)
        return self

    def ready_row_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the packets with which the bytes at these positions of `data` could be read."""
        rows: NDArray[np.int64] = self.piece_ready[np.searchsorted(self.piece_start, positions, "right") - 1]
        return rows


@dataclasses.dataclass(frozen=True, slots=True)
class Streams:
    """Conversations put together, their bytes not yet copied. Streams are numbered as in ByteRuns."""

    flow_id: NDArray[np.int64]
    view: NDArray[np.uint8]
    began: NDArray[np.bool_]
    fin: NDArray[np.int64]
    pieces: NDArray[np.int64]  # offset, size, row of the packet, where the bytes stand in payload.data
    piece_bounds: NDArray[np.int64]
    payload: Bytes
    packets: pl.DataFrame  # the rows themselves, without their bytes
    frame: NDArray[np.int64]
    ts_ns: NDArray[np.int64]
    losses: dict[str, int]
    beside: pl.DataFrame | None = None  # other packets that were asked for, with their bytes

    def on_port(self, *ports: int) -> NDArray[np.bool_]:
        """Which conversations have one of these ports at either end."""
        either = pl.any_horizontal(pl.col("src_port", "dst_port").is_in(ports))
        flows = self.packets.filter(either)["flow_id"].unique().to_numpy()
        return np.isin(self.flow_id, flows)

    def heads(self, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The first bytes of each stream, at most `size` and up to the first gap: (data, bounds)."""
        sizes = np.diff(np.concatenate([[0], np.cumsum(self.pieces[:, 1])])[self.piece_bounds])
        part = np.cumsum(sizes) // _LOOKED_AT_BYTES
        edges = np.concatenate([[0], np.flatnonzero(np.diff(part)) + 1, [sizes.size]])
        heads, bounds = [], [np.zeros(1, np.int64)]
        for first, last in itertools.pairwise(edges):
            found, ends = _heads(self.pieces, self.piece_bounds[first : last + 1], self.payload.data, size)
            heads.append(found)
            bounds.append(ends[1:] + bounds[-1][-1])
            forget_pages()
        return np.concatenate(heads), np.concatenate(bounds)

    def groups(
        self, wanted: NDArray[np.bool_], group_bytes: int, limit_bytes: int = STREAM_LIMIT_BYTES
    ) -> Iterator[tuple[NDArray[np.bool_], int]]:
        """The conversations that `wanted` marks, a few at a time, and how many bytes these have.

        That is at most `group_bytes`, or one alone; `limit_bytes` of each stream. What they lie among is not
        much more than _LOOKED_AT_BYTES.
        """
        ends = np.concatenate([[0], np.cumsum(self.pieces[:, 1])])[self.piece_bounds]
        size = np.where(wanted, np.minimum(np.diff(ends), limit_bytes).reshape(-1, 2).sum(1), 0)
        full = (np.cumsum(size) - size) // group_bytes
        far = ends[:-1:2] // _LOOKED_AT_BYTES
        group = np.cumsum(np.append(0, (np.diff(full) != 0) | (np.diff(far) != 0)))[: size.size]
        for number in np.unique(group[wanted]):
            chosen = wanted & (group == number)
            yield chosen, int(size[chosen].sum())

    def byte_runs(
        self,
        wanted: NDArray[np.bool_],
        limit_bytes: int = STREAM_LIMIT_BYTES,
        only: NDArray[np.int64] | None = None,
        *,
        later: bool = False,
    ) -> ByteRuns:
        """The bytes of the flows that `wanted` marks; of each stream at most the first `limit_bytes`.

        Args:
            only: for each of these flows the side whose bytes are wanted, 0 or 1; the other stays empty.
            later: who reads them copies what it needs, see `fill`.
        """
        chosen = np.repeat(wanted, 2)
        streams = np.flatnonzero(chosen)
        limits = np.full(streams.size, limit_bytes, np.int64)
        if only is not None:
            limits[2 * np.arange(only.size) + 1 - only] = 0
        laid_out = _lay_out(self.pieces, self.piece_bounds, streams, limits)
        size, run_bounds, run_start, run_offset, piece_start, piece_row, piece_ready, piece_source = laid_out
        runs = ByteRuns(
            data=np.empty(size, np.uint8),
            flow_id=self.flow_id[wanted],
            began=self.began[chosen],
            fin=self.fin[chosen],
            run_bounds=run_bounds,
            run_start=run_start,
            run_offset=run_offset,
            piece_start=piece_start,
            piece_row=piece_row,
            piece_ready=piece_ready,
            frame=self.frame,
            ts_ns=self.ts_ns,
            absent=np.ones(piece_start.size, np.bool_),
            piece_source=piece_source,
            payload=self.payload.data,
        )
        return runs if later else runs.whole()


@kernel
def _heads(
    pieces: np.ndarray, piece_bounds: np.ndarray, payload: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    bounds = np.zeros(piece_bounds.size, np.int64)
    for copying in range(2):
        out = np.empty(bounds[-1] if copying else 0, np.uint8)
        n = 0
        for s in range(piece_bounds.size - 1):
            room = size
            for p in range(piece_bounds[s], piece_bounds[s + 1]):
                after_gap = p > piece_bounds[s] and pieces[p - 1, 0] + pieces[p - 1, 1] != pieces[p, 0]
                if room == 0 or after_gap:
                    break
                take = min(room, pieces[p, 1])
                if copying:
                    copy_bytes(out, n, payload, pieces[p, 3], take)
                n += take
                room -= take
            bounds[s + 1] = n
    return out, bounds


@kernel
def _lay_out(pieces: np.ndarray, piece_bounds: np.ndarray, streams: np.ndarray, limits: np.ndarray) -> Any:
    """(bytes, run_bounds, run_start, run_offset, piece_start, piece_row, piece_ready, piece_source)."""
    count = 0
    for k, s in enumerate(streams):
        count += piece_bounds[s + 1] - piece_bounds[s] if limits[k] else 0
    run_bounds = np.zeros(streams.size + 1, np.int64)
    run_start = np.empty(count + 1, np.int64)
    run_offset = np.empty(count, np.int64)
    piece_start = np.empty(count, np.int64)
    piece_row = np.empty(count, np.int64)
    piece_ready = np.empty(count, np.int64)
    piece_source = np.empty(count, np.int64)
    at, runs, n = i64(0), 0, 0
    for k, s in enumerate(streams):
        ready, room = i64(-1), limits[k]
        for p in range(piece_bounds[s], piece_bounds[s + 1]):
            offset, size, row = pieces[p, 0], min(pieces[p, 1], room), pieces[p, 2]
            if size == 0:
                break
            room -= size
            if p == piece_bounds[s] or pieces[p - 1, 0] + pieces[p - 1, 1] != offset:
                run_start[runs] = at
                run_offset[runs] = offset
                runs += 1
            piece_start[n], piece_row[n], piece_source[n] = at, row, pieces[p, 3]
            ready = max(ready, row)
            piece_ready[n] = ready
            n += 1
            at += size
        run_bounds[k + 1] = runs
    run_start[runs] = at
    runs_found = (at, run_bounds, run_start[: runs + 1], run_offset[:runs])
    return *runs_found, piece_start[:n], piece_row[:n], piece_ready[:n], piece_source[:n]


@routine
def piece_at(piece_start: np.ndarray, position: int) -> int:
    """The piece that holds a position."""
    low, high = 0, piece_start.size
    while high - low > 1:
        middle = (low + high) // 2
        if piece_start[middle] <= position:
            low = middle
        else:
            high = middle
    return low


@routine
def _fill_piece(data: np.ndarray, source: Any, k: int) -> Any:
    """Copy piece k, unless that was done; where it ends."""
    payload, piece_start, piece_source, absent, _ = source
    end = piece_start[k + 1] if k + 1 < piece_start.size else i64(data.size)
    if absent[k]:
        copy_bytes(data, piece_start[k], payload, piece_source[k], end - piece_start[k])
        absent[k] = False
    return end


@kernel
def _fill_all(data: np.ndarray, source: Any) -> None:
    for k in range(source[3].size):
        _fill_piece(data, source, k)


@routine
def fill(data: np.ndarray, source: Any, p: int, end: int) -> None:
    """Copy what of data[p:end] is absent: for runs that are copied `later`, before any byte is read."""
    there = source[4]
    if p >= end or there[0] <= p <= end <= there[1]:
        return
    if end - p > _MORE_BYTES:  # so that what goes on to the end of a run is looked at once
        there[0], there[1] = p, end
    k = piece_at(source[1], p)
    while p < end:
        p = _fill_piece(data, source, k)
        k += 1


@routine
def fill_lines(data: np.ndarray, source: Any, p: int, end: int, is_head: bool) -> None:
    """As `fill`, up to the first line feed and _MORE_BYTES behind it.

    Of a head it is that of the first empty line behind another one.
    """
    there = source[4]
    if p >= end or there[0] <= p <= end <= there[1]:
        return
    k = piece_at(source[1], p)
    i, line = p, p
    started = not is_head
    while i < end:
        stop = min(_fill_piece(data, source, k), end)
        while i < stop:
            if data[i] == _LF:
                is_empty = i == line or (i == line + 1 and data[line] == _CR)
                if started and (is_empty or not is_head):
                    fill(data, source, i, min(i + _MORE_BYTES, end))
                    return
                line = i + 1
            elif data[i] != _CR:
                started = True
            i += 1
        k += 1
    fill(data, source, p, end)
