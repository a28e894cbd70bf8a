"""HTTP/2 without TLS (RFC 9113, HPACK of RFC 7541): connections, and their requests for the table `http`.

Implemented: preface, prior knowledge, upgrade (the request before it is that of stream 1), HPACK with
dynamic tables, CONTINUATION, padding, trailers, interim responses, push, resets, GOAWAY, flow control (how
long a side had to wait), reading on after missing bytes, connections that began before the capture (what the
unknown part of a table held is null, and counted). Left out: priorities, extensions (their frames are
skipped), extended CONNECT.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.kernels import kernel
from stratokit.protocols import hpack, http2_packets
from stratokit.protocols import http2_frames as h2
from stratokit.protocols import http2_rows as row_of
from stratokit.protocols.base import Protocol
from stratokit.protocols.http2_notes import new_notes
from stratokit.protocols.http2_streams import read_connections
from stratokit.protocols.over_tcp import Heads, Parsed, StreamParser, messages, sighted
from stratokit.protocols.text import text_column
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.ends import END_COLUMNS, with_ends
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.byte_runs import ByteRuns
    from stratokit.streams.source import PacketSource

# Error codes (RFC 9113 section 7).
ERRORS = dict(
    enumerate(
        (
            "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
            "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
            "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
        )
    )
)  # fmt: skip

TABLE = Table(
    "http2",
    "an HTTP/2 connection; its requests are in `http`",
    (
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("ts", "time", "First byte that was captured of it."),
        Column(
            "began", "bool", "It was captured from its beginning; else early header fields may be unknown."
        ),
        Column("streams", "u32", "Requests."),
        Column("frames_c2s", "u64", "Frames from client to server."),
        Column("frames_s2c", "u64", "Frames from server to client."),
        Column("client_max_streams", "u32", "SETTINGS_MAX_CONCURRENT_STREAMS that the client announced."),
        Column("server_max_streams", "u32", "The same of the server."),
        Column("pings", "u32", "PING frames of both sides that were no answers."),
        Column("resets_by_client", "u32", "Streams that the client reset."),
        Column("resets_by_server", "u32", "Streams that the server reset."),
        Column("goaway", "text", "Error code of the last GOAWAY, NO_ERROR for an orderly end."),
        Column("goaway_by", "text", "Who sent it: client or server."),
        Column("goaway_last_stream", "u32", "The last stream that it promises to have taken."),
        Column("ts_goaway", "time", "When it came."),
        Column(
            "client_stall_ns", "s64", "How long the connection's window kept the client from sending.", "ns"
        ),
        Column("server_stall_ns", "s64", "How long it kept the server from sending.", "ns"),
        Column(
            "unknown_fields", "u32", "Header fields that refer to what came before the capture or in a gap."
        ),
        Column("unread_blocks", "u32", "Header blocks that could not be read."),
        Column("skipped_bytes", "u64", "Bytes that belong to no frame that could be read.", "bytes"),
        Column("first_frame", "u64", "Packet of the first byte."),
        Column("goaway_frame", "u64", "Packet of the GOAWAY."),
        *END_COLUMNS[:-1],
    ),
    (
        FilterField("http2.goaway.error", ("goaway",), "Error code of the GOAWAY."),
        FilterField("http2.goaway.last_stream_id", ("goaway_last_stream",), "Last stream of the GOAWAY."),
    ),
)


@kernel
def _who_asks(data: np.ndarray, bounds: np.ndarray, began: np.ndarray) -> np.ndarray:
    asks = np.full((bounds.size - 1) // 2, -1, np.int64)
    for f in range(asks.size):
        framed = 0
        for side in range(2):
            p, end = bounds[2 * f + side], bounds[2 * f + side + 1]
            if h2.is_preface(data, p, end):
                asks[f] = side
                framed = 0
                break
            # From the middle: both sides, or the one that was captured, consist of frames.
            if p < end:
                framed += 1 if not began[2 * f + side] and h2.begins_frames(data, p, end) else -2
        if framed > 0:
            asks[f] = 0
    return asks


def recognise(heads: Heads) -> NDArray[np.int64]:
    """By the preface of the client, or, where the beginning was not captured, by chains of frames."""
    asks: NDArray[np.int64] = _who_asks(heads.data, heads.bounds, heads.began)
    return asks


def parse(runs: ByteRuns, asking: NDArray[np.int64]) -> Parsed:
    """Streams as requests and responses, connections."""
    pieces = (runs.piece_start, runs.piece_ready)
    bytes_ = (runs.data, runs.run_start, runs.run_offset, runs.source)

    def read(*, noting: bool) -> Any:
        notes = new_notes(wanted=noting)
        return read_connections(bytes_, runs.run_bounds, asking, pieces, runs.ts_ns, hpack.new_table(), notes)

    def noted() -> pl.DataFrame:
        _, _, text, notes, _ = read(noting=True)
        return http2_packets.rows(runs, notes, text)

    streams, conns, text, _, dropped = read(noting=False)
    rows = functools.cache(lambda: _rows_of_streams(runs, streams, conns, text))
    counters = {
        "http_skipped_bytes": int(conns[:, row_of.SKIPPED].sum()),
        "http2_unread_blocks": int(conns[:, row_of.UNREAD_BLOCKS].sum()),
        "http2_streams_dropped": int(dropped),
    }
    grpc = pl.any_horizontal(
        pl.col("request_content_type", "content_type").str.starts_with("application/grpc")
    )
    seen = pl.col("ts_request").is_not_null() | pl.col("ts_response").is_not_null()
    parts = {
        "grpc": lambda: rows().filter(grpc),
        "http": lambda: rows().filter(seen),
        "http2": lambda: _rows_of_connections(runs, conns, streams, asking),
        http2_packets.PART: noted,
    }
    return Parsed(parts, counters)


def _of_side(runs: ByteRuns, streams: NDArray[np.int64], side: int, what: str) -> dict[str, Any]:
    at = side * row_of.SIDE_FIELDS
    there = streams[:, at + row_of.START] >= 0
    first, last = (
        runs.ready_row_at(np.maximum(streams[:, at + place], 0)) for place in (row_of.START, row_of.LAST)
    )
    columns = {
        f"ts_{what}": runs.ts_ns[first],
        f"ts_{what}_last": runs.ts_ns[last],
        f"{what}_frame": runs.frame[first],
        f"{what}_last_frame": runs.frame[last],
        f"{what}_bytes": streams[:, at + row_of.BYTES],
        f"{what}_body_bytes": streams[:, at + row_of.BODY],
        f"{what}_cut": streams[:, at + row_of.CUT] == 1,
        f"{what}_stall_ns": streams[:, at + row_of.STALL_NS],
        f"{what}_messages": streams[:, at + row_of.MESSAGES],
        f"{what}_message_bytes": streams[:, at + row_of.MESSAGE_BYTES],
    }
    return {name: _where(there, values) for name, values in columns.items()}


def _where(there: NDArray[np.bool_], values: NDArray[Any]) -> pl.Series:
    return pl.select(pl.when(pl.Series(there)).then(pl.Series(values))).to_series()


def _rows_of_streams(
    runs: ByteRuns, streams: NDArray[np.int64], conns: NDArray[np.int64], text: NDArray[np.uint8]
) -> pl.DataFrame:
    """One row a stream, as the table `http` has them, with columns for `grpc` besides."""

    def texts(column: int) -> pl.Series:
        return text_column(text, streams[:, column], streams[:, column + 1])

    conn = conns[streams[:, row_of.FLOW]]
    known = (conn[:, row_of.KNOWN] == 1) & (conn[:, row_of.CONN_SIDE_FIELDS + row_of.KNOWN] == 1)
    status, reset = streams[:, row_of.STATUS], streams[:, row_of.RESET_CODE]
    frame = pl.DataFrame(
        {
            "flow_id": runs.flow_id[streams[:, row_of.FLOW]],
            "stream_id": streams[:, row_of.STREAM],
            **_of_side(runs, streams, 0, "request"),
            **_of_side(runs, streams, 1, "response"),
            "method": texts(row_of.METHOD),
            "path": texts(row_of.PATH),
            "authority": texts(row_of.AUTHORITY),
            "host": texts(row_of.HOST),
            "user_agent": texts(row_of.AGENT),
            "content_type": texts(row_of.TYPE),
            "content_encoding": texts(row_of.ENCODING),
            "request_content_type": texts(row_of.ASKED_TYPE),
            "grpc_status": texts(row_of.GRPC_STATUS),
            "grpc_message": texts(row_of.GRPC_MESSAGE),
            "grpc_timeout": texts(row_of.TIMEOUT),
            "status": _where(status >= 0, status),
            "reset": _named(reset),
            "reset_by": _side(_where(reset >= 0, streams[:, row_of.RESET_SIDE])),
            "unknown_fields": streams[:, row_of.UNKNOWN],
            "windows_known": known,
        }
    )
    stalls = pl.when("windows_known").then(pl.col("^.*_stall_ns$"))
    return frame.with_columns(stalls, host=pl.coalesce("authority", "host"), version=pl.lit("HTTP/2"))


def _named(codes: NDArray[np.int64]) -> pl.Series:
    code = pl.Series("code", codes)
    other = pl.format("0x{}", pl.col("code"))
    named = pl.when(pl.col("code") >= 0).then(
        pl.col("code").replace_strict(ERRORS, default=other, return_dtype=pl.String)
    )
    return code.to_frame().select(named).to_series()


def _side(sides: pl.Series) -> pl.Series:
    return sides.replace_strict({0: "client", 1: "server"}, default=None, return_dtype=pl.String)


def _rows_of_connections(
    runs: ByteRuns, conns: NDArray[np.int64], streams: NDArray[np.int64], asking: NDArray[np.int64]
) -> pl.DataFrame:
    """One row a connection."""
    client, server = conns[:, : row_of.CONN_SIDE_FIELDS], conns[:, row_of.CONN_SIDE_FIELDS :]
    starts = np.stack([client[:, row_of.FIRST], server[:, row_of.FIRST]])
    rows_at = np.where(starts >= 0, runs.ready_row_at(np.maximum(starts, 0)), np.iinfo(np.int64).max)
    first = rows_at.min(0)
    seen = first < np.iinfo(np.int64).max
    first = np.where(seen, first, 0)
    away = np.maximum(client[:, row_of.GOAWAY_AT], -1)
    by_server = server[:, row_of.GOAWAY_AT] >= 0
    side = np.where(by_server, 1, np.where(away >= 0, 0, -1))
    goaway = np.where(by_server[:, None], server[:, : row_of.CONN_SIDE_FIELDS], client)
    at = goaway[:, row_of.GOAWAY_AT]
    away_row = runs.ready_row_at(np.maximum(at, 0))
    known = (client[:, row_of.KNOWN] == 1) & (server[:, row_of.KNOWN] == 1)
    count = asking.size
    flow = streams[:, row_of.FLOW]

    def total(weights: NDArray[Any]) -> NDArray[np.int64]:
        return np.bincount(flow, weights, count).astype(np.int64)

    reset_side = np.where(streams[:, row_of.RESET_CODE] >= 0, streams[:, row_of.RESET_SIDE], -1)
    frame = pl.DataFrame(
        {
            "flow_id": runs.flow_id,
            "ts": runs.ts_ns[first],
            "began": known,
            "streams": np.bincount(flow, minlength=count),
            "frames_c2s": client[:, row_of.FRAMES],
            "frames_s2c": server[:, row_of.FRAMES],
            "client_max_streams": _where(client[:, row_of.MAX_STREAMS] >= 0, client[:, row_of.MAX_STREAMS]),
            "server_max_streams": _where(server[:, row_of.MAX_STREAMS] >= 0, server[:, row_of.MAX_STREAMS]),
            "pings": client[:, row_of.PINGS] + server[:, row_of.PINGS],
            "resets_by_client": total(reset_side == 0),
            "resets_by_server": total(reset_side == 1),
            "goaway": _named(goaway[:, row_of.GOAWAY_CODE]),
            "goaway_by": _side(_where(side >= 0, side)),
            "goaway_last_stream": _where(at >= 0, goaway[:, row_of.GOAWAY_LAST]),
            "ts_goaway": _where(at >= 0, runs.ts_ns[away_row]),
            "client_stall_ns": _where(known, client[:, row_of.CONN_STALL_NS]),
            "server_stall_ns": _where(known, server[:, row_of.CONN_STALL_NS]),
            "unknown_fields": total(streams[:, row_of.UNKNOWN]),
            "unread_blocks": conns[:, row_of.UNREAD_BLOCKS],
            "skipped_bytes": conns[:, row_of.SKIPPED],
            "first_frame": runs.frame[first],
            "asked_frame": _where(starts[0] >= 0, runs.frame[np.where(starts[0] >= 0, rows_at[0], 0)]),
            "goaway_frame": _where(at >= 0, runs.frame[away_row]),
        }
    )
    return frame.filter(pl.Series(seen))


def _rows(capture: PacketSource) -> pl.DataFrame:
    parts = messages(capture, "http2")
    if not parts:
        return pl.DataFrame(schema=frame_schema(TABLE))
    rows = pl.concat(parts).sort("ts", "flow_id", maintain_order=True)
    rows = rows.cast({"first_frame": pl.UInt64, "goaway_frame": pl.UInt64})
    # In TLS 1.3 the server may speak first: what the client sent says who that is.
    rows = rows.with_columns(
        pl.col("asked_frame").cast(pl.UInt64),
        told_frame=pl.when(pl.col("asked_frame").is_null()).then("first_frame"),
    )
    return with_ends(rows, sighted(capture, "http2"), "asked_frame", "told_frame")


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `http2` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


PROTOCOL = Protocol(
    "http2",
    "HTTP/2 without TLS (RFC 9113, RFC 7541)",
    "the client's preface, Upgrade: h2c, or chains of frames where the beginning was not captured",
    TABLE,
    build,
)
PARSER = StreamParser(
    "http2", ("http", "http2", "grpc", http2_packets.PART), 20, recognise, parse, in_threads=True
)
