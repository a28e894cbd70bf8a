"""Which packets have which fields of HTTP/2 and gRPC: as in Wireshark, the one that completes a frame.

The fields of a header block, be it of a request, a response, an interim one or trailers, stand in the packet
that completes it; a message of gRPC in the one with the end of its last DATA frame. The client's preface has
no fields, and makes its packet `http2` all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols import http2_frames as h2
from stratokit.protocols import http2_notes as noted
from stratokit.protocols.text import text_column
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, PacketFields, Table
from stratokit.streams.source import deferred

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from stratokit.streams.byte_runs import ByteRuns
    from stratokit.streams.source import PacketSource

PART = "http2_notes"  # what the parser of HTTP/2 finds for us
_TYPE, _FLAGS = pl.col("type"), pl.col("flags")
# Wireshark knows these by a name of their own; as numbers those of _NUMBERS.
_HEADERS = (
    ":authority", ":method", ":path", ":scheme", ":status", "accept", "accept-charset", "accept-encoding",
    "accept-language", "accept-ranges", "access-control-allow-origin", "age", "allow", "authorization",
    "cache-control", "content-disposition", "content-encoding", "content-language", "content-length",
    "content-location", "content-range", "content-type", "cookie", "date", "etag", "expect", "expires",
    "from", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since",
    "last-modified", "link", "location", "max-forwards", "proxy-authenticate", "proxy-authorization",
    "range", "referer", "refresh", "retry-after", "server", "set-cookie", "strict-transport-security",
    "transfer-encoding", "user-agent", "vary", "via", "www-authenticate",
)  # fmt: skip
_NUMBERS = {":status": "u16", "age": "u64", "content-length": "u64", "max-forwards": "u64"}
# Bits of the flags, and the types of frames that have them.
_BITS = {
    "end_stream": (h2.END_STREAM, (h2.DATA, h2.HEADERS), "The sender's last frame of the stream."),
    "eh": (h2.END_HEADERS, (h2.HEADERS, h2.PUSH_PROMISE, h2.CONTINUATION), "The header block ends."),
    "padded": (h2.PADDED, (h2.DATA, h2.HEADERS, h2.PUSH_PROMISE), "Padding follows."),
    "priority": (h2.WITH_PRIORITY, (h2.HEADERS,), "A priority stands before the header block."),
    "ack.settings": (h2.ACK, (h2.SETTINGS,), "The peer's settings are taken."),
    "ack.ping": (h2.ACK, (h2.PING,), "An answer to a PING."),
}
_NOTED = {
    "frame": pl.UInt64,
    "what": pl.UInt8,
    "type": pl.UInt8,
    "flags": pl.UInt8,
    "stream_id": pl.UInt32,
    "length": pl.UInt32,
    "header_name": pl.String,
    "header_value": pl.String,
    "compressed_flag": pl.UInt8,
    "message_length": pl.UInt32,
}


def _field(name: str) -> str:
    return f"http2.headers.{name.lstrip(':').replace('-', '_')}"


def _columns() -> Iterator[tuple[Column, FilterField, pl.Expr]]:
    """Columns with their filter fields, and what they are of what was noted."""

    def one(field: str, kind: str, doc: str, value: pl.Expr) -> tuple[Column, FilterField, pl.Expr]:
        column = field.removeprefix("http2.")
        return Column(column, kind, doc), FilterField(field, (column,), doc), value

    name, value = pl.col("header_name"), pl.col("header_value")
    yield one("http2.type", "u8", "0 DATA, 1 HEADERS, 3 RST_STREAM, 4 SETTINGS, 6 PING, 7 GOAWAY, ...", _TYPE)
    yield one(
        "http2.flags", "u8", "Flags of the frame: 0x01 END_STREAM or ACK, 0x04 END_HEADERS, ...", _FLAGS
    )
    for bit, (mask, types, doc) in _BITS.items():
        is_set = pl.when(_TYPE.is_in(types)).then(_FLAGS & mask != 0)
        yield one(f"http2.flags.{bit}", "bool", doc, is_set)
    doc = "Stream of the frame, 0 for the connection."
    yield one("http2.streamid", "u32", doc, pl.col("stream_id"))
    yield one("http2.length", "u32", "Bytes behind the frame's header.", pl.col("length"))
    yield one("http2.header.name", "text", "Name of a header field, as :path or content-type.", name)
    yield one("http2.header.name.length", "u32", "Its length in bytes.", name.str.len_bytes())
    yield one("http2.header.value", "text", "Value of a header field.", value)
    yield one("http2.header.value.length", "u32", "Its length in bytes.", value.str.len_bytes())
    for header in _HEADERS:
        kind = _NUMBERS.get(header, "text")
        of_it: pl.Expr = pl.when(name == header).then(value)
        if kind != "text":
            of_it = of_it.str.to_integer(strict=False, dtype=pl.UInt64)
        yield one(_field(header), kind, f"Header field {header}.", of_it)


_FRAME = Column("frame", "u64", "Packet that completed it.")
_DECLARED = tuple(_columns())
TABLE = Table(
    "http2",
    "a frame of HTTP/2, or the client's preface, or a header field",
    (_FRAME, *(column for column, _, _ in _DECLARED)),
    tuple(field for _, field, _ in _DECLARED),
)
GRPC_TABLE = Table(
    "grpc",
    "a message of gRPC",
    (
        _FRAME,
        Column("compressed_flag", "u8", "1 where the message is compressed."),
        Column("message_length", "u32", "Bytes of the message."),
    ),
    (
        FilterField("grpc.compressed_flag", ("compressed_flag",), "1 where the message is compressed."),
        FilterField("grpc.message_length", ("message_length",), "Bytes of the message."),
    ),
)


def rows(runs: ByteRuns, notes: NDArray[np.int64], text: NDArray[np.uint8]) -> pl.DataFrame:
    """What was noted of these connections: columns of _NOTED, null where they do not concern a row."""
    what = notes[:, noted.WHAT]
    values = notes[:, noted.VALUES :].T
    of_fields = what == noted.FIELD

    def where(kind: int, of: NDArray[np.int64]) -> pl.Series:
        return pl.select(pl.when(pl.Series(what == kind)).then(pl.Series(of))).to_series()

    def texts(place: int) -> pl.Series:
        sizes = values[place + 1].copy()
        sizes[~of_fields] = -1
        return text_column(text, values[place], sizes)

    return pl.DataFrame(
        {
            "frame": runs.frame[runs.ready_row_at(notes[:, noted.LAST])],
            "what": what,
            "type": where(noted.FRAME, values[0]),
            "flags": where(noted.FRAME, values[1]),
            "stream_id": where(noted.FRAME, values[2]),
            "length": where(noted.FRAME, values[3]),
            "header_name": texts(0),
            "header_value": texts(2),
            "compressed_flag": where(noted.MESSAGE, values[0]),
            "message_length": where(noted.MESSAGE, values[1]),
        }
    ).cast(_NOTED)  # type: ignore[arg-type]


def _noted(capture: PacketSource) -> pl.LazyFrame:
    from stratokit.protocols.over_tcp import messages

    return deferred(
        pl.Schema(_NOTED), lambda: pl.concat([pl.DataFrame(schema=_NOTED), *messages(capture, PART)])
    )


def build(capture: PacketSource) -> pl.LazyFrame:
    """Frames and header fields; columns that do not concern a row are null, and made where they are asked."""
    found = _noted(capture).filter(pl.col("what") != noted.MESSAGE)
    return found.select("frame", **{column.name: value for column, _, value in _DECLARED})


def build_grpc(capture: PacketSource) -> pl.LazyFrame:
    """Messages of gRPC."""
    names = [column.name for column in GRPC_TABLE.columns]
    return _noted(capture).filter(pl.col("what") == noted.MESSAGE).select(names)


PACKET_FIELDS = PacketFields(TABLE, build)
