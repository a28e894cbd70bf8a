"""HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112): a row for each request and its response.

Implemented: pipelining, keep-alive, Content-Length, chunked bodies with trailers, responses without a body
(to HEAD, 1xx, 204, 304), responses that end with the connection, CONNECT and Upgrade (what follows is another
protocol), interim responses (they are no rows), bodies cut by the capture, reading on after missing bytes.
Left out: HTTP/0.9, continued field lines (obs-fold), multipart bodies, decoding of bodies, HTTP/2 and 3.

A byte counts from the packet with which it and all bytes before it had arrived: not sooner could anybody read
it. That is also where Wireshark shows a message that was sent again or came out of order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numba import njit

from stratokit.protocols import http_messages as hm
from stratokit.protocols.base import Protocol
from stratokit.protocols.http_lines import (
    AGENT,
    HOST,
    SLASH,
    TYPE,
    find_request,
    known_method,
    request_line,
    status_at,
)
from stratokit.protocols.text import text_column
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams import reassembly
from stratokit.streams.ends import END_COLUMNS, with_ends
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.reassembly import ByteRuns
    from stratokit.streams.source import PacketSource

TABLE = Table(
    "http",
    "an HTTP request and its response; a part that was not captured is null",
    (
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("ts_request", "time", "First byte of the request."),
        Column("ts_response", "time", "First byte of the final response."),
        Column("version", "text", "Version of the request: HTTP/1.0 or HTTP/1.1."),
        Column("method", "text", "GET, POST, ..."),
        Column("host", "text", "Field Host."),
        Column("path", "text", "Target of the request as sent, with its query."),
        Column("status", "u16", "Status code."),
        Column("request_bytes", "u64", "Head and body of the request on the stream.", "bytes"),
        Column("response_bytes", "u64", "Head and body of the response on the stream.", "bytes"),
        Column("request_body_bytes", "u64", "Body of the request without chunk framing.", "bytes"),
        Column("response_body_bytes", "u64", "Body of the response without chunk framing.", "bytes"),
        Column("user_agent", "text", "Field User-Agent."),
        Column("content_type", "text", "Field Content-Type of the response."),
        Column("latency_ns", "s64", "From the first byte of the request to the first of the response.", "ns"),
        Column(
            "wait_ns",
            "s64",
            "From the request's completion to the first byte of the response; negative when it came early.",
            "ns",
        ),
        Column("transfer_ns", "s64", "From the first byte of the response to its completion.", "ns"),
        Column("request_frame", "u64", "Packet with the first byte of the request."),
        Column("request_last_frame", "u64", "Packet that completed it."),
        Column("response_frame", "u64", "Packet with the first byte of the response."),
        Column("response_last_frame", "u64", "Packet that completed it."),
        Column("request_cut", "bool", "Bytes of the request are missing from the capture."),
        Column("response_cut", "bool", "Bytes of the response are missing from the capture."),
        Column("stream_id", "u32", "Stream of HTTP/2; null for HTTP/1."),
        *END_COLUMNS,
    ),
    (
        FilterField("http.request.method", ("method",), "Method of the request."),
        FilterField("http.request.uri", ("path",), "Target of the request."),
        FilterField("http.request.version", ("version",), "Version of the request."),
        FilterField("http.host", ("host",), "Field Host."),
        FilterField("http.user_agent", ("user_agent",), "Field User-Agent."),
        FilterField("http.response.code", ("status",), "Status code of the response."),
        FilterField("http.content_type", ("content_type",), "Field Content-Type of the response."),
        FilterField("http.time", ("latency_ns",), "From the request's to the response's first byte."),
    ),
)

# Enough for a start line of common length; a longer one is known by its method and the slash.
_RECOGNISED_BYTES = 512


@njit(nogil=True, cache=True)
def _asks(data: np.ndarray, p: int, end: int) -> bool:
    """Whether the first bytes of one direction have a request line.

    It may come behind other bytes, as those of SOCKS (RFC 1928) or of the PROXY protocol.
    """
    if known_method(data, find_request(data, p, end), end):
        return True
    size = known_method(data, p, end)
    if size > 0 and end - p == _RECOGNISED_BYTES and data[p + size + 1] == SLASH:  # a very long target
        return True
    return size > 0 and request_line(data, p, end)[0] >= 0


@njit(nogil=True, cache=True)
def recognise(data: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Which stream of each conversation has the requests, or -1 where it is not HTTP/1.

    The first bytes of stream s are data[bounds[s] : bounds[s + 1]]. The one who asks need not be the one who
    connected: a proxy may be reached backwards, and of a connection that began before the capture it is not
    known who connected.
    """
    asks = np.full((bounds.size - 1) // 2, -1, np.int64)
    for f in range(asks.size):
        for s in (2 * f, 2 * f + 1):
            other = 4 * f + 1 - s
            answered = status_at(data, bounds[other], bounds[other + 1]) >= 0
            if asks[f] < 0 and (answered or _asks(data, bounds[s], bounds[s + 1])):
                asks[f] = s
    return asks


def parse(runs: ByteRuns, asking: NDArray[np.int64]) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Requests, responses (`request` is the row of the former that they answer), and the bytes skipped.

    `asking` is for each conversation 0 where its client sends the requests, 1 where its server does.
    """
    arrivals = (runs.piece_start, runs.ts_ns[runs.piece_ready])
    bytes_ = (runs.data, runs.run_start, runs.run_offset)
    asked, answered, skipped = hm.read_conversations(bytes_, runs.run_bounds, asking, arrivals)
    requests = _common(runs, asked, "request").with_columns(
        method=_text(runs, asked, hm.METHOD),
        path=_text(runs, asked, hm.TARGET),
        host=_text(runs, asked, hm.HEAD + HOST),
        user_agent=_text(runs, asked, hm.HEAD + AGENT),
        version=_version(asked),
        request=pl.int_range(pl.len()),
    )
    responses = _common(runs, answered, "response").with_columns(
        status=pl.Series(answered[:, hm.STATUS]),
        content_type=_text(runs, answered, hm.HEAD + TYPE),
        request=pl.Series(answered[:, hm.PEER]).replace(hm.NO_PEER, None),
    )
    return requests, responses, int(skipped)


def _version(messages: NDArray[np.int64]) -> pl.Series:
    digit = pl.Series(messages[:, hm.VERSION])
    return pl.select(pl.when(digit >= 0).then(pl.format("HTTP/1.{}", digit))).to_series()


def _text(runs: ByteRuns, messages: NDArray[np.int64], field: int) -> pl.Series:
    return text_column(runs.data, messages[:, field], messages[:, field + 1])


def _common(runs: ByteRuns, messages: NDArray[np.int64], what: str) -> pl.DataFrame:
    first, last = (runs.ready_row_at(messages[:, place]) for place in (hm.START, hm.LAST))
    body = messages[:, hm.BODY_BYTES]
    columns: dict[str, Any] = {
        "flow_id": runs.flow_id[messages[:, hm.FLOW]],
        f"ts_{what}": runs.ts_ns[first],
        f"ts_{what}_last": runs.ts_ns[last],
        f"{what}_frame": runs.frame[first],
        f"{what}_last_frame": runs.frame[last],
        f"{what}_bytes": messages[:, hm.BYTES],
        f"{what}_body_bytes": pl.Series(body).replace(-1, None),
        f"{what}_cut": messages[:, hm.CUT_SHORT] == 1,
    }
    return pl.DataFrame(columns)


def _rows(capture: PacketSource) -> pl.DataFrame:
    parts = []
    for streams in reassembly.batches(capture):
        asks = recognise(*streams.heads(_RECOGNISED_BYTES))
        wanted = asks >= 0
        requests, responses, _ = parse(streams.byte_runs(wanted), asks[wanted] % 2)
        parts.append(requests.join(responses, on="request", how="full", coalesce=True, suffix="_answer"))
    if not parts:
        return pl.DataFrame(schema=frame_schema(TABLE))
    start, end = pl.col("ts_request"), pl.col("ts_response")
    rows = pl.concat(parts).with_columns(
        flow_id=pl.coalesce("flow_id", "flow_id_answer"),
        latency_ns=end - start,
        wait_ns=end - pl.col("ts_request_last"),
        transfer_ns=pl.col("ts_response_last") - end,
    )
    rows = rows.sort(pl.coalesce(start, end), "flow_id", maintain_order=True)
    rows = rows.cast({"request_frame": pl.UInt64, "response_frame": pl.UInt64})
    return with_ends(rows, capture, "request_frame", "response_frame")


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `http` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


PROTOCOL = Protocol(
    "http",
    "HTTP/1.0 and HTTP/1.1 (RFC 9110, 9112)",
    "a request line among the first bytes of the client, or a status line as the first bytes of the server",
    TABLE,
    build,
)
