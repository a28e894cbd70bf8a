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

from stratokit.kernels import kernel
from stratokit.streams import segment_rows
from stratokit.streams.assembler import Policy, assemble
from stratokit.streams.byte_runs import Streams
from stratokit.streams.flows import TCP
from stratokit.streams.segments import STREAM_LIMIT_BYTES, grouped, intervals, stream_offsets
from stratokit.streams.sides import (
    CLIENT,
    SERVER,
    VIEWS,
    WIRE,
    column,
    with_sides,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stratokit.streams.memory import Bytes
    from stratokit.streams.source import PacketSource

BATCH_BYTES = 1 << 28
BATCH_SEGMENTS = 1 << 21
_SENT = pl.col("payload_len").cast(pl.Int64)
_SENT_BEFORE = _SENT.cum_sum().over("flow_id", "direction", "src_ip", "src_port") - _SENT


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
        beside: packets without TCP that are wanted too, so that the capture need not be gone through again.
        only: conversations with a segment with payload for which this is true, and no others.
    """
    wanted = pl.lit(value=True)
    if only is not None:
        told, others = _told(capture, (pl.col("payload_len") > 0) & only, beside)
        yield _beside(others, policy)
        if told.is_empty():
            return
        wanted, beside = pl.col("flow_id").is_in(told.implode()), None
    found = segment_rows.parts(capture, wanted, beside)
    if found is not None:
        yield from _of_windows(capture, found, wanted, policy, beside)
    else:
        yield from _of_rows(capture, limit_bytes, wanted, policy, beside)


def _told(capture: PacketSource, segments: pl.Expr, beside: pl.Expr | None) -> tuple[pl.Series, pl.DataFrame]:
    """Conversations with such a segment, and the packets beside."""
    parts = segment_rows.parts(capture, segments, beside)
    if parts is not None:
        found = list(parts)
        flows = [part.segments["flow_id"].unique() for part in found if part.segments.height]
        told = pl.concat(flows).unique() if flows else pl.Series("flow_id", [], pl.UInt64)
        return told, segment_rows.others_of(found)
    rows = segment_rows.rows(capture, segments, beside, inside=True)
    either = rows.select(*segment_rows.WITH_PAYLOAD).collect()
    is_tcp = pl.col("ip_proto") == TCP
    return either.filter(is_tcp)["flow_id"].unique(), either.filter(~is_tcp)


def _of_windows(
    capture: PacketSource,
    found: Iterator[segment_rows.Part],
    wanted: pl.Expr,
    policy: Policy,
    beside: pl.Expr | None,
) -> Iterator[Streams]:
    """Of mapped files. Segments are kept as they come; if they become too many they are only counted, and
    read again in groups.
    """
    kept: list[segment_rows.Part] = []
    with_others: list[segment_rows.Part] = []
    counts, segments = np.zeros(0, np.int64), 0
    for part in found:
        if part.others.height:
            with_others.append(dataclasses.replace(part, segments=part.segments.clear(), memory=None))
        if part.segments.height:
            flows = np.bincount(column(part.segments, "flow_id", np.int64), minlength=counts.size)
            flows[: counts.size] += counts
            counts, segments = flows, segments + part.segments.height
            if segments <= BATCH_SEGMENTS:
                kept.append(part)
            else:
                kept.clear()
    besides = segment_rows.others_of(with_others) if beside is not None else None
    if segments <= BATCH_SEGMENTS:
        yield dataclasses.replace(_from_parts(kept, policy), beside=besides)
        return
    if besides is not None:
        yield _beside(besides, policy)
    flow_id = np.flatnonzero(counts)
    for low, high in _ranges(flow_id, counts[flow_id] / BATCH_SEGMENTS):
        group = segment_rows.parts(capture, wanted & pl.col("flow_id").is_between(low, high))
        assert group is not None
        yield _from_parts(list(group), policy)


def _from_parts(parts: list[segment_rows.Part], policy: Policy) -> Streams:
    packets, payload = segment_rows.segments_of(parts)
    return put_together(with_sides(packets), policy, payload)


def _ranges(flow_id: NDArray[np.int64], filled: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """First and last conversation of each group, given how much of a group each fills."""
    if not flow_id.size:
        return
    group = np.floor(np.cumsum(filled) - filled).astype(np.int64)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(group)) + 1, [group.size]])
    for first, last in itertools.pairwise(edges):
        yield int(flow_id[first]), int(flow_id[last - 1])


def _of_rows(
    capture: PacketSource, limit_bytes: int, wanted: pl.Expr, policy: Policy, beside: pl.Expr | None
) -> Iterator[Streams]:
    """Of captures whose bytes are not mapped, and have to be in memory."""
    is_mapped = getattr(capture, "is_mapped", False)
    if beside is not None:
        others = segment_rows.rows(capture, pl.lit(value=False), beside, inside=True)
        yield _beside(others.select(*segment_rows.WITH_PAYLOAD).collect(), policy)
    packets = segment_rows.rows(capture, wanted, None, inside=False)
    amounts = (pl.col("payload_len").cast(pl.Int64).sum(), pl.len().cast(pl.Int64).alias("segments"))
    sizes = packets.group_by("flow_id").agg(amounts).sort("flow_id").collect()
    filled = sizes["segments"].to_numpy() / BATCH_SEGMENTS
    if not is_mapped:
        filled = filled + sizes["payload_len"].to_numpy() / limit_bytes
    for low, high in _ranges(sizes["flow_id"].to_numpy(), filled):
        in_group = pl.col("flow_id").is_between(low, high)
        rows = packets.filter(in_group).select(*segment_rows.WITH_BYTES)
        # Of a conversation that fills the group alone not all is read.
        if not is_mapped and sizes.filter(in_group)["payload_len"].sum() > limit_bytes:
            rows = rows.with_columns(unread=_SENT_BEFORE >= STREAM_LIMIT_BYTES)
            read = (pl.when(~pl.col("unread")).then(name).alias(name) for name in ("data", "datagram"))
            rows = rows.with_columns(read)
        yield put_together(with_sides(rows.collect()), policy)


def _beside(others: pl.DataFrame, policy: Policy) -> Streams:
    """No streams, but other packets."""
    packets, payload = segment_rows.segments_of([])
    return dataclasses.replace(put_together(with_sides(packets), policy, payload), beside=others)


def put_together(packets: pl.DataFrame, policy: Policy = "first", payload: Bytes | None = None) -> Streams:
    """Segments in capture order, with sides, as streams; where no `payload` is given, from their bytes."""
    flows, index = _numbered(column(packets, "flow_id", np.int64))
    length = column(packets, "payload_len", np.int64)
    unread = int(length[packets["unread"].to_numpy()].sum()) if "unread" in packets.columns else 0
    payload = segment_rows.payload_of(packets) if payload is None else payload
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
        packets.drop("data", "datagram", "payload_offset", strict=False),
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
