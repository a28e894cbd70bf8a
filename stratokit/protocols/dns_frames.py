"""DNS messages of a capture as a frame: a row for each question of a message, in order of time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.protocols import dns_messages as dm
from stratokit.protocols.dns_names import QTYPES, RCODES
from stratokit.protocols.dns_sources import LLMNR_PORT, Messages, messages
from stratokit.protocols.text import text_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.source import PacketSource

LOSSES = ("dns_unreadable", "dns_question_left_out", "dns_record_left_out")  # in the order of dm's counts
_DNSSEC_OK = 0x8000  # RFC 3225 section 3


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """Questions in order of time, records of multicast answers, packets of both, and what was left out."""

    questions: pl.DataFrame
    records: pl.DataFrame
    packets: pl.DataFrame
    losses: dict[str, int]


def named(number: pl.Expr, names: dict[int, str], prefix: str) -> pl.Expr:
    """Mnemonic of a number; RFC 3597 section 5 for a type that has none."""
    return number.replace_strict(names, default=pl.format(prefix + "{}", number), return_dtype=pl.String)


def _lists(texts: pl.Series, chosen: NDArray[np.bool_], first: NDArray[np.int64]) -> pl.Series:
    """The texts of chosen records by question; first[k] is the first record of question k."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(chosen)])
    lists = pa.LargeListArray.from_arrays(before[first], texts.to_arrow())
    return pl.Series(lists, dtype=pl.List(pl.String))


def parse(source: Messages, number: int) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Questions and their records; messages are counted from `number`."""
    flow = source.packets["flow_id"].cast(pl.Int64).to_numpy()
    flows = int(flow.max(initial=-1)) + 1
    found = dm.read_messages(source.data, source.starts, source.ends, flow, flows, source.known)
    rows, names, records, texts, counts = found
    first = np.append(rows[:, dm.RECORDS], len(records))
    ends = records[:, dm.TEXT_END]
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    section, kinds = records[:, dm.SECTION], pl.Series("kind", records[:, dm.KIND])
    columns = {}
    for k, name in enumerate(("answers", "authority", "additional")):
        chosen = section == k
        columns[name] = _lists(
            text_column(texts, starts[chosen], ends[chosen] - starts[chosen]), chosen, first
        )
    answered = section == 0
    types = pl.select(named(pl.lit(kinds.filter(pl.Series(answered))), QTYPES, "TYPE")).to_series()
    columns["answer_types"] = _lists(types, answered, first)
    message = rows[:, dm.MESSAGE]
    flags = pl.Series(rows[:, dm.FLAGS])
    short, cut = rows[:, dm.SHORT] == 1, source.cut[message]
    size = source.ends - source.starts
    frame = pl.DataFrame(
        {
            "message": message + number,
            "id": rows[:, dm.ID],
            "opcode": (flags // 2048) & 15,
            "is_response": (flags & dm.IS_RESPONSE) != 0,
            "authoritative": (flags & dm.AUTHORITATIVE) != 0,
            "truncated": (flags & dm.TRUNCATED) != 0,
            "rcode": rows[:, dm.RCODE],
            "qname": text_column(names, rows[:, dm.NAME], rows[:, dm.NAME_SIZE]),
            "name_hash": rows[:, dm.NAME_HASH],
            "short": short & ~cut,
            "cut": cut,
            "bytes": size[message],
            "edns_size": rows[:, dm.EDNS_SIZE],
            "dnssec_ok": rows[:, dm.EDNS_FLAGS],
            "extended_error": rows[:, dm.EDE],
            "extended_error_text": text_column(source.data, rows[:, dm.EDE_TEXT], rows[:, dm.EDE_TEXT_SIZE]),
            "qtype": rows[:, dm.QTYPE],
            "qclass": rows[:, dm.QCLASS],
            "ttl": rows[:, dm.TTL],
            **columns,
        }
    )
    missing = ("edns_size", "dnssec_ok", "extended_error", "qtype", "qclass", "ttl")
    frame = frame.with_columns(pl.when(pl.col(name) >= 0).then(name).alias(name) for name in missing)
    frame = frame.with_columns(pl.col("dnssec_ok") & _DNSSEC_OK != 0)
    seen = source.packets.select("frame", "ts", "flow_id", "transport", party=_party())[message]
    frame = frame.hstack(seen)
    owners = _owners(rows, records, first, number) if (frame["transport"] == "mdns").any() else pl.DataFrame()
    losses = dict(zip(LOSSES, map(int, counts), strict=True))
    return frame, owners, losses | {"dns_skipped_bytes": source.skipped_bytes}


def _party() -> pl.Expr:
    """What a query and its response have in common: the conversation, or, as the address that was asked is no
    responder's own, the end that asked (RFC 4795 section 2.1)."""
    asks = pl.col("dst_port") == LLMNR_PORT
    address = (
        pl.when(asks).then("src_ip").otherwise("dst_ip").cast(pl.Categorical).to_physical().cast(pl.Int64)
    )
    port = pl.when(asks).then("src_port").otherwise("dst_port").cast(pl.Int64)
    is_llmnr = pl.col("transport") == "llmnr"
    return pl.when(is_llmnr).then(-1 - (address * 65536 + port)).otherwise(pl.col("flow_id").cast(pl.Int64))


def _owners(
    rows: NDArray[np.int64], records: NDArray[np.int64], first: NDArray[np.int64], number: int
) -> pl.DataFrame:
    """Name and type of every answer record."""
    row = np.repeat(np.arange(len(rows)), np.diff(first))
    answers = records[:, dm.SECTION] == 0
    return pl.DataFrame(
        {
            "message": rows[row[answers], dm.MESSAGE] + number,
            "name_hash": records[answers, dm.OWNER_HASH],
            "qtype": records[answers, dm.KIND],
        }
    )


def read(capture: PacketSource) -> Found:
    """All DNS messages of a capture."""
    frames, owners, packets = [], [], []
    losses: dict[str, int] = {}
    number = 0
    for source in messages(capture):
        frame, records, lost = parse(source, number)
        number += len(source.starts)
        frames.append(frame)
        if records.width:
            owners.append(records)
        packets.append(source.seen)
        losses = {name: losses.get(name, 0) + count for name, count in lost.items()}
    questions = pl.concat(frames)
    if len(frames) > 1 or not questions["ts"].is_sorted():
        questions = questions.sort("ts", "frame", maintain_order=True)
    schema = {"message": pl.Int64, "name_hash": pl.Int64, "qtype": pl.Int64}
    records = pl.concat(owners) if owners else pl.DataFrame(schema=schema)
    return Found(questions, records, pl.concat(packets), losses)


RCODE = named(pl.col("rcode"), RCODES, "RCODE")
QTYPE = named(pl.col("qtype"), QTYPES, "TYPE")
