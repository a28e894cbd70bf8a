"""Which packets have which fields of DNS: those that complete a message, as Wireshark shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols import dns, dns_frames
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, PacketFields, Table
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from stratokit.streams.source import PacketSource

_SHARED = (
    *("id", "opcode", "qname", "qtype", "qclass", "rcode", "authoritative", "truncated"),
    *("extended_error", "extended_error_text"),
)
_WORDS = {"dns": "DNS over UDP and TCP", "mdns": "multicast DNS", "llmnr": "LLMNR"}
_OF_RESPONSES = ("rcode", "authoritative", "extended_error", "extended_error_text")
_PLAIN_RCODE = 15  # the header's own four bits; EDNS adds eight (RFC 6891 section 6.1.3)

TABLE = Table(
    "dns",
    "a DNS message; multicast DNS and LLMNR have words of their own and the same fields",
    (
        Column("frame", "u64", "Packet that completed it."),
        *(Column(f"is_{name}", "bool", f"True for {title}, else null.") for name, title in _WORDS.items()),
        Column("is_response", "bool", "Whether it is a response."),
        *(column for column in dns.TABLE.columns if column.name in _SHARED),
        Column("addresses", "list<text>", "Data of the answers, and addresses in the other sections."),
        Column("answer_count", "u16", "Answer records, as the header says."),
    ),
    (
        *(FilterField(name, (f"is_{name}",), f"Messages of {title}.") for name, title in _WORDS.items()),
        FilterField("dns.flags.response", ("is_response",), "Whether the message is a response."),
        *(field for field in dns.TABLE.fields if set(field.columns) <= set(_SHARED)),
        FilterField("dns.a", ("addresses",), "IPv4 addresses in any section."),
        FilterField("dns.aaaa", ("addresses",), "IPv6 addresses in any section."),
        FilterField("dns.count.answers", ("answer_count",), "Answer records."),
    ),
)


# A record of another section than the answers is its name, type and data.
_ADDRESS = r" (?:A|AAAA) ([0-9a-f.:]+)$"


def _addresses() -> pl.Expr:
    others = pl.concat_list("authority", "additional").list.eval(pl.element().str.extract(_ADDRESS))
    return pl.concat_list("answers", others.list.drop_nulls())


def _messages(capture: PacketSource) -> pl.DataFrame:
    rows = dns_frames.read(capture).questions.with_columns(
        pl.col("rcode") & _PLAIN_RCODE,
        addresses=_addresses(),
        transport=pl.col("transport").replace({"udp": "dns", "tcp": "dns"}),
    )
    return rows.with_columns(
        *(
            pl.when(pl.col("transport") == name).then(pl.lit(value=True)).alias(f"is_{name}")
            for name in _WORDS
        ),
        *(pl.when("is_response").then(name).alias(name) for name in _OF_RESPONSES),
    )


def build(capture: PacketSource) -> pl.LazyFrame:
    """Questions of messages in order of time; a message with several has several rows."""
    return deferred(frame_schema(TABLE), lambda: _messages(capture))


PACKET_FIELDS = PacketFields(TABLE, build)
