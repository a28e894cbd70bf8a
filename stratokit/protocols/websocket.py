"""WebSocket (RFC 6455) behind an Upgrade of HTTP/1: a row for each message, from its first frame to its last.

Implemented: fragments with control frames between them, masking (of close reasons), close codes, sizes, the
times between messages, payloads cut by the capture. Left out: what messages say, decompression (RFC 7692: a
compressed message has its size on the wire), HTTP/2 (RFC 8441), connections whose upgrade was not captured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.protocols import websocket_frames as ws
from stratokit.protocols.base import Protocol
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

_OPCODES = {
    ws.CONTINUATION: "continuation",
    ws.TEXT: "text",
    ws.BINARY: "binary",
    ws.CLOSE: "close",
    ws.PING: "ping",
    ws.PONG: "pong",
}

TABLE = Table(
    "websocket",
    "a WebSocket message, or a control frame",
    (
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("ts", "time", "Its first byte."),
        Column("sender", "text", "client (who asked to upgrade) or server."),
        Column(
            "opcode", "text", "text, binary, close, ping, pong; continuation where its beginning is missing."
        ),
        Column("frames", "u32", "Frames that it came in."),
        Column("payload_bytes", "u64", "Payload of all its frames, as sent.", "bytes"),
        Column("compressed", "bool", "It is compressed (permessage-deflate)."),
        Column("close_code", "u16", "Status code of a close frame, as 1000 for an orderly end."),
        Column("close_reason", "text", "What its sender gave as reason."),
        Column(
            "gap_ns", "s64", "From the last byte of the sender's message before; null for its first.", "ns"
        ),
        Column("transfer_ns", "s64", "From its first byte to its last.", "ns"),
        Column("first_frame", "u64", "Packet with its first byte."),
        Column("last_frame", "u64", "Packet that completed it."),
        Column("cut", "bool", "Bytes of it are missing from the capture."),
        *END_COLUMNS[:-1],
    ),
    (
        FilterField("websocket.opcode", ("opcode",), "Kind of message: text, binary, close, ping, pong."),
        FilterField("websocket.payload_length", ("payload_bytes",), "Payload of the whole message."),
        FilterField("websocket.payload.close.status_code", ("close_code",), "Status code of a close frame."),
    ),
)


def recognise(heads: Heads) -> NDArray[np.int64]:
    """Never by content: what follows an Upgrade is told by HTTP."""
    return np.full((heads.bounds.size - 1) // 2, -1, np.int64)


def parse(runs: ByteRuns, asking: NDArray[np.int64]) -> Parsed:
    """Messages of both directions."""
    bytes_ = (runs.data, runs.run_start, runs.run_offset, runs.source)
    found, text, counts = ws.read_conversations(bytes_, runs.run_bounds, asking)
    first, last = (runs.ready_row_at(found[:, place]) for place in (ws.FIRST, ws.LAST))
    side = found[:, ws.SIDE]
    # The addresses of a row are those of a request: for a server's message, of the answer.
    by_client = pl.Series(side == 0)
    code = pl.Series(found[:, ws.CLOSE_CODE])
    rows = pl.DataFrame(
        {
            "flow_id": runs.flow_id[found[:, ws.FLOW]],
            "side": side,
            "ts": runs.ts_ns[first],
            "ts_last": runs.ts_ns[last],
            "sender": pl.Series(side).replace_strict({0: "client", 1: "server"}, return_dtype=pl.String),
            "opcode": pl.Series(found[:, ws.OPCODE]).replace_strict(_OPCODES, return_dtype=pl.String),
            "frames": found[:, ws.FRAMES],
            "payload_bytes": found[:, ws.SIZE],
            "compressed": found[:, ws.COMPRESSED] == 1,
            "close_code": pl.select(pl.when(code >= 0).then(code)).to_series(),
            "close_reason": text_column(text, found[:, ws.REASON], found[:, ws.REASON_SIZE]),
            "first_frame": runs.frame[first],
            "last_frame": runs.frame[last],
            "cut": found[:, ws.CUT] == 1,
        }
    ).with_columns(
        asked_frame=pl.when(by_client).then("first_frame"), told_frame=pl.when(~by_client).then("first_frame")
    )
    counters = {
        "websocket_skipped_bytes": int(counts[ws.SKIPPED]),
        "websocket_messages_dropped": int(counts[ws.DROPPED]),
    }
    return Parsed({"websocket": rows}, counters)


def _rows(capture: PacketSource) -> pl.DataFrame:
    parts = messages(capture, "websocket")
    if not parts:
        return pl.DataFrame(schema=frame_schema(TABLE))
    before = pl.col("ts_last").shift(1).over("flow_id", "side")
    rows = (
        pl.concat(parts)
        .with_columns(gap_ns=pl.col("ts") - before, transfer_ns=pl.col("ts_last") - pl.col("ts"))
        .sort("ts", "flow_id", maintain_order=True)
        .cast({"asked_frame": pl.UInt64, "told_frame": pl.UInt64})
    )
    return with_ends(rows, sighted(capture, "websocket"), "asked_frame", "told_frame")


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `websocket` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


PROTOCOL = Protocol(
    "websocket",
    "WebSocket without TLS (RFC 6455)",
    "an HTTP/1 response 101 with Upgrade: websocket",
    TABLE,
    build,
)
PARSER = StreamParser("websocket", ("websocket",), 90, recognise, parse)
