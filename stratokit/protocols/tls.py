"""TLS 1.0 to 1.3 (RFC 8446, RFC 5246): a row for each handshake, read from what is not encrypted.

Implemented: ClientHello and ServerHello across records and segments, also behind STARTTLS, CONNECT and such;
server name, ALPN, offered and chosen version, cipher and group, HelloRetryRequest, resumption, the offer
of an encrypted ClientHello, certificates up to TLS 1.2, plaintext alerts, JA3, JA3S, JA4, times. Left out:
SSL 2 and its hello, DTLS, renegotiation; certificates are shown, not verified.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.kernels import kernel
from stratokit.protocols import over_tcp, quic, tls_certificates, tls_open
from stratokit.protocols import tls_records as tr
from stratokit.protocols.base import Protocol
from stratokit.protocols.over_tcp import Parsed, StreamParser
from stratokit.protocols.tls_hellos import hello_columns, name_of
from stratokit.protocols.tls_names import ALERTS, GROUPS, VERSIONS
from stratokit.protocols.tls_streams import CHAIN, CHAIN_SIZE, RETRIED, TLS13, read_all, recognise
from stratokit.protocols.tls_suites import SUITES
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.ends import END_COLUMNS, with_ends
from stratokit.streams.segments import STREAM_LIMIT_BYTES
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.protocols.tls_keys import Secrets
    from stratokit.streams.byte_runs import ByteRuns
    from stratokit.streams.source import PacketSource

# A handshake with its certificates; what comes later is not looked at.
HANDSHAKE_LIMIT_BYTES = 1 << 16

TABLE = Table(
    "tls",
    "a TLS handshake; what is encrypted, was not captured or never came is null",
    (
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("ts", "time", "ClientHello."),
        Column("ts_server_hello", "time", "ServerHello."),
        Column("transport", "text", "tcp or quic."),
        Column("version", "text", "Version that the server chose: TLS 1.3, ..."),
        Column("sni", "text", "Server name that the client asked for."),
        Column("alpn", "list<text>", "Protocols that the client offered."),
        Column("alpn_chosen", "text", "Protocol that the server chose; TLS 1.3 encrypts it."),
        Column("cipher", "text", "Cipher suite that the server chose."),
        Column("group", "text", "Group of the key exchange that the server chose."),
        Column("offered_versions", "list<text>", "Versions that the client offered."),
        Column("offered_ciphers", "list<text>", "Cipher suites that the client offered."),
        Column("offered_groups", "list<text>", "Groups that the client offered."),
        Column("ja3", "text", "Fingerprint of the ClientHello, JA3."),
        Column("ja3s", "text", "Fingerprint of the ServerHello, JA3S."),
        Column("ja4", "text", "Fingerprint of the ClientHello, JA4."),
        Column("server_hello_ns", "s64", "From ClientHello to ServerHello.", "ns"),
        Column(
            "handshake_ns",
            "s64",
            "From ClientHello to the last Finished: TLS 1.3 the client's, before that the later of both.",
            "ns",
        ),
        Column(
            "first_data_ns",
            "s64",
            "From ClientHello to the first application data; TLS 1.3: the client's second protected record.",
            "ns",
        ),
        Column("resumed", "bool", "An earlier session went on."),
        Column("retried", "bool", "The server asked for another ClientHello (HelloRetryRequest)."),
        Column("early_data", "bool", "The client offered data before the handshake was done."),
        Column("ech", "bool", "The client sent an encrypted ClientHello, or something that looks like one."),
        Column(
            "cert_subject", "text", "Subject of the server's certificate (RFC 4514); TLS 1.3 encrypts it."
        ),
        Column("cert_issuer", "text", "Its issuer."),
        Column("cert_names", "list<text>", "Its alternative names."),
        Column("cert_not_before", "time", "Valid from."),
        Column("cert_not_after", "time", "Valid until."),
        Column("cert_sha256", "text", "SHA-256 of the certificate."),
        Column("cert_chain", "list<text>", "Subjects of all certificates that the server sent."),
        Column("client_cert_subject", "text", "Subject of the client's certificate."),
        Column("decrypted", "bool", "A key log opened it: what is inside is in the tables of its protocol."),
        Column("alert", "text", "First alert in plain text, as handshake_failure."),
        Column("alert_by", "text", "Who sent it: client or server."),
        Column("client_hello_frame", "u64", "Packet with the first byte of the ClientHello."),
        Column("server_hello_frame", "u64", "Packet with the first byte of the ServerHello."),
        *END_COLUMNS,
    ),
    (
        FilterField("tls.handshake.extensions_server_name", ("sni",), "Server name asked for."),
        FilterField("tls.handshake.extensions_alpn_str", ("alpn",), "Protocols offered."),
        FilterField("tls.handshake.ja3", ("ja3",), "JA3 of the ClientHello."),
        FilterField("tls.handshake.ja3s", ("ja3s",), "JA3S of the ServerHello."),
        FilterField("tls.handshake.ja4", ("ja4",), "JA4 of the ClientHello."),
        FilterField("tls.alert_message.desc", ("alert",), "First alert in plain text."),
        FilterField("x509sat.uTF8String", ("cert_subject",), "Subject of the server's certificate."),
        FilterField("x509ce.dNSName", ("cert_names",), "Alternative names of the server's certificate."),
    ),
)


def _certificates(
    plain: NDArray[np.uint8], facts: NDArray[np.int64], chains: NDArray[np.int64]
) -> dict[str, Any]:
    """Columns of certificates: all of the server's first one, of its others and the client's the subject."""
    ders = [plain[p : p + size].tobytes() for p, size in chains.tolist()]
    known = tls_certificates.table(ders)
    row_of = dict(zip(known["der"], range(known.height), strict=True))
    rows = np.array([row_of[der] for der in ders], np.int64)
    columns: dict[str, Any] = {}
    has = facts[:, CHAIN_SIZE] > 0
    first = np.where(has, facts[:, CHAIN], 0)
    picked = pl.Series(rows[first] if rows.size else first * 0).cast(pl.UInt32)
    for name in tls_certificates.FIELDS:
        values = known[name].gather(picked) if rows.size else known[name].clear(len(picked))
        columns[name] = pl.select(pl.when(pl.Series(has)).then(values)).to_series()
    subjects = known["cert_subject"].gather(pl.Series(rows, dtype=pl.UInt32))
    bounds = np.append(facts[:, CHAIN], len(rows))
    lists = pl.Series(pa.LargeListArray.from_arrays(bounds, subjects.to_arrow()), dtype=pl.List(pl.String))
    found = {name: column[1::2] for name, column in columns.items()}
    found["cert_chain"] = pl.select(pl.when(pl.Series(has[1::2])).then(lists[1::2])).to_series()
    found["client_cert_subject"] = columns["cert_subject"][::2]
    return found


def parse(runs: ByteRuns, asking: NDArray[np.int64], secrets: Secrets | None = None) -> Parsed:
    """A row for each conversation; `asking` is 0 where its client sent the ClientHello, else 1."""
    streams, hellos, facts, chains, plain = read_all(runs.data, runs.run_bounds, runs.run_start, asking)
    opened = None
    if secrets:
        opened = tls_open.open_all(runs, asking, streams[:, tr.HELLO_START], hellos, plain, secrets)
    counters = {tls_open.COUNTER: opened.unopened} if opened else {}

    def frame() -> pl.DataFrame:
        return _with_opened(_frame(runs, streams, hellos, facts, chains, plain), opened)

    if opened is None:
        return Parsed({"tls": frame}, counters)
    return Parsed({"tls": frame}, counters, opened.inner, tuple(runs.flow_id[opened.flows].tolist()))


def _frame(
    runs: ByteRuns,
    streams: NDArray[np.int64],
    hellos: NDArray[np.int64],
    facts: NDArray[np.int64],
    chains: NDArray[np.int64],
    plain: NDArray[np.uint8],
) -> pl.DataFrame:
    """What `read_all` found, a row for each conversation."""
    columns: dict[str, Any] = {"flow_id": runs.flow_id, "transport": ["tcp"] * len(runs.flow_id)}
    columns |= hello_columns(plain, hellos[::2], hellos[1::2], "t")
    columns["retried"] = pl.select(
        pl.when(pl.Series(streams[1::2, tr.HELLO_START] >= 0)).then(pl.Series(facts[1::2, RETRIED] == 1))
    ).to_series()
    columns |= _certificates(plain, facts, chains)
    for side, name in enumerate(("client", "server")):
        mine = streams[side::2]
        columns[f"{name}_alert"] = mine[:, tr.ALERT_CODE]
        for column, place in (
            ("hello", tr.HELLO_START),
            ("finished", tr.FINISHED),
            ("protected", tr.PROTECTED),
            ("again", tr.AGAIN),
        ):
            rows = runs.ready_row_at(mine[:, place])
            seen = pl.Series(mine[:, place] >= 0)
            for what, values in (("ts", runs.ts_ns), ("frame", runs.frame)):
                value = pl.select(pl.when(seen).then(pl.Series(values[rows]))).to_series()
                columns[f"{name}_{column}_{what}"] = value
    return pl.DataFrame(columns)


def _with_opened(frame: pl.DataFrame, opened: tls_open.Found | None) -> pl.DataFrame:
    """Rows with a hello, and what is known of those that were opened."""
    frame = frame.with_columns(decrypted=pl.lit(value=False))
    if opened is not None and opened.flows:
        inside = {"index": opened.flows, "inner_alpn": opened.alpn, "opened": [True] * len(opened.flows)}
        known = pl.DataFrame(
            inside, schema={"index": pl.Int64, "inner_alpn": pl.String, "opened": pl.Boolean}
        )
        frame = frame.with_row_index("index").cast({"index": pl.Int64})
        frame = frame.join(known, on="index", how="left", maintain_order="left").with_columns(
            alpn_chosen=pl.coalesce("alpn_chosen", "inner_alpn"),
            decrypted=pl.col("opened").fill_null(value=False),
        )
        frame = frame.drop("index", "inner_alpn", "opened")
    return frame.filter(pl.any_horizontal(pl.col("client_hello_ts", "server_hello_ts").is_not_null()))


def _with_secrets(parser: StreamParser, secrets: Secrets) -> StreamParser:
    """The parser for a capture whose secrets are known: it reads whole streams, and what is inside."""
    whole = functools.partial(parse, secrets=secrets)
    return dataclasses.replace(parser, parse=whole, limit_bytes=STREAM_LIMIT_BYTES, carries=True)


@kernel
def _read_plain(data: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hellos in streams of handshake bytes, clients' and servers' by turns, and where each begins."""
    hellos = np.empty((bounds.size - 1, tr.HELLO_COLUMNS), np.int64)
    starts = np.zeros(bounds.size - 1, np.int64)
    for s in range(bounds.size - 1):
        p, end = bounds[s], bounds[s + 1]
        behind = tr.read_hello(data, p, end, hellos[s])
        if s % 2 and behind >= 0 and tr.asks_again(data, p, end):
            starts[s] = behind - p
            tr.read_hello(data, behind, end, hellos[s])
    return hellos, starts


def _over_quic(datagrams: pl.DataFrame) -> pl.DataFrame | None:
    """Rows of handshakes in QUIC, in the form of those over TCP."""
    found = list(quic.handshakes(datagrams))
    if not found:
        return None
    texts = [stream.bytes() for handshake in found for stream in handshake.sides]
    plain = np.frombuffer(b"".join(texts), np.uint8)
    hellos, starts = _read_plain(plain, np.cumsum([0, *map(len, texts)]))
    columns: dict[str, Any] = {"flow_id": [handshake.flow_id for handshake in found]}
    columns["transport"] = ["quic"] * len(found)
    columns |= hello_columns(plain, hellos[::2], hellos[1::2], "q")
    there = hellos[:, tr.LEGACY] >= 0
    columns["retried"] = pl.select(
        pl.when(pl.Series(there[1::2])).then(pl.Series(starts[1::2] > 0))
    ).to_series()
    for side, name in enumerate(("client", "server")):
        streams = [handshake.sides[side] for handshake in found]
        first = [
            stream.packet_at(start) if ok else None
            for stream, start, ok in zip(streams, starts[side::2].tolist(), there[side::2], strict=True)
        ]
        columns[f"{name}_hello_ts"] = pl.Series([row and row["ts"] for row in first], dtype=pl.Int64)
        columns[f"{name}_hello_frame"] = pl.Series([row and row["frame"] for row in first], dtype=pl.Int64)
        columns[f"{name}_alert"] = [-1 if stream.alert is None else stream.alert for stream in streams]
    frame = pl.DataFrame(columns)
    return frame.filter(pl.any_horizontal(pl.col("client_hello_ts", "server_hello_ts").is_not_null()))


def _named(column: str, names: dict[int, str]) -> pl.Expr:
    return pl.when(pl.col(column) >= 0).then(name_of(pl.col(column), names))


def _rows(capture: PacketSource) -> pl.DataFrame:
    parts = list(over_tcp.messages(capture, "tls"))
    datagrams = over_tcp.beside(capture, "tls")
    assert datagrams is not None  # nobody lets these go
    in_quic = _over_quic(datagrams)
    if in_quic is not None:
        parts.append(in_quic)
    if not parts:
        return pl.DataFrame(schema=frame_schema(TABLE))
    seconds = ("finished", "protected", "again")
    never = (pl.lit(None, pl.Int64).alias(f"{s}_{what}_ts") for s in ("client", "server") for what in seconds)
    parts.append(pl.DataFrame(schema=dict.fromkeys((), pl.Null)).with_columns(never).clear())
    start, version = pl.col("client_hello_ts"), pl.col("number")
    both = pl.col("client_finished_ts").is_not_null() & pl.col("server_finished_ts").is_not_null()
    # With early data (RFC 8446 section 2.3) the client's first protected record is not its Finished.
    tls13, before = (version >= TLS13) & ~pl.col("early"), version.is_between(0, TLS13 - 1)
    end = (
        pl.when(tls13)
        .then("client_protected_ts")
        .when(before & both)
        .then(pl.max_horizontal("client_finished_ts", "server_finished_ts"))
    )
    data = (
        pl.when(tls13)
        .then("client_again_ts")
        .when(before)
        .then(pl.min_horizontal("client_protected_ts", "server_protected_ts"))
    )
    by_client, by_server = pl.col("client_alert") >= 0, pl.col("server_alert") >= 0
    answered = pl.col("server_hello_ts").is_not_null()
    rows = pl.concat(parts, how="diagonal_relaxed").with_columns(
        ts=start,
        ts_server_hello=pl.col("server_hello_ts"),
        version=_named("number", VERSIONS),
        cipher=_named("suite", SUITES),
        group=_named("group_number", GROUPS),
        server_hello_ns=pl.col("server_hello_ts") - start,
        handshake_ns=end - start,
        first_data_ns=data - start,
        early_data=pl.col("early"),
        resumed=pl.when(answered & (version >= TLS13) | (pl.col("resumes") >= 0)).then(
            pl.col("resumes") == 1
        ),
        alert_code=pl.when(by_client).then("client_alert").otherwise("server_alert"),
        alert_by=pl.when(by_client).then(pl.lit("client")).when(by_server).then(pl.lit("server")),
    )
    code = pl.col("alert_code")
    known = code.replace_strict(ALERTS, default=pl.format("alert_{}", code), return_dtype=pl.String)
    rows = rows.with_columns(alert=pl.when(code >= 0).then(known))
    frames = ("client_hello_frame", "server_hello_frame")
    rows = rows.cast(dict.fromkeys(frames, pl.UInt64)).sort(pl.coalesce("ts", "ts_server_hello"), "flow_id")
    return with_ends(rows, over_tcp.sighted(capture, "tls"), *frames)


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `tls` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


PROTOCOL = Protocol(
    "tls",
    "TLS 1.0 to 1.3 (RFC 8446, 5246)",
    "a ClientHello among the first bytes of a stream, or a ServerHello as its first bytes",
    TABLE,
    build,
)
PARSER = StreamParser(
    "tls",
    ("tls",),
    20,
    recognise,
    parse,
    HANDSHAKE_LIMIT_BYTES,
    in_threads=True,
    beside=quic.CANDIDATES,
    with_secrets=_with_secrets,
)
