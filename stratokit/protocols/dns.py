"""DNS over UDP (RFC 1035): a row for each query with its answer.

Implemented: header, question, answers as text (A, AAAA, NS, CNAME, SOA, PTR, MX, TXT, SRV, DNAME; others as
RFC 3597 writes them), compression with loop protection, extended response codes (RFC 6891), retries.
Left out: DNS over TCP, TLS, HTTPS and QUIC, multicast DNS (port 5353), LLMNR (5355), NetBIOS names (137),
authority and additional records, EDNS options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.protocols import dns_messages as dm
from stratokit.protocols.base import Protocol
from stratokit.protocols.dns_names import QTYPES, RCODES
from stratokit.protocols.text import text_column
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.ends import END_COLUMNS, with_ends
from stratokit.streams.flows import UDP
from stratokit.streams.reassembly import Payload
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.source import PacketSource

PORT = 53
OTHER_PORTS = (137, 5353, 5355)

TABLE = Table(
    "dns",
    "a DNS query and its answer; a part that was not captured, or never came, is null",
    (
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("ts_query", "time", "The query, the first time it was sent."),
        Column("ts_response", "time", "The first response."),
        Column("transport", "text", "udp."),
        Column("id", "u16", "Identifier."),
        Column("opcode", "u8", "0 query, 4 notify, 5 update."),
        Column("qname", "text", "Name asked for, without the final dot; the root is a dot."),
        Column("qtype", "u16", "Type asked for: 1 A, 28 AAAA, ..."),
        Column("qtype_name", "text", "Its name, or TYPE and the number."),
        Column("rcode", "u16", "Response code: 0 no error, 2 server failure, 3 no such name, ..."),
        Column("rcode_name", "text", "Its name: NOERROR, SERVFAIL, NXDOMAIN, ..."),
        Column(
            "answers", "list<text>", "Data of the answer records in their order; null without a response."
        ),
        Column("truncated", "bool", "The server could not send all: the client should ask over TCP."),
        Column("latency_ns", "s64", "From the first query to the response.", "ns"),
        Column("attempts", "u32", "How often the query was sent; 0 when only the response was captured."),
        Column("query_frame", "u64", "Packet of the first query."),
        Column("response_frame", "u64", "Packet of the response."),
        *END_COLUMNS,
    ),
    (
        FilterField("dns.id", ("id",), "Identifier."),
        FilterField("dns.flags.opcode", ("opcode",), "Operation."),
        FilterField("dns.flags.rcode", ("rcode",), "Response code."),
        FilterField("dns.flags.truncated", ("truncated",), "Whether the response was truncated."),
        FilterField("dns.qry.name", ("qname",), "Name asked for."),
        FilterField("dns.qry.type", ("qtype",), "Type asked for."),
        FilterField("dns.time", ("latency_ns",), "From query to response."),
        FilterField("dns.a", ("answers",), "Data of the answers, as addresses."),
    ),
)

_KEY = ("flow_id", "id", "name_hash", "qtype")


def parse(payload: Payload, flow: NDArray[np.int64], known: NDArray[np.bool_]) -> pl.DataFrame:
    """Messages among datagrams, `row` telling which datagram each is; see `dns_messages.read_messages`."""
    flows, index = np.unique(flow, return_inverse=True)
    found = dm.read_messages(payload.data, payload.bounds, index, flows.size, known)
    messages, source, names, answers, ends, bounds = found
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    lists = pa.LargeListArray.from_arrays(bounds, text_column(answers, starts, ends - starts).to_arrow())
    flags = pl.Series(messages[:, dm.FLAGS])
    return pl.DataFrame(
        {
            "row": source,
            "flow_id": flow[source],
            "id": messages[:, dm.ID],
            "opcode": (flags // 2048) & 15,
            "is_response": (flags & dm.IS_RESPONSE) != 0,
            "truncated": (flags & dm.TRUNCATED) != 0,
            "rcode": messages[:, dm.RCODE],
            "qname": text_column(names, messages[:, dm.NAME], messages[:, dm.NAME_SIZE]),
            "qtype": pl.Series(messages[:, dm.QTYPE]).replace(-1, None),
            "name_hash": messages[:, dm.NAME_HASH],
            "answers": pl.Series(lists, dtype=pl.List(pl.String)),
        }
    )


def _messages(capture: PacketSource) -> pl.DataFrame:
    """All DNS messages, each once and as its sender or receiver at the client's end saw it."""
    ports = pl.col("src_port", "dst_port")
    on_port = pl.any_horizontal(ports == PORT)
    # Nearly every message has one question: this spares the reading of other protocols' datagrams.
    one_question = pl.col("data").bin.slice(pl.col("payload_offset") + 4, 2) == b"\0\1"
    packets = (
        capture.rows("packet")
        .filter(
            pl.col("ip_proto") == UDP,
            pl.col("flow_id").is_not_null(),
            pl.col("payload_len") >= dm.HEADER_BYTES,
            ~pl.any_horizontal(ports.is_in(OTHER_PORTS)),
            on_port | one_question,
        )
        .select(
            "flow_id",
            "frame",
            "ts",
            "direction",
            known=on_port,
            payload=pl.col("data").bin.slice(pl.col("payload_offset"), pl.col("payload_len")).fill_null(b""),
        )
        .collect()
    )
    flow = packets["flow_id"].cast(pl.Int64).to_numpy()
    messages = parse(Payload.of(packets["payload"]), flow, packets["known"].to_numpy())
    seen = packets.select("frame", "ts", "direction")[messages["row"]]
    at_client = (pl.col("direction") == "in") == pl.col("is_response")
    return (
        messages.hstack(seen)
        .sort(at_client.fill_null(value=True), descending=True, maintain_order=True)
        .unique("frame", keep="first", maintain_order=True)
        .sort("ts", "frame", maintain_order=True)
    )


def _with_questions(messages: pl.DataFrame) -> pl.DataFrame:
    """A response without a question, as some servers send on errors, answers the query before it."""
    bare = messages.filter(pl.col("qtype").is_null())
    if bare.is_empty():
        return messages
    ends = ["flow_id", "id"]
    filled = (
        pl.when(pl.col("qtype").is_not_null()).then(name).forward_fill().over(ends).alias(name)
        for name in ("qname", "qtype", "name_hash")
    )
    concerned = messages.join(bare.select(ends).unique(), on=ends, how="semi").with_columns(filled)
    return pl.concat([messages.join(bare.select(ends), on=ends, how="anti"), concerned]).sort("ts", "frame")


def _transactions(messages: pl.DataFrame) -> pl.DataFrame:
    """Queries with their answers, by conversation, identifier and name; after an answer a new one begins."""
    told = _with_questions(messages).sort(_KEY, maintain_order=True, nulls_last=True)
    new_key = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in _KEY)
    after_answer = pl.col("is_response").shift(1, fill_value=True)
    told = told.with_columns(begins=new_key | (after_answer & ~pl.col("is_response")))
    told = told.with_columns(transaction=pl.col("begins").cum_sum())
    query, response = ~pl.col("is_response"), pl.col("is_response")
    queries = told.filter("begins").select(
        "transaction",
        "flow_id",
        "id",
        "qname",
        "qtype",
        "opcode",
        ts_query=pl.when(query).then("ts"),
        query_frame=pl.when(query).then("frame"),
    )
    answers = told.filter(response, pl.col("begins") | ~after_answer).select(
        "transaction",
        "rcode",
        "answers",
        "truncated",
        pl.col("ts").alias("ts_response"),
        pl.col("frame").alias("response_frame"),
    )
    attempts = told.group_by("transaction").agg(attempts=query.sum())
    return queries.join(answers, on="transaction", how="left").join(attempts, on="transaction", how="left")


def _rows(capture: PacketSource) -> pl.DataFrame:
    rows = _transactions(_messages(capture)).with_columns(
        transport=pl.lit("udp"),
        qtype_name=_named("qtype", QTYPES, "TYPE"),
        rcode_name=_named("rcode", RCODES, "RCODE"),
        latency_ns=(pl.col("ts_response") - pl.col("ts_query")).dt.total_nanoseconds(),
    )
    rows = rows.sort(pl.coalesce("ts_query", "ts_response"), "transaction")
    return with_ends(rows, capture, "query_frame", "response_frame")


def _named(column: str, names: dict[int, str], prefix: str) -> pl.Expr:
    """Mnemonic of a number; RFC 3597 section 5 for a type that has none."""
    number = pl.col(column)
    return number.replace_strict(names, default=pl.format(prefix + "{}", number), return_dtype=pl.String)


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `dns` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


PROTOCOL = Protocol(
    "dns",
    "DNS over UDP (RFC 1035)",
    "port 53, or a first datagram that is a DNS message to the last byte",
    TABLE,
    build,
)
