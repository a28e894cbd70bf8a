"""One TCP conversation in the order in which its bytes became readable, as in Wireshark's "follow stream".

Bytes come once: those that were seen before are left out, those that came too early wait for what they
follow. When the receiver acknowledges beyond a hole, the hole is told and reading goes on behind it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.layers import i64
from stratokit.errors import UsageError
from stratokit.kernels import kernel, routine
from stratokit.streams.byte_runs import Payload
from stratokit.streams.flows import ACK, SYN, TCP
from stratokit.streams.sides import CLIENT, SERVER, SIDE_COLUMNS, WIRE, column, with_sides
from stratokit.streams.tcp_state import WRAP, after

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stratokit.streams.source import PacketSource

# Segments of a direction that wait for what they follow; of more, the earliest one counts as lost.
WAITING_MAX = 1 << 16
# That of a fragmented packet stands in the row of the fragment that completed it.
_PAYLOAD = (
    pl.coalesce("datagram", "data").bin.slice(pl.col("payload_offset"), pl.col("payload_len")).fill_null(b"")
)
_COLUMNS = sorted({*SIDE_COLUMNS, "frame", "ts", "tcp_seq", "tcp_ack", "payload_len"})
_SIDE = np.dtype(
    [
        ("known", "u1"),
        ("next_seq", "u4"),
        ("first", "i8"),
        ("last", "i8"),
        ("lowest", "u4"),
        ("waiting", "i8"),
    ],
    align=True,
)
_MISSING = -1


@kernel
def _tell(out: Any, n: int, row: int, skip: int, size: int) -> int:
    out[n, 0], out[n, 1], out[n, 2] = row, skip, size
    return n + 1


@routine
def _one_that_fits(
    side: Any, seqs: np.ndarray, sizes: np.ndarray, later: np.ndarray, out: Any, n: int
) -> Any:
    """Look for a waiting segment that holds the next bytes, in order of arrival; (found one, n)."""
    if side.first < 0 or after(i64(side.lowest), i64(side.next_seq)):
        return False, n
    before, at = i64(-1), i64(side.first)
    lowest = i64(seqs[at])
    while at >= 0:
        seq, size = i64(seqs[at]), i64(sizes[at])
        if after(lowest, seq):
            lowest = seq
        if not after(seq, i64(side.next_seq)):
            end = (seq + size) & WRAP
            if after(end, i64(side.next_seq)):
                skip = (i64(side.next_seq) - seq) & WRAP
                n = _tell(out, n, at, skip, size - skip)
                side.next_seq = end
            if before < 0:
                side.first = later[at]
            else:
                later[before] = later[at]
            if side.last == at:
                side.last = before
            side.waiting -= 1
            return True, n
        before, at = at, i64(later[at])
    side.lowest = lowest
    return False, n


@routine
def _wait(side: Any, i: int, seqs: np.ndarray, later: np.ndarray) -> Any:
    """Put a segment behind the others; returns the one that had to give way, or -1."""
    gone = i64(-1)
    if side.waiting == WAITING_MAX:
        gone = i64(side.first)
        side.first = later[gone]
        side.waiting -= 1
    later[i] = -1
    if side.first < 0:
        side.first = i
        side.lowest = seqs[i]
    else:
        later[side.last] = i
        if after(i64(side.lowest), i64(seqs[i])):
            side.lowest = seqs[i]
    side.last = i
    side.waiting += 1
    return gone


@routine
def _go_on_behind_hole(side: Any, ack: int, out: Any, n: int, from_client: bool) -> Any:
    """Whether the receiver has what is missing before the first waiting segment; then the hole is told."""
    if side.first < 0 or not after(ack, i64(side.lowest)):
        return False, n
    size = (i64(side.lowest) - i64(side.next_seq)) & WRAP
    side.next_seq = side.lowest
    return True, _tell(out, n, _MISSING, 1 if from_client else 0, size)


@kernel
def _follow(segments: Any) -> Any:
    """(chunks, bytes given up). A chunk is (row, bytes to skip, size), or (-1, from client, missing)."""
    from_client, flags, seqs, acks, lengths, sizes = segments
    sides = np.zeros(2, _SIDE)
    sides[0].first = sides[1].first = -1
    later = np.empty(seqs.size, np.int64)
    # Each segment is told once, and before each a hole.
    out = np.empty((2 * seqs.size + 1, 3), np.int64)
    n, cut = i64(0), i64(0)
    for i in range(seqs.size):
        me = 0 if from_client[i] else 1
        mine, other = sides[me], sides[1 - me]
        if flags[i] & ACK:
            more = True
            while more:
                more, n = _one_that_fits(other, seqs, sizes, later, out, n)
                if not more:
                    more, n = _go_on_behind_hole(other, i64(acks[i]), out, n, me == 1)
        seq, length = i64(seqs[i]), i64(lengths[i])
        phantom = 1 if flags[i] & SYN else 0
        if not mine.known:
            mine.known = True
            mine.next_seq = seq
        skip = (i64(mine.next_seq) - seq) & WRAP if after(i64(mine.next_seq), seq) else 0
        if skip and not after((seq + length) & WRAP, i64(mine.next_seq)):
            continue
        if after(seq, i64(mine.next_seq)):
            if sizes[i] > 0:
                gone = _wait(mine, i, seqs, later)
                cut += i64(sizes[gone]) if gone >= 0 else 0
            continue
        mine.next_seq = (seq + length + phantom) & WRAP
        if sizes[i] > skip:
            n = _tell(out, n, i, skip, i64(sizes[i]) - skip)
        more = True
        while more:
            more, n = _one_that_fits(mine, seqs, sizes, later, out, n)
    return out[:n], cut


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of one packet; without a packet, so many bytes are missing in the capture."""

    from_client: bool
    data: bytes
    missing_bytes: int = 0
    frame: int | None = None
    ts_ns: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Stream:
    """A conversation as `follow` reads it.

    `number` counts TCP conversations alone, from 0, as Wireshark's tcp.stream; `first_from_client` tells who
    sent the first packet. `losses` are counters of schemas/counters.toml: what came too early and had to give
    way (`WAITING_MAX`).
    """

    flow_id: int
    number: int
    client: tuple[str, int]
    server: tuple[str, int]
    first_from_client: bool
    losses: dict[str, int]
    _payload: Payload
    _chunks: NDArray[np.int64]
    _from_client: NDArray[np.bool_]
    _frame: NDArray[np.int64]
    _ts_ns: NDArray[np.int64]

    def __iter__(self) -> Iterator[Chunk]:
        """Chunks of both directions, in the order in which they could be read."""
        for row, skip, size in self._chunks.tolist():
            if row == _MISSING:
                yield Chunk(bool(skip), b"", size)
                continue
            start = int(self._payload.bounds[row]) + skip
            data = self._payload.data[start : start + size].tobytes()
            yield Chunk(bool(self._from_client[row]), data, 0, int(self._frame[row]), int(self._ts_ns[row]))

    def frame(self) -> pl.DataFrame:
        """Chunks as rows: from_client, frame, ts, missing_bytes, data."""
        rows = [(c.from_client, c.frame, c.ts_ns, c.missing_bytes, c.data) for c in self]
        schema: dict[str, Any] = {
            "from_client": pl.Boolean,
            "frame": pl.UInt64,
            "ts": pl.Datetime("ns", "UTC"),
            "missing_bytes": pl.UInt64,
            "data": pl.Binary,
        }
        return pl.DataFrame(rows, schema=schema, orient="row")

    def bytes(self, *, from_client: bool) -> bytes:
        """All bytes of one direction, without what is missing."""
        return b"".join(chunk.data for chunk in self if chunk.from_client == from_client)


def follow(capture: PacketSource, flow_id: int) -> Stream:
    """The TCP conversation of that number, from the client's view where both ends were recorded.

    Needs memory for its payload.

    Raises:
        UsageError: there is no TCP conversation of that number.
    """
    is_tcp = (pl.col("ip_proto") == TCP) & pl.col("flow_id").is_not_null()
    tcp = capture.rows("packet").filter(is_tcp)
    # Without a payload's length the header contradicts itself, and nothing in it can be believed.
    whole = pl.col("payload_len").is_not_null()
    rows = tcp.filter(pl.col("flow_id") == flow_id, whole).select(*_COLUMNS, payload=_PAYLOAD).collect()
    if rows.is_empty():
        raise UsageError(f"there is no TCP conversation {flow_id}; the table tcp lists them by flow_id")
    before = tcp.filter(pl.col("flow_id") < flow_id).select(pl.col("flow_id").n_unique()).collect().item()
    packets = with_sides(rows)
    views = set(packets["view"].to_list())
    packets = packets.filter(pl.col("view") == next(v for v in (CLIENT, SERVER, WIRE) if v in views))
    payload = Payload.of(packets["payload"])
    from_client = packets["from_client"].to_numpy()
    segments = (
        from_client,
        column(packets, "tcp_flags", np.int64),
        column(packets, "tcp_seq", np.uint32),
        column(packets, "tcp_ack", np.uint32),
        column(packets, "payload_len", np.int64),
        np.diff(payload.bounds),
    )
    chunks, cut = _follow(segments)
    first = packets.row(0, named=True)
    ends = [(str(first[f"{end}_ip"]), int(first[f"{end}_port"])) for end in ("src", "dst")]
    client, server = ends if first["from_client"] else reversed(ends)
    return Stream(
        flow_id,
        int(before),
        client,
        server,
        bool(first["from_client"]),
        {"follow_dropped_bytes": int(cut)} if cut else {},
        payload,
        chunks,
        from_client,
        column(packets, "frame", np.int64),
        packets["ts"].to_physical().fill_null(0).to_numpy(),
    )
