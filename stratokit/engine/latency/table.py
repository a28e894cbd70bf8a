"""Table `latency`: each request as a chain of parts, from packets at both ends and the calls around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.latency import before, calls, upstream
from stratokit.engine.latency.passing import Passing, passing
from stratokit.engine.latency.requests import ENDS, requests
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.conversations import TABLE as TABLE_OF_FLOWS
from stratokit.streams.ends import END_COLUMNS
from stratokit.streams.sides import CLIENT, SERVER
from stratokit.streams.source import deferred, frame_schema, shaped

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

# In order of time; where all are known, they sum to the total.
PARTS = {
    "name_ns": "Looking up the server's name.",
    "connect_ns": "From the first SYN to the SYN-ACK that came.",
    "tls_ns": "TLS handshake.",
    "client_ns": "The client's own time between these steps and the request.",
    "request_ns": "Sending the request: from the client's call to its last byte out, retries included.",
    "network_to_ns": "The network's time for the request's last byte.",
    "server_buffer_ns": "From there until the server's application had read it.",
    "app_ns": "The application's time: from there to its call that writes the response.",
    "response_ns": "From that call to the response's first byte on the way.",
    "network_back_ns": "The network's time for that byte.",
    "client_buffer_ns": "In the client's socket buffer: its first byte, and its last, until they were read.",
    "transfer_ns": "The rest of the response, from the first byte to the arrival of the last.",
}
_WITHIN = ("server_buffer_ns", "app_ns", "response_ns")

TABLE = Table(
    "latency",
    "a request, a question or a handshake, and where its time went; what cannot be known is null",
    (
        Column("kind", "text", "http, grpc, dns, tls or tcp; the last two are handshakes."),
        Column("what", "text", "What was asked for, or of whom."),
        Column("ts", "time", "When it began: with the first of its parts that is known."),
        Column("total_ns", "s64", "From there until the client had it all.", "ns"),
        *(Column(name, "s64", doc, "ns") for name, doc in PARTS.items()),
        Column("rest_ns", "s64", "The total without the parts that are known, and without server_ns.", "ns"),
        Column("upstream_ns", "s64", "Of the server's time: waiting for its own calls to others.", "ns"),
        Column(
            "server_ns",
            "s64",
            "At the server's socket, from the request's last byte to the response's first: buffer, "
            "application, response.",
            "ns",
        ),
        Column("outcome", "text", "Status, response code or alert; of a handshake the version."),
        Column("failed", "bool", "It had an error, or no response."),
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("stream_id", "u32", "Stream of HTTP/2."),
        Column("method", "text", "Method of HTTP."),
        Column("host", "text", "Host of HTTP."),
        Column("path", "text", "Path of HTTP with its query."),
        Column("status", "u16", "Status of HTTP."),
        Column("qname", "text", "Name that DNS was asked for."),
        Column("sni", "text", "Server name of TLS."),
        Column("request_frame", "u64", "Packet with the first byte of the request."),
        Column("response_frame", "u64", "Packet with the first byte of the response."),
        *(column for column in END_COLUMNS if column.name in ENDS),
    ),
    (
        FilterField("latency.kind", ("kind",), "http, grpc, dns, tls or tcp."),
        FilterField("latency.total", ("total_ns",), "How long it took."),
        *(
            FilterField(f"latency.{name.removesuffix('_ns')}", (name,), doc)
            for name, doc in (PARTS | {"upstream_ns": "Waiting for the server's own calls."}).items()
        ),
        FilterField("latency.failed", ("failed",), "It had an error, or no response."),
        FilterField("http.request.method", ("method",), "Method of the request."),
        FilterField("http.host", ("host",), "Field Host."),
        FilterField("http.request.uri", ("path",), "Target of the request."),
        FilterField("http.response.code", ("status",), "Status code of the response."),
        FilterField("http2.streamid", ("stream_id",), "Stream of HTTP/2."),
        FilterField("dns.qry.name", ("qname",), "Name asked for."),
        FilterField("tls.handshake.extensions_server_name", ("sni",), "Server name asked for."),
    ),
    costly=True,
)
_POINTS = (
    ("sent_first", "request_begin", CLIENT, True),
    ("sent_last", "request_end", CLIENT, True),
    ("came_first", "request_begin", SERVER, True),
    ("came_last", "request_end", SERVER, True),
    ("answered_first", "response_begin", SERVER, False),
    ("answered_last", "response_end", SERVER, False),
    ("got_first", "response_begin", CLIENT, False),
    ("got_last", "response_end", CLIENT, False),
)

# What the parts are made of, besides `begin`.
_TOLD = (
    "sent_last", "came_last", "answered_first", "answered_last", "got_first", "got_last", "read_request_at",
    "read_request_tid", "write_response_at", "read_first_at", "read_last_at",
)  # fmt: skip


def build(capture: Capture) -> pl.LazyFrame:
    """Rows of `latency` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


def _rows(capture: Capture) -> pl.DataFrame:
    rows = requests(capture)
    asked = rows.columns
    seen = passing(capture, rows)
    made = calls.socket_calls(capture)
    rows = pl.concat(
        [
            _on_streams(rows, seen, calls.on_streams(made, seen)),
            _in_datagrams(rows.join(seen.frames, on="flow_id", how="anti"), capture, made),
        ],
        how="diagonal_relaxed",
    )
    begin = pl.coalesce("write_request_at", "sent_first", "came_first")
    rows = rows.select(*asked, *_TOLD, begin=begin)
    rows = pl.concat([rows, before.of_first(rows, before.before_requests(capture, seen))], how="horizontal")
    rows = pl.concat([rows, _handshakes(capture, seen)], how="diagonal_relaxed")
    # One step after the other: what came before is let go of, and these are many columns.
    rows = _with_parts(rows)
    rows = _with_upstream(rows, capture)
    rows = shaped(rows, frame_schema(TABLE))
    return rows.sort("ts", "flow_id", "stream_id")


def _on_streams(rows: pl.DataFrame, seen: Passing, made: pl.DataFrame) -> pl.DataFrame:
    """Requests over TCP with the times at which their first and last bytes passed."""
    for name, frame, place in (
        ("request_begin", "request_frame", pl.col("begin") + 1),
        ("request_end", "request_last_frame", pl.col("end")),
        ("response_begin", "response_frame", pl.col("begin") + 1),
        ("response_end", "response_last_frame", pl.col("end")),
    ):
        places = seen.frames.select("flow_id", pl.col("frame").alias(frame), place.alias(name))
        key = ["flow_id", frame]
        found = rows.select(key).join(places, on=key, how="left", maintain_order="left")
        rows = rows.with_columns(found[name])
    rows = rows.filter(pl.col("request_begin").is_not_null())
    points = [
        seen.at(rows, position, view, from_client=from_client, name=name)
        for name, position, view, from_client in _POINTS
    ]
    around = [
        calls.stream_call(made, rows, position, view, reads=reads, prefix=prefix)
        for position, view, reads, prefix in (
            ("request_begin", CLIENT, False, "write_request_"),
            ("request_end", SERVER, True, "read_request_"),
            ("response_begin", SERVER, False, "write_response_"),
            ("response_begin", CLIENT, True, "read_first_"),
            ("response_end", CLIENT, True, "read_last_"),
        )
    ]
    return pl.concat([rows.with_columns(points), *around], how="horizontal")


def _in_datagrams(rows: pl.DataFrame, capture: Capture, made: pl.DataFrame) -> pl.DataFrame:
    """Requests of one packet with a response of one packet, as those of DNS over UDP."""
    frames = pl.concat([rows["request_frame"], rows["response_frame"]]).drop_nulls().unique()
    packets = (
        capture.rows("packet")
        .filter(pl.col("frame").is_in(frames.implode()))
        .select("frame", "direction", "socket_cookie", size="payload_len", ts=pl.col("ts").to_physical())
        .collect()
        .unique(["frame", "direction"], keep="first")
    )
    outside = pl.col("direction").is_null()
    for name, frame, direction in (
        ("sent", "request_frame", outside | (pl.col("direction") == "out")),
        ("came", "request_frame", pl.col("direction") == "in"),
        ("answered", "response_frame", pl.col("direction") == "out"),
        ("got", "response_frame", outside | (pl.col("direction") == "in")),
    ):
        part = packets.filter(direction).select(
            pl.col("frame").alias(frame),
            *(pl.col(c).alias(f"{name}_{c}") for c in ("socket_cookie", "size", "ts")),
        )
        rows = rows.join(part, on=frame, how="left", maintain_order="left")
    around = [
        calls.datagram_call(
            made, rows, (f"{name}_socket_cookie", f"{name}_size", f"{name}_ts"), reads=reads, prefix=prefix
        )
        for name, reads, prefix in (
            ("sent", False, "write_request_"),
            ("came", True, "read_request_"),
            ("answered", False, "write_response_"),
            ("got", True, "read_first_"),
        )
    ]
    rows = pl.concat([rows, *around], how="horizontal")
    last = {f"{name}_last": pl.col(f"{name}_ts") for name in ("sent", "came", "answered", "got")}
    first = {f"{name}_first": pl.col(f"{name}_ts") for name in ("sent", "came", "answered", "got")}
    return rows.with_columns(**first, **last, read_last_at="read_first_at")


def _handshakes(capture: Capture, seen: Passing) -> pl.DataFrame:
    """TCP handshakes that one of both ends, or a plain capture, saw begin."""
    known = frame_schema(TABLE_OF_FLOWS)
    ends = capture.built("flows").select("flow_id", *(name for name in ENDS if name in known)).collect()
    return (
        seen.handshakes.join(ends, on="flow_id")
        .with_columns(
            kind=pl.lit("tcp"),
            what=pl.format("{}:{}", "server_ip", "server_port"),
            failed=pl.coalesce("answer_in", "answer_out").is_null(),
            request_frame="syn_frame",
            response_frame="answer_frame",
            begin=pl.coalesce("syn_first", "syn_in"),
            sent_last="syn_out",
            came_last="syn_in",
            answered_first="answer_out",
            got_first="answer_in",
            got_last="answer_in",
            answered_last=pl.lit(None, pl.Int64),
        )
        .with_columns(ts="begin")
        .drop(
            "syn_frame",
            "answer_frame",
            "syn_first",
            "syn_out",
            "syn_in",
            "answer_out",
            "answer_in",
            "syn_view",
        )
    )


def _with_parts(rows: pl.DataFrame) -> pl.DataFrame:
    """The parts between the points; where two steps overlapped, theirs are unknown."""
    c = pl.col
    own = c("kind").is_in(["tcp"])  # a handshake of kernels: nobody reads it
    first_read = pl.when(own).then("got_first").otherwise("read_first_at")
    end = pl.coalesce(
        "end", "read_last_at", "got_last", pl.when(c("got_first").is_null()).then("answered_last")
    )
    is_rest = c("end").is_not_null()
    complete = pl.when(is_rest).then("end").otherwise(pl.coalesce("got_last", "answered_last"))
    start = pl.coalesce("name_begin", "connect_begin", "tls_begin", "begin")
    rows = rows.with_columns(
        start=start,
        stop=end,
        name_ns=c("name_end") - c("name_begin"),
        connect_ns=c("connect_end") - c("connect_begin"),
        tls_ns=c("tls_end") - c("tls_begin"),
        request_ns=pl.coalesce("sent_last", "came_last") - c("begin"),
        network_to_ns=c("came_last") - c("sent_last"),
        server_buffer_ns=c("read_request_at") - c("came_last"),
        app_ns=c("write_response_at") - c("read_request_at"),
        response_ns=c("answered_first") - c("write_response_at"),
        network_back_ns=c("got_first") - c("answered_first"),
        server_ns=c("answered_first") - c("came_last"),
        client_buffer_ns=first_read
        - c("got_first")
        + pl.when(is_rest).then(0).otherwise((end - pl.max_horizontal(complete, first_read)).clip(0)),
        transfer_ns=(complete - pl.coalesce(first_read, "got_first", "answered_first")).clip(0),
    )
    rows = rows.with_columns(
        total_ns=c("stop") - c("start"), client_ns=c("begin") - c("start") - _sum(_SETUP)
    )
    rows = rows.with_columns(
        pl.when(c(name) >= 0).then(name).alias(name) for name in (*PARTS, "server_ns", "total_ns")
    )
    known = _sum(PARTS)
    inside = pl.any_horizontal(c(name).is_null() for name in _WITHIN)
    server = pl.when(inside).then(c("server_ns") - _sum(_WITHIN)).fill_null(0)
    return rows.with_columns(
        pl.when(c("start") < c("begin")).then("client_ns").alias("client_ns"),
        ts="start",
        rest_ns=c("total_ns") - known - server,
    )


_SETUP = ("name_ns", "connect_ns", "tls_ns")


def _sum(names: object) -> pl.Expr:
    return pl.sum_horizontal(*(pl.col(str(name)) for name in names))  # type: ignore[attr-defined]


def _with_upstream(rows: pl.DataFrame, capture: Capture) -> pl.DataFrame:
    rows = rows.with_row_index("row")
    work = rows.filter(pl.col("kind") != "tcp").select(
        "row",
        pid="server_pid",
        tid="read_request_tid",
        begin=pl.coalesce("read_request_at", "came_last"),
        end=pl.coalesce("write_response_at", "answered_first"),
    )
    own = upstream.waited(work, upstream.exchanges(capture, work["pid"]))
    known = pl.col("begin").is_not_null() & pl.col("end").is_not_null() & pl.col("pid").is_not_null()
    found = work.with_columns(own).select("row", upstream_ns=pl.when(known).then(pl.col("own").fill_null(0)))
    upstream_ns = rows.select("row").join(found, on="row", how="left", maintain_order="left")["upstream_ns"]
    return rows.with_columns(upstream_ns)
