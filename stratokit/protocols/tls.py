"""TLS 1.0 to 1.3 (RFC 8446, RFC 5246): a row for each handshake, read from what is not encrypted.

Implemented: ClientHello and ServerHello across records and segments, server name, ALPN, chosen version and
cipher, HelloRetryRequest, resumption, plaintext alerts, times. Left out: certificates, JA3 and JA4, STARTTLS,
SSL 2 and its hello, DTLS, QUIC, decryption.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit

from stratokit.dissect.layers import i64
from stratokit.protocols import tls_records as tr
from stratokit.protocols.base import Protocol
from stratokit.protocols.text import text_column
from stratokit.protocols.tls_names import ALERTS, CIPHERS, VERSIONS
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams import reassembly
from stratokit.streams.ends import END_COLUMNS, with_ends
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.reassembly import ByteRuns
    from stratokit.streams.source import PacketSource

# A handshake with its certificates; what comes later is not looked at.
HANDSHAKE_LIMIT_BYTES = 1 << 16
_RECOGNISED_BYTES = 11
_TLS13 = 0x0304

TABLE = Table(
    "tls",
    "a TLS handshake; what is encrypted, was not captured or never came is null",
    (
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("ts", "time", "ClientHello."),
        Column("ts_server_hello", "time", "ServerHello."),
        Column("version", "text", "Version that the server chose: TLS 1.3, ..."),
        Column("sni", "text", "Server name that the client asked for."),
        Column("alpn", "list<text>", "Protocols that the client offered."),
        Column("alpn_chosen", "text", "Protocol that the server chose; TLS 1.3 encrypts it."),
        Column("cipher", "text", "Cipher suite that the server chose."),
        Column("server_hello_ns", "s64", "From ClientHello to ServerHello.", "ns"),
        Column(
            "handshake_ns",
            "s64",
            "From ClientHello to the last Finished: TLS 1.3 the client's, before that the later of both.",
            "ns",
        ),
        Column("resumed", "bool", "An earlier session went on."),
        Column("alert", "text", "First alert in plain text, as handshake_failure."),
        Column("alert_by", "text", "Who sent it: client or server."),
        Column("client_hello_frame", "u64", "Packet with the first byte of the ClientHello."),
        Column("server_hello_frame", "u64", "Packet with the first byte of the ServerHello."),
        *END_COLUMNS,
    ),
    (
        FilterField("tls.handshake.extensions_server_name", ("sni",), "Server name asked for."),
        FilterField("tls.handshake.extensions_alpn_str", ("alpn",), "Protocols offered."),
    ),
)


@njit(nogil=True, cache=True)
def recognise(data: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Which stream of each conversation has the ClientHello, or -1 where it is not TLS."""
    asks = np.full((bounds.size - 1) // 2, -1, np.int64)
    for s in range(bounds.size - 1):
        if tr.is_hello(data, bounds[s], bounds[s + 1], tr.CLIENT_HELLO):
            asks[s // 2] = s % 2
        elif asks[s // 2] < 0 and tr.is_hello(data, bounds[s], bounds[s + 1], tr.SERVER_HELLO):
            asks[s // 2] = 1 - s % 2
    return asks


@njit(nogil=True, cache=True)
def _read_all(
    data: np.ndarray, run_bounds: np.ndarray, run_start: np.ndarray, asking: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(streams, hellos, copied handshake bytes): client's in rows 2k, server's in rows 2k + 1."""
    streams = np.full((2 * asking.size, tr.STREAM_COLUMNS), -1, np.int64)
    hellos = np.full((2 * asking.size, tr.HELLO_COLUMNS), -1, np.int64)
    out = np.empty(1 << 14, np.uint8)
    n = 0
    for k in range(asking.size):
        for side in range(2):
            s = 2 * k + (asking[k] if side == 0 else 1 - asking[k])
            row, hello = streams[2 * k + side], hellos[2 * k + side]
            run = run_bounds[s]
            if run == run_bounds[s + 1]:
                continue
            start, end = run_start[run], run_start[run + 1]
            if not tr.is_hello(data, start, end, tr.CLIENT_HELLO + side) and data[start] != tr.ALERT:
                continue
            out, n = tr.read_records(data, start, end, row, out, n)
            p = row[tr.PLAIN]
            behind = tr.read_hello(out, p, n, hello)
            if side == 1 and behind >= 0 and tr.asks_again(out, p, n):
                behind = tr.read_hello(out, behind, n, hello)
            if behind < 0:
                row[tr.HELLO_START] = -1
            elif side == 1 and hello[tr.VERSION] < _TLS13 and row[tr.CHANGED_AT] >= 0:
                # An abbreviated handshake has neither certificate nor key exchange (RFC 5246 section 7.3).
                plain_end = p + row[tr.CHANGED_AT]
                full = tr.has_message(out, behind, plain_end, tr.CERTIFICATE)
                full = full or tr.has_message(out, behind, plain_end, tr.SERVER_KEY_EXCHANGE)
                hello[tr.RESUMES] = 0 if full else 1
    return streams, hellos, out[:n]


@njit(nogil=True, cache=True)
def _protocols(data: np.ndarray, start: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(position, size) of each name in ALPN lists, and the bounds of each list's names."""
    total = 0
    for s in size:
        total += max(s, 0)
    names = np.empty((total, 2), np.int64)
    bounds = np.zeros(start.size + 1, np.int64)
    n = 0
    for i in range(start.size):
        p = start[i]
        while p < start[i] + size[i]:
            names[n, 0], names[n, 1] = p + 1, min(i64(data[p]), start[i] + size[i] - p - 1)
            p += 1 + data[p]
            n += 1
        bounds[i + 1] = n
    return names[:n], bounds


def _alpn(plain: NDArray[np.uint8], hellos: NDArray[np.int64]) -> pl.Series:
    size = hellos[:, tr.ALPN_LIST + 1]
    names, bounds = _protocols(plain, hellos[:, tr.ALPN_LIST], size)
    texts = text_column(plain, names[:, 0], names[:, 1]).to_arrow()
    lists = pl.Series(pa.LargeListArray.from_arrays(bounds, texts), dtype=pl.List(pl.String))
    return pl.select(pl.when(pl.Series(size >= 0)).then(lists)).to_series()


def parse(runs: ByteRuns, asking: NDArray[np.int64]) -> pl.DataFrame:
    """A row for each conversation; `asking` is 0 where its client sent the ClientHello, else 1."""
    streams, hellos, plain = _read_all(runs.data, runs.run_bounds, runs.run_start, asking)
    client, server = hellos[::2], hellos[1::2]
    names = {0: "client", 1: "server"}
    columns: dict[str, Any] = {
        "flow_id": runs.flow_id,
        "sni": text_column(plain, client[:, tr.NAME], client[:, tr.NAME + 1]),
        "alpn": _alpn(plain, client),
        "alpn_chosen": _alpn(plain, server).list.first(),
        "number": server[:, tr.VERSION],
        "suite": server[:, tr.CIPHER],
        "resumes": server[:, tr.RESUMES],
        "early": client[:, tr.EARLY] == 1,
    }
    for side, name in names.items():
        mine = streams[side::2]
        columns[f"{name}_alert"] = mine[:, tr.ALERT_CODE]
        for column, place in (
            ("hello", tr.HELLO_START),
            ("finished", tr.FINISHED),
            ("protected", tr.PROTECTED),
        ):
            rows = runs.ready_row_at(mine[:, place])
            seen = pl.Series(mine[:, place] >= 0)
            for what, values in (("ts", runs.ts_ns), ("frame", runs.frame)):
                value = pl.select(pl.when(seen).then(pl.Series(values[rows]))).to_series()
                columns[f"{name}_{column}_{what}"] = value
    return pl.DataFrame(columns)


def _named(column: str, names: dict[int, str], other: pl.Expr) -> pl.Expr:
    number = pl.col(column)
    named = number.replace_strict(names, default=other, return_dtype=pl.String)
    return pl.when(number >= 0).then(named)


def _rows(capture: PacketSource) -> pl.DataFrame:
    parts = []
    for streams in reassembly.batches(capture):
        asks = recognise(*streams.heads(_RECOGNISED_BYTES))
        wanted = asks >= 0
        if wanted.any():
            parts.append(parse(streams.byte_runs(wanted, HANDSHAKE_LIMIT_BYTES), asks[wanted]))
    if not parts:
        return pl.DataFrame(schema=frame_schema(TABLE))
    start, version = pl.col("client_hello_ts"), pl.col("number")
    both = pl.col("client_finished_ts").is_not_null() & pl.col("server_finished_ts").is_not_null()
    # With early data (RFC 8446 section 2.3) the client's first protected record is not its Finished.
    end = (
        pl.when(version >= _TLS13, ~pl.col("early"))
        .then("client_protected_ts")
        .when(version.is_between(0, _TLS13 - 1), both)
        .then(pl.max_horizontal("client_finished_ts", "server_finished_ts"))
    )
    by_client, by_server = pl.col("client_alert") >= 0, pl.col("server_alert") >= 0
    answered = pl.col("server_hello_ts").is_not_null()
    rows = pl.concat(parts).with_columns(
        ts=start,
        ts_server_hello=pl.col("server_hello_ts"),
        version=_named("number", VERSIONS, pl.format("{}", version)),
        cipher=_named("suite", CIPHERS, pl.format("{}", pl.col("suite"))),
        server_hello_ns=pl.col("server_hello_ts") - start,
        handshake_ns=end - start,
        resumed=pl.when(answered & (version >= _TLS13) | (pl.col("resumes") >= 0)).then(
            pl.col("resumes") == 1
        ),
        alert_code=pl.when(by_client).then("client_alert").otherwise("server_alert"),
        alert_by=pl.when(by_client).then(pl.lit("client")).when(by_server).then(pl.lit("server")),
    )
    rows = rows.with_columns(alert=_named("alert_code", ALERTS, pl.format("alert_{}", pl.col("alert_code"))))
    frames = ("client_hello_frame", "server_hello_frame")
    rows = rows.cast(dict.fromkeys(frames, pl.UInt64)).sort(pl.coalesce("ts", "ts_server_hello"), "flow_id")
    return with_ends(rows, capture, *frames)


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `tls` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


PROTOCOL = Protocol(
    "tls",
    "TLS 1.0 to 1.3 (RFC 8446, 5246)",
    "a ClientHello or a ServerHello as the first bytes of a stream",
    TABLE,
    build,
)
