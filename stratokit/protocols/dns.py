"""DNS over UDP and TCP (RFC 1035, RFC 7766), multicast DNS (RFC 6762) and LLMNR (RFC 4795): a row for each
question with its answer.

Implemented: all sections, record data as text (A, AAAA, NS, CNAME, SOA, PTR, MX, TXT, SRV, DNAME, SVCB,
HTTPS, CAA, DS, DNSKEY, RRSIG; others as RFC 3597 writes them), compression with loop protection, EDNS and
extended errors (RFC 6891, RFC 8914), retries, search domains. Left out: DNS over TLS, HTTPS and QUIC,
NetBIOS names (port 137), the other options of EDNS, known answers of multicast DNS, signatures (they are not
checked).

How questions find their answers, and what `outcome` says, is in docs/protocols.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.protocols import dns_frames, dns_sources, over_tcp
from stratokit.protocols.base import Passes, Protocol
from stratokit.protocols.dns_names import EXTENDED_ERRORS
from stratokit.protocols.dns_pairs import ATTEMPTS, QUERY, RESPONSE, pair, search_chains
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.byte_runs import Payload
from stratokit.streams.ends import END_COLUMNS, with_ends
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.source import PacketSource

# A responder of multicast DNS may wait up to half a second (RFC 6762 section 6.3); a busy one longer.
MDNS_WAIT_NS = 2_000_000_000
# What resolv.conf(5) gives a server before the query is sent again.
TIMEOUT_NS = 5_000_000_000
# Questions to a group: whoever has the name answers, and nobody where nobody has it.
TO_GROUP = pl.col("transport").is_in(["mdns", "llmnr"]).fill_null(value=False)
# Whether a row is a question in vain.
FAILED = (pl.col("rcode") != 0).fill_null(~TO_GROUP)
_MADE = "dns, rows"  # beside what protocols over TCP found

TABLE = Table(
    "dns",
    "a DNS question and its answer; a part that was not captured, or never came, is null",
    (
        Column("flow_id", "u64", "Conversation that carried it."),
        Column("ts_query", "time", "The query, the first time it was sent."),
        Column("ts_response", "time", "The first response."),
        Column("transport", "text", "udp, tcp, mdns or llmnr."),
        Column("id", "u16", "Identifier."),
        Column("opcode", "u8", "0 query, 4 notify, 5 update."),
        Column("qname", "text", "Name asked for, without the final dot; the root is a dot."),
        Column("qtype", "u16", "Type asked for: 1 A, 28 AAAA, ..."),
        Column("qtype_name", "text", "Its name, or TYPE and the number."),
        Column("qclass", "u16", "Class asked for: 1 Internet."),
        Column("rcode", "u16", "Response code: 0 no error, 2 server failure, 3 no such name, ..."),
        Column("rcode_name", "text", "Its name: NOERROR, SERVFAIL, NXDOMAIN, ..."),
        Column(
            "outcome",
            "text",
            "answer, nodata (the name has no such record), truncated, timeout (nobody answered), unanswered "
            "(nobody had until the capture ended), else the response code: nxdomain, servfail, ...",
        ),
        Column(
            "answers", "list<text>", "Data of the answer records in their order; null without a response."
        ),
        Column("answer_types", "list<text>", "Types of the answer records."),
        Column("authority", "list<text>", "Authority records: name, type, data."),
        Column("additional", "list<text>", "Additional records: name, type, data."),
        Column("ttl", "u32", "Least time to live of the answers in seconds."),
        Column("authoritative", "bool", "The server answered for its own zone."),
        Column("truncated", "bool", "The server could not send all: the client should ask over TCP."),
        Column("edns_size", "u16", "Largest datagram that the client takes; null without EDNS."),
        Column("dnssec_ok", "bool", "The client asked for signatures; null without EDNS."),
        Column("extended_error", "u16", "Extended error of the response: 15 blocked, 22 no authority, ..."),
        Column("extended_error_name", "text", "Its name, or EDE and the number."),
        Column("extended_error_text", "text", "What the server says about it."),
        Column("latency_ns", "s64", "From the first query to the response.", "ns"),
        Column("attempts", "u32", "How often the query was sent; 0 when only the response was captured."),
        Column("search_id", "u64", "Same for the rows in which one name was tried with several suffixes."),
        Column("search_name", "text", "The name that was tried."),
        Column("query_bytes", "u32", "The first query.", "bytes"),
        Column("response_bytes", "u32", "The response.", "bytes"),
        Column("malformed", "bool", "Bytes of the query or the response do not fit, or too few are there."),
        Column("query_frame", "u64", "Packet that completed the first query."),
        Column("response_frame", "u64", "Packet that completed the response."),
        *END_COLUMNS,
    ),
    (
        FilterField("dns.id", ("id",), "Identifier."),
        FilterField("dns.flags.opcode", ("opcode",), "Operation."),
        FilterField("dns.flags.rcode", ("rcode",), "Response code."),
        FilterField("dns.flags.truncated", ("truncated",), "Whether the response was truncated."),
        FilterField("dns.flags.authoritative", ("authoritative",), "Whether the server has the zone."),
        FilterField("dns.qry.name", ("qname",), "Name asked for."),
        FilterField("dns.qry.type", ("qtype",), "Type asked for."),
        FilterField("dns.qry.class", ("qclass",), "Class asked for."),
        FilterField("dns.resp.ttl", ("ttl",), "Least time to live of the answers."),
        FilterField("dns.opt.ext_error.info_code", ("extended_error",), "Extended error."),
        FilterField("dns.opt.ext_error.extra_text", ("extended_error_text",), "Text of the extended error."),
        FilterField("dns.time", ("latency_ns",), "From query to response."),
        FilterField("dns.retransmit_request", ("attempts",), "How often the query was sent."),
        FilterField("dns.a", ("answers",), "Data of the answers, as IPv4 addresses."),
        FilterField("dns.aaaa", ("answers",), "Data of the answers, as IPv6 addresses."),
    ),
)

_OF_QUERY = ("ts", "frame", "bytes", "edns_size", "dnssec_ok", "short")
_OF_RESPONSE = (
    "ts", "frame", "bytes", "short", "rcode", "authoritative", "truncated", "ttl", "answers", "answer_types",
    "authority", "additional", "extended_error", "extended_error_text",
)  # fmt: skip


def _taken(
    messages: pl.DataFrame, rows: NDArray[np.int64], names: tuple[str, ...], prefix: str
) -> pl.DataFrame:
    """Columns of some messages, null where the row is -1."""
    index = pl.Series(rows, dtype=pl.Int64).replace(-1, None).cast(pl.UInt32)
    return messages.select(pl.col(names).gather(index).name.prefix(prefix))


def _with_questions(messages: pl.DataFrame) -> pl.DataFrame:
    """A response without a question, as some servers send on errors, answers the query before it. An inverse
    query has none; its response does (RFC 1035 section 6.4)."""
    bare = messages.filter(pl.col("qtype").is_null() & (pl.col("transport") != "mdns"))
    if bare.is_empty():
        return messages
    ends = ["party", "id"]
    known = {
        name: pl.when(pl.col("qtype").is_not_null()).then(name) for name in ("qname", "qtype", "name_hash")
    }
    filled = (
        pl.when("is_response")
        .then(value.forward_fill())
        .otherwise(value.backward_fill())
        .over(ends)
        .alias(name)
        for name, value in known.items()
    )
    concerned = messages.join(bare.select(ends).unique(), on=ends, how="semi").with_columns(filled)
    rest = messages.join(bare.select(ends), on=ends, how="anti")
    return pl.concat([rest, concerned]).sort("ts", "frame", maintain_order=True)


def _transactions(messages: pl.DataFrame, records: pl.DataFrame) -> pl.DataFrame:
    """Row numbers of queries and responses that belong together, and attempts."""
    multicast = (messages["transport"] == "mdns").to_numpy()
    unicast = np.flatnonzero(~multicast)
    keys = messages.select(
        pl.col("party", "id", "name_hash", "qtype").cast(pl.Int64).fill_null(-1)
    ).to_numpy()
    is_response = messages["is_response"].to_numpy()
    found = pair(keys[unicast], is_response[unicast])
    for column in (QUERY, RESPONSE):
        known = found[:, column] >= 0
        found[known, column] = unicast[found[known, column]]
    if multicast.any():
        found = np.concatenate([found, _multicast(messages, records)])
    return pl.DataFrame(
        {"query": found[:, QUERY], "response": found[:, RESPONSE], "attempts": found[:, ATTEMPTS]}
    )


def _multicast(messages: pl.DataFrame, records: pl.DataFrame) -> NDArray[np.int64]:
    """Each question with the first message that has a record of its name and type (RFC 6762 section 6)."""
    rows = messages.with_row_index("row").filter(transport="mdns")
    order = ("name_hash", "qtype", "ts")
    questions = rows.filter(~pl.col("is_response")).select("row", *order).sort("ts")
    answers = rows.filter("is_response").select("row", "ts", "message")
    told = answers.join(records, on="message").select("ts", "name_hash", "qtype", response="row")
    any_type = told.with_columns(qtype=pl.lit(255, pl.Int64))
    told = pl.concat([told, any_type]).unique(maintain_order=True).sort("ts", maintain_order=True)
    paired = questions.join_asof(
        told, on="ts", by=["name_hash", "qtype"], strategy="forward",
        tolerance=f"{MDNS_WAIT_NS}ns", check_sortedness=False,
    )  # fmt: skip
    alone = answers.filter(~pl.col("row").is_in(paired["response"].implode()))
    out = pl.concat(
        [
            paired.select(
                query=pl.col("row").cast(pl.Int64), response=pl.col("response").cast(pl.Int64), attempts=1
            ),
            alone.select(query=pl.lit(-1, pl.Int64), response=pl.col("row").cast(pl.Int64), attempts=0),
        ],
        how="vertical_relaxed",
    )
    numbers: NDArray[np.int64] = out.fill_null(-1).to_numpy()
    return numbers


def _outcome() -> pl.Expr:
    answered = pl.col("ts_response").is_not_null()
    waited = pl.col("last_ts") - pl.col("ts_query") >= TIMEOUT_NS
    return (
        pl.when(~answered & (waited | (pl.col("attempts") > 1)))
        .then(pl.lit("timeout"))
        .when(~answered)
        .then(pl.lit("unanswered"))
        .when(pl.col("truncated"))
        .then(pl.lit("truncated"))
        .when(pl.col("rcode") != 0)
        .then(pl.col("rcode_name").str.to_lowercase())
        .when(pl.col("answers").list.len() > 0)
        .then(pl.lit("answer"))
        .otherwise(pl.lit("nodata"))
    )


def _with_searches(rows: pl.DataFrame) -> pl.DataFrame:
    """Columns `search_id` and `search_name`, from names that failed and were tried on with another suffix."""
    failed = (rows["outcome"] != "answer").to_numpy()
    if not failed.any():
        return rows
    text = rows["qname"].cast(pl.Binary).fill_null(b"")
    payload = Payload.of(text)
    code = rows["client_ip"].cast(pl.Categorical).to_physical().fill_null(0).cast(pl.Int64).to_numpy()
    pid, qtype = (rows[name].fill_null(0).cast(pl.Int64).to_numpy() for name in ("pid", "qtype"))
    asker = (code << 38) + (pid << 16) + qtype  # a process id has at most 22 bits
    begin, end = (rows[name].to_physical().fill_null(-1).to_numpy() for name in ("ts_query", "ts_response"))
    asked = np.flatnonzero(begin >= 0)
    order = asked[np.lexsort((begin[asked], asker[asked]))]
    names = (payload.data, payload.bounds[:-1], np.diff(payload.bounds))
    chain, base = search_chains(order, asker, begin, end, failed, names)
    name = pl.select(pl.lit(text).bin.slice(0, pl.Series(base)).cast(pl.String, strict=False)).to_series()
    chained = pl.Series(chain >= 0)
    return rows.with_columns(
        search_id=pl.when(chained).then(pl.Series(chain)), search_name=pl.when(chained).then(name)
    )


def _rows(capture: PacketSource) -> pl.DataFrame:
    """Made once for a capture."""
    passes = getattr(capture, "passes", None) or Passes()
    if _MADE not in passes.parts:
        passes.parts[_MADE] = [_of(dns_frames.read(capture), over_tcp.sighted(capture, "dns"))]
    return passes.parts[_MADE][0]


def _of(found: dns_frames.Found, packets: PacketSource) -> pl.DataFrame:
    questions = _with_questions(found.questions)
    paired = _transactions(questions, found.records)
    query, response = paired["query"].to_numpy(), paired["response"].to_numpy()
    either = np.where(query >= 0, query, response)
    rows = questions.select("flow_id", "transport", "id", "opcode", "qname", "qtype", "qclass")[
        either
    ].hstack(
        [
            *_taken(questions, query, _OF_QUERY, "q_"),
            *_taken(questions, response, _OF_RESPONSE, ""),
            paired["attempts"],
        ]
    )
    rows = rows.with_columns(
        ts_query="q_ts",
        ts_response="ts",
        query_frame="q_frame",
        response_frame="frame",
        query_bytes="q_bytes",
        response_bytes="bytes",
        edns_size="q_edns_size",
        dnssec_ok="q_dnssec_ok",
        malformed=pl.any_horizontal("q_short", "short"),
        qtype_name=dns_frames.QTYPE,
        rcode_name=dns_frames.RCODE,
        extended_error_name=dns_frames.named(pl.col("extended_error"), EXTENDED_ERRORS, "EDE"),
        latency_ns=(pl.col("ts") - pl.col("q_ts")).dt.total_nanoseconds(),
        last_ts=pl.lit(questions["ts"].max(), pl.Datetime("ns", "UTC")),
    ).with_columns(outcome=_outcome())
    rows = rows.sort(pl.coalesce("ts_query", "ts_response"), maintain_order=True)
    return _with_searches(with_ends(rows, packets, "query_frame", "response_frame"))


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `dns` in order of time."""
    return deferred(frame_schema(TABLE), lambda: _rows(capture))


PROTOCOL = Protocol(
    "dns",
    "DNS over UDP and TCP, multicast DNS, LLMNR (RFC 1035, 7766, 6762, 4795)",
    "ports 53, 5353 and 5355, or a first message that is DNS to the last byte",
    TABLE,
    build,
)
PARSER = over_tcp.StreamParser(
    "dns",
    ("dns",),
    95,
    dns_sources.recognise,
    dns_frames.parse_streams,
    beside=dns_sources.DATAGRAMS,
    telling=dns_sources.SEGMENTS,
)
