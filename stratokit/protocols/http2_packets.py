"""Which packets have which fields of HTTP/2: as in Wireshark, the one that completes a frame.

The fields of a header block stand in the packet that completes it. The client's preface has none, and makes
its packet `http2` all the same. Left out: any header field by its name, and those of interim responses and
trailers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, routine
from stratokit.protocols import http2_frames as h2
from stratokit.protocols.buffers import with_rows
from stratokit.protocols.http_bodies import LOST, step
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, PacketFields, Table
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.byte_runs import ByteRuns
    from stratokit.streams.source import PacketSource

PART = "http2_frames"  # what the parser of HTTP/2 finds for us
_PREFACE = -1
# A frame: where its header begins; type, or _PREFACE; flags; stream; length; its last byte; for one that
# begins a header block the last byte of that, else -1.
_START, _TYPE, _FLAGS, _STREAM, _LENGTH, _LAST, _BLOCK_LAST = range(7)
_FIELDS = 7
# Of a header block.
_HEADERS = {
    "method": ("text", "http2.headers.method", "Method of the request."),
    "path": ("text", "http2.headers.path", "Target of the request."),
    "authority": ("text", "http2.headers.authority", "Host and port of the request."),
    "user_agent": ("text", "http2.headers.user_agent", "Field User-Agent of the request."),
    "status": ("u16", "http2.headers.status", "Status of the response."),
    "content_type": ("text", "http2.headers.content_type", "Field Content-Type."),
}
# From columns of streams: of the request and of the response.
_OF_SIDE = (
    {"method": "method", "path": "path", "authority": "authority", "user_agent": "user_agent"}
    | {"content_type": "request_type"},
    {"status": "status", "content_type": "content_type"},
)
_NAMES = {
    "type": ("u8", "http2.type", "0 DATA, 1 HEADERS, 3 RST_STREAM, 4 SETTINGS, 6 PING, 7 GOAWAY, ..."),
    "flags": ("u8", "http2.flags", "Flags of the frame: 0x01 END_STREAM or ACK, 0x04 END_HEADERS, ..."),
    "stream_id": ("u32", "http2.streamid", "Stream of the frame, 0 for the connection."),
    "length": ("u32", "http2.length", "Bytes behind the frame's header."),
    **_HEADERS,
}

TABLE = Table(
    "http2",
    "a frame of HTTP/2, or the client's preface",
    (
        Column("frame", "u64", "Packet that completed it; of the fields of headers, the header block."),
        *(Column(name, kind, doc) for name, (kind, _, doc) in _NAMES.items()),
    ),
    tuple(FilterField(field, (name,), doc) for name, (_, field, doc) in _NAMES.items()),
)


@routine
def _next(runs: Any, place: Any, lost: bool) -> tuple[int, int]:
    """(run, position) of the next frame's header from `place`, (run, position, last run); run -1 for none."""
    data, run_start, _, _ = runs
    r, p, last_run = place
    while True:
        end = run_start[r + 1]
        if lost or (end - p >= h2.HEADER_BYTES and not h2.valid_header(data, p)):
            p = h2.find_frame(data, p, end)
        if end - p >= h2.HEADER_BYTES:
            return r, p
        if r + 1 >= last_run:
            return -1, p
        r += 1
        p, lost = run_start[r], True


@routine
def _begins(data: np.ndarray, p: int, end: int) -> Any:
    """Whether frames begin at p: SETTINGS, a server's first one (section 3.4), or a chain of them."""
    if end - p >= h2.HEADER_BYTES and data[p + 3] == h2.SETTINGS and data[p + 4] == 0:
        return h2.valid_header(data, p)
    return h2.begins_frames(data, p, end)


@kernel
def _read(runs: Any, run_bounds: np.ndarray, asking: np.ndarray) -> np.ndarray:
    """Frames that were captured to their ends, connection by connection, the client's first."""
    data, run_start, _, _ = runs
    frames = np.empty((256, _FIELDS), np.int64)
    n = 0
    for turn in range(2 * asking.size):
        k, side = turn // 2, turn % 2
        s = 2 * k + (asking[k] if side == 0 else 1 - asking[k])
        r, last_run = run_bounds[s], run_bounds[s + 1]
        if r == last_run:
            continue
        p, block, lost = run_start[r], i64(-1), False
        if side == 0 and h2.is_preface(data, p, run_start[r + 1]):
            frames = with_rows(frames, n, 1)
            p = min(p + h2.PREFACE.size, run_start[r + 1])
            frames[n, :] = _PREFACE
            frames[n, _LAST] = p - 1
            n += 1
        elif not _begins(data, p, run_start[r + 1]):
            lost = True
        while r >= 0:
            r, p = _next(runs, (r, p, last_run), lost)
            if r < 0:
                break
            size = h2.frame_size(data, p)
            frames = with_rows(frames, n, 1)
            row = frames[n]
            row[_START], row[_TYPE], row[_FLAGS], row[_LENGTH] = p, data[p + 3], data[p + 4], size
            row[_STREAM], row[_BLOCK_LAST] = h2.be32(data, p + 5) & 0x7FFFFFFF, -1
            r, p, came_to, whole = step(runs, r, last_run, p + h2.HEADER_BYTES, size)
            lost = came_to == LOST
            row[_LAST] = p - 1
            if not whole:
                block = -1
                continue
            if row[_TYPE] in (h2.HEADERS, h2.PUSH_PROMISE):
                block = n
            elif row[_TYPE] != h2.CONTINUATION:
                block = -1
            if block >= 0 and row[_FLAGS] & h2.END_HEADERS:
                frames[block, _BLOCK_LAST], block = row[_LAST], -1
            n += 1
    return frames[:n]


def frames(
    runs: ByteRuns, asking: NDArray[np.int64], streams: pl.DataFrame, starts: NDArray[np.int64]
) -> pl.DataFrame:
    """Rows of TABLE for these connections.

    Args:
        streams: their streams, as `http2` reads them.
        starts: per stream the places at which the header blocks of its request and response begin.
    """
    runs = runs.whole()
    bytes_ = (runs.data, runs.run_start, runs.run_offset, runs.source)
    found = _read(bytes_, runs.run_bounds, asking)

    def completed(place: int) -> pl.Series:
        at = found[:, place]
        frame = pl.Series(runs.frame[runs.ready_row_at(np.maximum(at, 0))])
        return pl.select(pl.when(pl.Series(at >= 0)).then(frame.cast(pl.UInt64))).to_series()

    rows = pl.DataFrame(
        {
            "start": found[:, _START],
            "frame": completed(_LAST),
            "block_frame": completed(_BLOCK_LAST),
            "type": found[:, _TYPE],
            "flags": found[:, _FLAGS],
            "stream_id": found[:, _STREAM],
            "length": found[:, _LENGTH],
        }
    )
    is_frame = pl.col("type") != _PREFACE
    parts = [
        rows.select("frame", *(pl.when(is_frame).then(n) for n in ("type", "flags", "stream_id", "length")))
    ]
    blocks = rows.select("start", frame="block_frame").drop_nulls()
    for side, names in enumerate(_OF_SIDE):
        told = streams.select(start=pl.Series(starts[:, side]), **names).filter(pl.col("start") >= 0)
        parts.append(blocks.join(told, on="start").drop("start"))
    return pl.concat(parts, how="diagonal_relaxed")


def build(capture: PacketSource) -> pl.LazyFrame:
    """Frames, and the fields of header blocks; columns that do not concern a row are null."""
    from stratokit.protocols.over_tcp import messages

    def rows() -> pl.DataFrame:
        return pl.concat(
            [pl.DataFrame(schema=frame_schema(TABLE)), *messages(capture, PART)], how="diagonal_relaxed"
        )

    return deferred(frame_schema(TABLE), rows)


PACKET_FIELDS = PacketFields(TABLE, build)
