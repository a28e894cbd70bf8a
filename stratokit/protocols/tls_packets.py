"""Which packets have which fields of TLS: as in Wireshark, the one that completes a record or a message.

The word `tls` alone means those in which a record begins, too.

A stream is read from its first record on; behind missing bytes, or bytes that are no record, from the next
packet that begins with one. What is encrypted has a record's fields alone: with TLS 1.3 (RFC 8446) the
records of application data, before it all handshake behind ChangeCipherSpec, and all of which the hello was
not seen. Of QUIC the hellos have their fields. Left out: what is inside when there are secrets, DTLS.
"""

from __future__ import annotations

import bisect
import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.layers import i64
from stratokit.formats.source import forget_pages
from stratokit.kernels import kernel, routine
from stratokit.protocols import quic
from stratokit.protocols import tls_records as tr
from stratokit.protocols.buffers import be16, with_room, with_rows
from stratokit.protocols.over_tcp import GROUP_BYTES, HEAD_BYTES, Heads
from stratokit.protocols.tls_hellos import hello_columns
from stratokit.protocols.tls_streams import TLS13, find_start, recognise
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, PacketFields, Table
from stratokit.streams import reassembly
from stratokit.streams.byte_runs import piece_at
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.byte_runs import ByteRuns
    from stratokit.streams.source import PacketSource

_HTTPS = 443
_LEVEL, _DESCRIPTION = 5, 6
# A record: its stream, type, version, length, last byte, of a plain alert level and description, or -1; its
# first byte. One that is cut has no type.
_FIRST = 7
_RECORD_COLUMNS = 8
# A handshake message: the record that completes it, type, and where its header stands in the plain bytes.
_MESSAGE_COLUMNS = 4
_NAMES = {
    "sni": ("text", "tls.handshake.extensions_server_name", "Server name asked for."),
    "alpn": ("text", "tls.handshake.extensions_alpn_str", "Protocol offered or chosen."),
    "ja3": ("text", "tls.handshake.ja3", "JA3 of the ClientHello."),
    "ja4": ("text", "tls.handshake.ja4", "JA4 of the ClientHello."),
    "ja3s": ("text", "tls.handshake.ja3s", "JA3S of the ServerHello."),
    "content_type": (
        "u8", "tls.record.content_type", "20 change cipher spec, 21 alert, 22 handshake, 23 data.",
    ),
    "opaque_type": ("u8", "tls.record.opaque_type", "The same of an encrypted record of TLS 1.3: 23."),
    "record_version": ("u16", "tls.record.version", "Version in front of the record: 0x0303 is TLS 1.2."),
    "record_length": ("u16", "tls.record.length", "Bytes of the record."),
    "handshake_type": ("u8", "tls.handshake.type", "1 ClientHello, 2 ServerHello, 11 Certificate, ..."),
    "handshake_length": ("u32", "tls.handshake.length", "Bytes of the handshake message."),
    "hello_version": ("u16", "tls.handshake.version", "Version in front of a hello: 0x0303 from TLS 1.2 on."),
    "session_id_length": ("u8", "tls.handshake.session_id_length", "Bytes of a hello's session id."),
    "ciphersuite": ("u16", "tls.handshake.ciphersuite", "Cipher suites, offered and chosen: 0x1301, ..."),
    "extension": ("u16", "tls.handshake.extension.type", "Types of a hello's extensions: 0 server name, ..."),
    "supported_version": (
        "u16", "tls.handshake.extensions.supported_version", "Versions in the extension: 0x0304 is TLS 1.3.",
    ),
    "alert_level": ("u8", "tls.alert_message.level", "1 warning, 2 fatal."),
    "alert": ("u8", "tls.alert_message.desc", "Plain alert: 0 close notify, 40 handshake failure, ..."),
}  # fmt: skip

TABLE = Table(
    "tls",
    "a TLS record, a handshake message, or one of a message's values",
    (
        Column("frame", "u64", "Packet that completed it."),
        *(Column(name, kind, doc) for name, (kind, _, doc) in _NAMES.items()),
    ),
    tuple(FilterField(field, (name,), doc) for name, (_, field, doc) in _NAMES.items()),
)


@routine
def _read_record(data: np.ndarray, p: int, end: int, stream: int, row: np.ndarray) -> Any:
    """Fill the row of the record at p: where it ends, or -1 where none begins."""
    kind, length = i64(data[p]), i64(be16(data, p + 3))
    behind = p + tr.RECORD_HEADER_BYTES + length
    if data[p + 1] != 3 or not tr.CHANGE_CIPHER_SPEC <= kind <= tr.HEARTBEAT:
        return i64(-1)
    row[0], row[1], row[2], row[3], row[4] = stream, kind, be16(data, p + 1), length, behind - 1
    row[_LEVEL], row[_DESCRIPTION], row[_FIRST] = -1, -1, p
    if behind > end:
        row[1], row[4] = 0, p
    return behind


@routine
def _read_messages(
    out: np.ndarray, place: np.ndarray, record: int, messages: np.ndarray, m: int, hello: np.ndarray
) -> Any:
    """Messages that are complete with this record: (messages, new m, whether TLS 1.3 was chosen).

    `place` is where the next message begins in `out`, and how much of it is filled.
    """
    is_tls13 = False
    while place[0] + 4 <= place[1]:
        p = place[0]
        behind = p + 4 + (i64(out[p + 1]) << 16 | be16(out, p + 2))
        if behind > place[1]:
            break
        messages = with_rows(messages, m, 1)
        messages[m, 0], messages[m, 1], messages[m, 2], messages[m, 3] = record, out[p], p, behind - p - 4
        m += 1
        if out[p] == tr.SERVER_HELLO:
            tr.read_hello(out, p, behind, hello)
            is_tls13 |= hello[tr.VERSION] >= TLS13
        place[0] = behind
    return messages, m, is_tls13


@routine
def _next_record(data: np.ndarray, p: int, end: int, piece_start: np.ndarray) -> Any:
    """The first place from p on where a packet begins with a record, or -1."""
    if p >= end:
        return i64(-1)
    k = i64(piece_at(piece_start, p))
    if piece_start[k] < p:
        k += 1
    while k < piece_start.size and piece_start[k] + tr.RECORD_HEADER_BYTES <= end:
        if tr.is_record(data, piece_start[k], end):
            return i64(piece_start[k])
        k += 1
    return i64(-1)


@kernel
def _goes_on(data: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Whether either stream of each conversation begins with a record."""
    found = np.zeros((bounds.size - 1) // 2, np.bool_)
    for s in range(bounds.size - 1):
        start, end = bounds[s], bounds[s + 1]
        found[s // 2] |= start + tr.RECORD_HEADER_BYTES <= end and tr.is_record(data, start, end)
    return found


@kernel
def _read(
    data: np.ndarray,
    run_bounds: np.ndarray,
    run_start: np.ndarray,
    piece_start: np.ndarray,
    asking: np.ndarray,
) -> Any:
    """(records, messages, plain handshake bytes) of all conversations, a server's before its client's."""
    records = np.empty((1024, _RECORD_COLUMNS), np.int64)
    messages = np.empty((256, _MESSAGE_COLUMNS), np.int64)
    hello = np.empty(tr.HELLO_COLUMNS, np.int64)
    out = np.empty(1 << 14, np.uint8)
    place = np.zeros(2, np.int64)
    n, m, is_tls13 = 0, 0, False
    for turn in range(2 * asking.size):
        k, side = turn // 2, 1 - turn % 2
        s = 2 * k + (asking[k] if side == 0 else 1 - asking[k])
        is_tls13 &= side == 0
        for run in range(run_bounds[s], run_bounds[s + 1]):
            p, end, known = i64(run_start[run]), run_start[run + 1], False
            first = find_start(data, p, end, side) if run == run_bounds[s] else i64(-1)
            p = first if first >= 0 else _next_record(data, p, end, piece_start)
            place[0] = place[1]
            while p >= 0 and p + tr.RECORD_HEADER_BYTES <= end:
                records = with_rows(records, n, 1)
                row, start = records[n], p
                body = p + tr.RECORD_HEADER_BYTES
                p = _read_record(data, p, end, s, row)
                if p < 0:
                    known, place[0] = False, place[1]
                    p = _next_record(data, body, end, piece_start)
                    continue
                kind = row[1]
                n += 1
                if kind == 0:
                    break
                if start == first or tr.is_hello(data, start, end, tr.CLIENT_HELLO + side):
                    known = True
                if kind == tr.ALERT and p - body == 2:
                    row[_LEVEL], row[_DESCRIPTION] = data[body], data[body + 1]
                elif kind == tr.CHANGE_CIPHER_SPEC:
                    known &= is_tls13
                elif kind == tr.HANDSHAKE and known:
                    out = with_room(out, place[1], p - body)
                    for i in range(body, p):
                        out[place[1]] = data[i]
                        place[1] += 1
                    messages, m, chosen = _read_messages(out, place, n - 1, messages, m, hello)
                    is_tls13 |= chosen
                elif kind == tr.APPLICATION_DATA and is_tls13:
                    row[1] = -kind
    return records[:n], messages[:m], out[: place[1]]


@kernel
def _hellos(plain: np.ndarray, messages: np.ndarray, kind: int) -> np.ndarray:
    """Places in hellos of one kind, -1 for other messages."""
    hellos = np.full((messages.shape[0], tr.HELLO_COLUMNS), -1, np.int64)
    for k in range(messages.shape[0]):
        if messages[k, 1] == kind:
            tr.read_hello(plain, messages[k, 2], messages[k, 2] + 4 + messages[k, 3], hellos[k])
    return hellos


@kernel
def _lists(plain: np.ndarray, start: np.ndarray, size: np.ndarray, extensions: bool) -> np.ndarray:
    """(row, number) of each two-byte number in lists; or of the types of extensions."""
    found = np.empty((256, 2), np.int64)
    n = 0
    for k in range(start.size):
        p, end = start[k], start[k] + size[k]
        while p + 2 <= end:
            found = with_rows(found, n, 1)
            found[n, 0], found[n, 1] = k, be16(plain, p)
            n += 1
            p += 2
            if extensions:
                p += 2 + be16(plain, p) if p + 2 <= end else 2
    return found[:n]


def _known(values: NDArray[np.int64]) -> pl.Series:
    return pl.Series(values).replace(-1, None)


def _of_messages(
    plain: NDArray[np.uint8], messages: NDArray[np.int64], frame: pl.Series, transport: str
) -> list[pl.DataFrame]:
    client, server = (_hellos(plain, messages, kind) for kind in (tr.CLIENT_HELLO, tr.SERVER_HELLO))
    either = np.where(client[:, tr.LEGACY, None] >= 0, client, server)
    told = hello_columns(plain, client, server, transport)
    rows = pl.DataFrame(
        {
            "frame": frame,
            "handshake_type": messages[:, 1],
            "handshake_length": messages[:, 3],
            "hello_version": _known(either[:, tr.LEGACY]),
            "session_id_length": _known(either[:, tr.SESSION + 1]),
            "sni": told["sni"],
            "ja3": told["ja3"],
            "ja4": told["ja4"],
            "ja3s": told["ja3s"],
        }
    )
    parts = [rows]
    parts.append(pl.DataFrame({"frame": frame, "alpn": told["alpn"]}).explode("alpn"))
    parts.append(pl.DataFrame({"frame": frame, "alpn": told["alpn_chosen"]}))
    for name, hellos, column in (
        ("ciphersuite", client, tr.CIPHERS),
        ("extension", client, tr.EXTENSIONS),
        ("extension", server, tr.EXTENSIONS),
        ("supported_version", client, tr.VERSIONS),
    ):
        found = _lists(plain, hellos[:, column], hellos[:, column + 1], name == "extension")
        parts.append(pl.DataFrame({"frame": frame.gather(found[:, 0]), name: found[:, 1]}))
    parts.append(pl.DataFrame({"frame": frame, "ciphersuite": _known(server[:, tr.CIPHER])}))
    chosen = np.where(server[:, tr.VERSION] >= TLS13, server[:, tr.VERSION], -1)
    parts.append(pl.DataFrame({"frame": frame, "supported_version": _known(chosen)}))
    return parts


def _of(runs: ByteRuns, asking: NDArray[np.int64]) -> list[pl.DataFrame]:
    records, messages, plain = _read(runs.data, runs.run_bounds, runs.run_start, runs.piece_start, asking)
    first, last = (
        pl.Series(runs.frame[runs.ready_row_at(records[:, place])]).cast(pl.UInt64) for place in (_FIRST, 4)
    )
    kind = records[:, 1]
    rows = pl.DataFrame(
        {
            "frame": last,
            "content_type": _known(np.where(kind > 0, kind, -1)),
            "opaque_type": _known(np.where(kind < 0, -kind, -1)),
            "record_version": records[:, 2],
            "record_length": records[:, 3],
            "alert_level": _known(records[:, _LEVEL]),
            "alert": _known(records[:, _DESCRIPTION]),
        }
    ).filter(pl.Series(kind != 0))
    parts = [rows, first.alias("frame").to_frame()]
    if len(messages):
        parts += _of_messages(plain, messages, last.gather(messages[:, 0]), "t")
    return parts


def _in_quic(datagrams: pl.DataFrame) -> list[pl.DataFrame]:
    """Hellos in QUIC's Initial packets, with the packets that complete them."""
    messages: list[tuple[int, int, int, int]] = []
    frames, plain = [], bytearray()
    for handshake in quic.handshakes(datagrams):
        for stream in handshake.sides:
            text, p = stream.bytes(), 0
            arrivals = stream.arrivals()
            while p + 4 <= len(text):
                behind = p + 4 + int.from_bytes(text[p + 1 : p + 4], "big")
                if behind > len(text):
                    break
                at = bisect.bisect_left(arrivals, behind, key=operator.itemgetter(0))
                frames.append(arrivals[at][1]["frame"])
                messages.append((0, text[p], len(plain) + p, behind - p - 4))
                p = behind
            plain += text
    if not messages:
        return []
    frame = pl.Series("frame", frames, dtype=pl.UInt64)
    return _of_messages(np.frombuffer(plain, np.uint8), np.array(messages, np.int64), frame, "q")


def _messages(capture: PacketSource) -> pl.DataFrame:
    parts, datagrams = [pl.DataFrame(schema=frame_schema(TABLE))], []
    for streams in reassembly.batches(capture, beside=quic.CANDIDATES):
        if streams.beside is not None:
            datagrams.append(streams.beside)
        heads = streams.heads(HEAD_BYTES)
        asks = recognise(Heads(*heads, streams.began))
        # Of connections that began before the capture, records that begin a packet tell.
        wanted = (asks >= 0) | _goes_on(*heads) | streams.on_port(_HTTPS)
        asks = np.maximum(asks, 0)
        for group, _ in streams.groups(wanted, GROUP_BYTES):
            parts += _of(streams.byte_runs(group), asks[group])
            forget_pages()
    if datagrams:
        parts += _in_quic(pl.concat(datagrams))
    return pl.concat(parts, how="diagonal_relaxed")


def build(capture: PacketSource) -> pl.LazyFrame:
    """Records, messages, and the values in their lists; columns that do not concern a row are null."""
    return deferred(frame_schema(TABLE), lambda: _messages(capture))


PACKET_FIELDS = PacketFields(TABLE, build)
