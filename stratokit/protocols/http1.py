"""HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112) as streams of bytes: recognition, messages, and what they carry.

Implemented: pipelining, keep-alive, Content-Length, chunked bodies with trailers, continued field lines,
responses without a body (to HEAD, 1xx, 204, 304), responses that end with the connection, CONNECT and Upgrade
(what follows goes to the parser of that protocol), interim responses (they are no rows), bodies cut by the
capture, reading on after missing bytes. Left out: HTTP/0.9, multipart bodies.

A byte counts from the packet with which it and all bytes before it had arrived: not sooner could anybody read
it. That is also where Wireshark shows a message that was sent again or came out of order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.kernels import kernel, routine
from stratokit.protocols import http_messages as hm
from stratokit.protocols.http_content import bodies
from stratokit.protocols.http_lines import (
    AGENT,
    ENCODING,
    HOST,
    SLASH,
    TYPE,
    UPGRADE,
    find_request,
    known_method,
    request_line,
    status_at,
)
from stratokit.protocols.inner import Inner, tails
from stratokit.protocols.over_tcp import HEAD_BYTES, Heads, Parsed, StreamParser
from stratokit.protocols.text import arrow_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stratokit.streams.byte_runs import ByteRuns

# Protocols that Upgrade names (RFC 9110 section 7.8) and this room has a parser for.
_UPGRADES = {b"websocket": "websocket", b"h2c": "http2"}
_CONNECT = np.frombuffer(b"CONNECT", np.uint8)


@routine
def _asks(data: np.ndarray, p: int, end: int) -> bool:
    """Whether the first bytes of one direction have a request line.

    It may come behind other bytes, as those of SOCKS (RFC 1928) or of the PROXY protocol, but not behind
    those of a TLS record.
    """
    if p + 2 < end and data[p] == 22 and data[p + 1] == 3:
        return False
    if known_method(data, find_request(data, p, end), end):
        return True
    size = known_method(data, p, end)
    if size > 0 and end - p == HEAD_BYTES and data[p + size + 1] == SLASH:  # a very long target
        return True
    return size > 0 and request_line(data, p, end)[0] >= 0


@kernel
def _who_asks(data: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    asks = np.full((bounds.size - 1) // 2, -1, np.int64)
    for f in range(asks.size):
        for s in (2 * f, 2 * f + 1):
            other = 4 * f + 1 - s
            answered = status_at(data, bounds[other], bounds[other + 1]) >= 0
            if asks[f] < 0 and (answered or _asks(data, bounds[s], bounds[s + 1])):
                asks[f] = s - 2 * f
    return asks


def recognise(heads: Heads) -> NDArray[np.int64]:
    """Which side of each conversation has the requests, or -1 where it is not HTTP/1.

    The one who asks need not be the one who connected: a proxy may be reached backwards, and of a connection
    that began before the capture it is not known who connected.
    """
    asks: NDArray[np.int64] = _who_asks(heads.data, heads.bounds)
    return asks


def parse(runs: ByteRuns, asking: NDArray[np.int64]) -> Parsed:
    """Requests with their responses, and what is inside of those that switched to another protocol.

    `asking` is for each conversation 0 where its client sends the requests, 1 where its server does.
    """
    asked, answered, skipped = _messages(runs, asking)
    requests = _common(runs, asked, "request") | {
        "method": _text(runs, asked, hm.METHOD),
        "path": _text(runs, asked, hm.TARGET),
        "host": _text(runs, asked, hm.HEAD + HOST),
        "user_agent": _text(runs, asked, hm.HEAD + AGENT),
        "request_content_type": _text(runs, asked, hm.HEAD + TYPE),
        "version_digit": asked[:, hm.VERSION],
        "request": np.arange(len(asked)),
    }
    responses = _common(runs, answered, "response") | {
        "status": answered[:, hm.STATUS],
        "content_type": _text(runs, answered, hm.HEAD + TYPE),
        "content_encoding": _text(runs, answered, hm.HEAD + ENCODING),
        "upgrade": _text(runs, answered, hm.HEAD + UPGRADE),
        "peer": answered[:, hm.PEER],
    }
    parts: dict[str, Callable[[], pl.DataFrame]] = {
        "http": lambda: _rows(_requests(requests), _responses(responses)),
        "http_bodies": lambda: _bodies(
            runs.whole(), (_requests(requests), asked), (_responses(responses), answered)
        ),
    }
    counters = {"http_skipped_bytes": int(skipped)} if skipped else {}
    return Parsed(parts, counters, _inner(runs, asked, answered, asking))


def _messages(runs: ByteRuns, asking: NDArray[np.int64]) -> Any:
    arrivals = (runs.piece_start, runs.ts_ns[runs.piece_ready])
    bytes_ = (runs.data, runs.run_start, runs.run_offset, runs.source)
    return hm.read_conversations(bytes_, runs.run_bounds, asking, arrivals)


def leads_on(runs: ByteRuns, asking: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which conversations may go on in another protocol, by their requests alone."""
    asked, _, _ = _messages(runs, asking)
    flow = asked[:, hm.FLOW]
    may: NDArray[np.bool_] = (
        np.bincount(flow, minlength=asking.size) == 0
    )  # a response may be all that was captured
    may[flow[_is_connect(runs.data, asked) | (asked[:, hm.HEAD + UPGRADE] >= 0)]] = True
    return may


def _requests(columns: dict[str, Any]) -> pl.DataFrame:
    digit = pl.col("version_digit")
    version = pl.when(digit >= 0).then(pl.format("HTTP/1.{}", digit))
    return pl.DataFrame({name: pl.Series(values) for name, values in columns.items()}).select(
        pl.exclude("version_digit"), version=version
    )


def _responses(columns: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series(values) for name, values in columns.items()}).select(
        pl.exclude("peer", "upgrade"),
        upgrade=pl.col("upgrade").str.to_lowercase(),
        request=pl.when(pl.col("peer") != hm.NO_PEER).then("peer"),
    )


def _rows(requests: pl.DataFrame, responses: pl.DataFrame) -> pl.DataFrame:
    rows = requests.join(responses, on="request", how="full", coalesce=True, suffix="_answer")
    rows = rows.with_columns(
        pl.col("^.*_body_bytes$").replace(-1, None), flow_id=pl.coalesce("flow_id", "flow_id_answer")
    )
    return rows.drop("request", "flow_id_answer")


def _bodies(runs: ByteRuns, asked: Any, answered: Any) -> pl.DataFrame:
    """Messages of both directions that have a body, in the form of the table `http_bodies`."""
    of_request = ("method", "host", "path")
    runs = runs.whole()
    parts = []
    for side, (frame, found) in (("request", asked), ("response", answered)):
        encoding = pl.Series(_text(runs, found, hm.HEAD + ENCODING))
        rows = frame.select(
            "flow_id",
            *(name for name in (*of_request, "status", "request") if name in frame.columns),
            ts=f"ts_{side}",
            sent_bytes=f"{side}_body_bytes",
            first_frame=f"{side}_frame",
            side=pl.lit(side),
            content_type=pl.Series(_text(runs, found, hm.HEAD + TYPE)),
            content_encoding=encoding,
        )
        parts.append(pl.concat([rows, bodies(runs.data, found, encoding)], how="horizontal"))
    requests, responses = parts
    of_requests = requests.select("request", *of_request)
    responses = responses.join(of_requests, on="request", how="left", maintain_order="left")
    statuses = responses.select("request", "status").drop_nulls("request")
    requests = requests.join(statuses, on="request", how="left", maintain_order="left")
    both: pl.DataFrame = pl.concat([requests, responses], how="diagonal_relaxed")
    return both.filter(pl.col("sent_bytes") > 0).drop("request")


def _is_connect(data: NDArray[np.uint8], asked: NDArray[np.int64]) -> NDArray[np.bool_]:
    is_it: NDArray[np.bool_] = asked[:, hm.METHOD + 1] == len(_CONNECT)
    start = asked[is_it, hm.METHOD]
    is_it[is_it] = (data[start[:, None] + np.arange(len(_CONNECT))] == _CONNECT).all(axis=1)
    return is_it


def _switched(
    runs: ByteRuns, asked: NDArray[np.int64], answered: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str | None]]:
    """Conversations that go on in another protocol, where in the buffer of bytes that is, and which one.

    Where the request was not captured, -1: then all that its side sent belongs to the other protocol.
    """
    flow, peer, status = answered[:, hm.FLOW], answered[:, hm.PEER], answered[:, hm.STATUS]
    tunnel = np.append(_is_connect(runs.data, asked), False)[peer] & (status < 300)  # the last is for none
    found = np.flatnonzero((status == 101) | tunnel)
    found = found[(peer[found] >= 0) | ~np.isin(flow[found], asked[:, hm.FLOW])]
    last = np.flatnonzero(np.append(np.diff(flow[found]) != 0, np.ones(min(found.size, 1), np.bool_)))
    found = found[last]
    ends = np.append(asked[:, hm.LAST] + 1, -1)[peer[found]]
    names = (answered[found, hm.HEAD + UPGRADE : hm.HEAD + UPGRADE + 2]).tolist()
    texts = [runs.data[at : at + max(size, 0)].tobytes().lower() for at, size in names]
    places = np.column_stack([ends, answered[found, hm.LAST] + 1])
    return flow[found], places, [_UPGRADES.get(text) for text in texts]


def _inner(
    runs: ByteRuns, asked: NDArray[np.int64], answered: NDArray[np.int64], asking: NDArray[np.int64]
) -> tuple[Inner, ...]:
    flows, ends, protocols = _switched(runs, asked, answered)
    found = []
    for protocol in dict.fromkeys(protocols):
        mine = np.array([name == protocol for name in protocols])
        asks = asking[flows[mine]]
        starts = np.where(asks[:, None] == 1, ends[mine, ::-1], ends[mine])
        found.append(Inner(tails(runs, flows[mine], starts.ravel()), protocol, asks))
    return tuple(found)


def _text(runs: ByteRuns, messages: NDArray[np.int64], field: int) -> Any:
    return arrow_texts(runs.data, messages[:, field], messages[:, field + 1])


def _common(runs: ByteRuns, messages: NDArray[np.int64], what: str) -> dict[str, Any]:
    first, last = (runs.ready_row_at(messages[:, place]) for place in (hm.START, hm.LAST))
    return {
        "flow_id": runs.flow_id[messages[:, hm.FLOW]],
        f"ts_{what}": runs.ts_ns[first],
        f"ts_{what}_last": runs.ts_ns[last],
        f"{what}_frame": runs.frame[first],
        f"{what}_last_frame": runs.frame[last],
        f"{what}_bytes": messages[:, hm.BYTES],
        f"{what}_body_bytes": messages[:, hm.BODY_BYTES],
        f"{what}_cut": messages[:, hm.CUT_SHORT] == 1,
    }


PARSER = StreamParser(
    "http1",
    ("http", "http_bodies"),
    10,
    recognise,
    parse,
    carries=True,
    leads_on=leads_on,
    in_threads=True,
    copies=True,
)
