"""TCP payload put together: per conversation and direction, runs of bytes with a map back to the packets.

Bytes that arrived twice are taken from the first segment that brought them, or as a policy of `assembler`
says. What nothing brought is a gap between two runs. A conversation that was recorded at both ends is put
together for each end, and the more complete view is kept; the client's, when they are equal.

Bounds: conversations are taken in groups of at most `BATCH_BYTES` of payload, where that is not mapped, and
of about `BATCH_SEGMENTS`; of one that alone exceeds it, and of any stream, only
`segments.STREAM_LIMIT_BYTES` a direction are kept. What that cuts is counted in `losses`.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.layers import i64
from stratokit.formats.source import forget_pages
from stratokit.kernels import kernel
from stratokit.streams.assembler import Policy, assemble
from stratokit.streams.flows import FIN, SYN, TCP
from stratokit.streams.memory import Bytes, copy_bytes, parts_of
from stratokit.streams.segments import STREAM_LIMIT_BYTES, grouped, intervals, stream_offsets
from stratokit.streams.sides import (
    CLIENT,
    SERVER,
    SIDE_COLUMNS,
    VIEWS,
    WIRE,
    column,
    sender_is_greater,
    with_sides,
)
from stratokit.streams.source import packet_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stratokit.streams.source import PacketSource

BATCH_BYTES = 1 << 28
BATCH_SEGMENTS = 1 << 21
# Of a mapped file so much payload is looked at before its pages are given back.
_LOOKED_AT_BYTES = 1 << 27
# Who sent a packet, and when and where it was seen, for what is told about its messages.
SEEN = ("dst_ip", "pid", "comm", "pod", "namespace", "container_id")
_SENT = pl.col("payload_len").cast(pl.Int64)
_SENT_BEFORE = _SENT.cum_sum().over("flow_id", "direction", "src_ip", "src_port") - _SENT
_READ = dict.fromkeys(
    (
        *sorted({*SIDE_COLUMNS, "frame", "ts", "tcp_seq", "payload_len"}),
        *SEEN,
        "data",
        "datagram",
        "payload_offset",
    )
)
# All segments of a batch are in memory at once: texts that few packets differ in are numbers there.
_TEXTS = {"direction", "src_ip", *SEEN} - {"pid"}
_COLUMNS = (
    *(pl.col(name).cast(pl.Categorical) if name in _TEXTS else pl.col(name) for name in _READ),
    sender_is_greater(),
)


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
    ) -> ByteRuns:
        """The bytes of the flows that `wanted` marks; of each stream at most the first `limit_bytes`.

        Args:
            only: for each of these flows the side whose bytes are wanted, 0 or 1; the other stays empty.
        """
        chosen = np.repeat(wanted, 2)
        streams = np.flatnonzero(chosen)
        limits = np.full(streams.size, limit_bytes, np.int64)
        if only is not None:
            limits[2 * np.arange(only.size) + 1 - only] = 0
        copied = _copy(self.pieces, self.piece_bounds, self.payload.data, streams, limits)
        data, run_bounds, run_start, run_offset, piece_start, piece_row, piece_ready = copied
        return ByteRuns(
            data=data,
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
        )


def batches(
    capture: PacketSource,
    limit_bytes: int = BATCH_BYTES,
    policy: Policy = "first",
    beside: pl.Expr | None = None,
    only: pl.Expr | None = None,
) -> Iterator[Streams]:
    """All TCP conversations of a capture with their bytes, a group after the other, by flow_id.

    Args:
        policy: which of several segments the bytes are taken from that all of them brought.
        beside: packets that are wanted too, so that the capture need not be gone through again for them.
        only: conversations with a segment with payload for which this is true, and no others.
    """
    # Segments without payload or SYN or FIN say nothing about bytes.
    matters = (pl.col("payload_len") > 0) | (pl.col("tcp_flags") & (SYN | FIN) != 0)
    is_tcp = (pl.col("ip_proto") == TCP) & matters
    every = capture.rows("packet").filter(pl.col("flow_id").is_not_null())
    packets = every.filter(is_tcp)
    is_mapped = getattr(capture, "is_mapped", False)
    if only is not None:
        telling = (pl.col("ip_proto") == TCP) & (pl.col("payload_len") > 0) & only
        told = every.filter(telling if beside is None else telling | beside).select(_COLUMNS).collect()
        flows = told.filter(ip_proto=TCP)["flow_id"].unique()
        yield _beside(told.filter(pl.col("ip_proto") != TCP), policy)
        if flows.is_empty():
            return
        packets, beside = packets.filter(pl.col("flow_id").is_in(flows.implode())), None
    if is_mapped and capture.has_at_most(BATCH_SEGMENTS):  # type: ignore[attr-defined]
        found = (packets if beside is None else every.filter(is_tcp | beside)).select(_COLUMNS).collect()
        empty = [name for name in _READ if found[name].null_count() == found.height]
        found = found.with_columns(pl.lit(None, found.schema[name]).alias(name) for name in empty)
        others = None
        if beside is not None:
            others = found.filter(pl.col("ip_proto") != TCP)
            found = found.filter(pl.col("ip_proto") == TCP) if others.height else found
        yield dataclasses.replace(put_together(with_sides(found), policy), beside=others)
        return
    if beside is not None:
        yield _beside(every.filter(beside).select(_COLUMNS).collect(), policy)
    amounts = (pl.col("payload_len").cast(pl.Int64).sum(), pl.len().cast(pl.Int64).alias("segments"))
    sizes = packets.group_by("flow_id").agg(amounts).sort("flow_id").collect()
    filled = sizes["segments"].cum_sum() / BATCH_SEGMENTS
    if not is_mapped:
        filled += sizes["payload_len"].cum_sum() / limit_bytes
    group = filled.shift(1, fill_value=0.0).floor().cast(pl.Int64)
    for _, part in sizes.group_by(group, maintain_order=True):
        low, high = part["flow_id"][0], part["flow_id"][-1]
        rows = packets.filter(pl.col("flow_id").is_between(low, high)).select(_COLUMNS)
        if (
            not is_mapped and part["payload_len"].sum() > limit_bytes
        ):  # of one that fills the group alone not all is read
            rows = rows.with_columns(unread=_SENT_BEFORE >= STREAM_LIMIT_BYTES)
            read = (pl.when(~pl.col("unread")).then(name).alias(name) for name in ("data", "datagram"))
            rows = rows.with_columns(read)
        yield put_together(with_sides(rows.collect()), policy)


def _beside(others: pl.DataFrame, policy: Policy) -> Streams:
    """No streams, but other packets."""
    return dataclasses.replace(put_together(with_sides(others.clear()), policy), beside=others)


def put_together(packets: pl.DataFrame, policy: Policy = "first") -> Streams:
    """Segments in capture order, with sides, `data` and `payload_offset`, as streams."""
    flows, index = _numbered(column(packets, "flow_id", np.int64))
    length = column(packets, "payload_len", np.int64)
    unread = int(length[packets["unread"].to_numpy()].sum()) if "unread" in packets.columns else 0
    payload = parts_of(packet_bytes(packets), column(packets, "payload_offset", np.int64), length)
    key = (index * VIEWS + column(packets, "view", np.int64)) * 2 + ~packets["from_client"].to_numpy()
    order, bounds = grouped(key, flows.size * VIEWS * 2)
    flags = column(packets, "tcp_flags", np.uint16)
    seq = column(packets, "tcp_seq", np.uint32)
    offsets, began, fin, outside = stream_offsets(seq, flags, length, order, bounds)
    starts, sizes, skips, rows, bounds, cut = intervals(offsets, payload.size, flags, order, bounds, began)
    pieces, piece_bounds = assemble(starts, sizes, bounds, policy)
    view = _best_views(pieces, piece_bounds, flows.size)
    streams = ((np.arange(flows.size) * VIEWS + view)[:, None] * 2 + np.arange(2)).ravel()
    pieces, piece_bounds = _of_streams(pieces, piece_bounds, streams, (starts, skips, rows, payload.start))
    return Streams(
        flows,
        view,
        began[streams],
        fin[streams],
        pieces,
        piece_bounds,
        payload,
        packets.drop("data", "datagram", strict=False),
        column(packets, "frame", np.int64),
        packets["ts"].to_physical().to_numpy(),
        {"segment_outside_window": int(outside), "stream_cut_bytes": int(cut) + unread},
    )


def _numbered(flow_id: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The conversations there are, ascending, and which of them each packet belongs to."""
    first = int(flow_id.min(initial=np.iinfo(np.int64).max))
    there = np.zeros(int(flow_id.max(initial=first - 1)) - first + 1, np.bool_)
    there[flow_id - first] = True
    return np.flatnonzero(there) + first, (np.cumsum(there) - 1)[flow_id - first]


@kernel
def _best_views(pieces: np.ndarray, piece_bounds: np.ndarray, flows: int) -> np.ndarray:
    """The view of each flow that holds most bytes of both directions; of equal ones client, server, wire."""
    view = np.empty(flows, np.uint8)
    for f in range(flows):
        most = -1
        for v in (CLIENT, SERVER, WIRE):
            stream = (f * VIEWS + v) * 2
            total = 0
            for p in range(piece_bounds[stream], piece_bounds[stream + 2]):
                total += pieces[p, 1]
            if total > most:
                most = total
                view[f] = v
    return view


@kernel
def _of_streams(
    pieces: np.ndarray, piece_bounds: np.ndarray, streams: np.ndarray, intervals: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of some streams, one stream behind the other, in the form of `Streams.pieces`."""
    starts, skips, rows, places = intervals
    bounds = np.zeros(streams.size + 1, np.int64)
    for k, s in enumerate(streams):
        bounds[k + 1] = bounds[k] + piece_bounds[s + 1] - piece_bounds[s]
    out = np.empty((bounds[-1], 4), np.int64)
    n = 0
    for s in streams:
        for p in range(piece_bounds[s], piece_bounds[s + 1]):
            taken = pieces[p, 2]
            row = rows[taken]
            out[n, 0], out[n, 1], out[n, 2] = pieces[p, 0], pieces[p, 1], row
            out[n, 3] = places[row] + skips[taken] + pieces[p, 0] - starts[taken]
            n += 1
    return out, bounds


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
def _copy(
    pieces: np.ndarray, piece_bounds: np.ndarray, payload: np.ndarray, streams: np.ndarray, limits: np.ndarray
) -> Any:
    """(data, run_bounds, run_start, run_offset, piece_start, piece_row, piece_ready) of some streams."""
    total, count = 0, 0
    for k, s in enumerate(streams):
        room = limits[k]
        count += piece_bounds[s + 1] - piece_bounds[s] if room else 0
        for p in range(piece_bounds[s], piece_bounds[s + 1]):
            total += min(pieces[p, 1], room)
            room -= min(pieces[p, 1], room)
    data = np.empty(total, np.uint8)
    run_bounds = np.zeros(streams.size + 1, np.int64)
    run_start = np.empty(count + 1, np.int64)
    run_offset = np.empty(count, np.int64)
    piece_start = np.empty(count, np.int64)
    piece_row = np.empty(count, np.int64)
    piece_ready = np.empty(count, np.int64)
    at, runs, n = 0, 0, 0
    for k, s in enumerate(streams):
        ready, room = i64(-1), limits[k]
        for p in range(piece_bounds[s], piece_bounds[s + 1]):
            offset, size, row, source = pieces[p, 0], min(pieces[p, 1], room), pieces[p, 2], pieces[p, 3]
            if size == 0:
                break
            room -= size
            if p == piece_bounds[s] or pieces[p - 1, 0] + pieces[p - 1, 1] != offset:
                run_start[runs] = at
                run_offset[runs] = offset
                runs += 1
            piece_start[n] = at
            piece_row[n] = row
            ready = max(ready, row)
            piece_ready[n] = ready
            n += 1
            copy_bytes(data, at, payload, source, size)
            at += size
        run_bounds[k + 1] = runs
    run_start[runs] = at
    runs_found = (data, run_bounds, run_start[: runs + 1], run_offset[:runs])
    return *runs_found, piece_start[:n], piece_row[:n], piece_ready[:n]
