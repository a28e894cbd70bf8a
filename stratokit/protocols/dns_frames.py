"""DNS messages of a capture as a frame: a row for each question of a message, in order of time."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.kernels import read_only
from stratokit.protocols import dns_messages as dm
from stratokit.protocols import over_tcp
from stratokit.protocols.base import Passes
from stratokit.protocols.dns_names import QTYPES, RCODES
from stratokit.protocols.dns_sources import Messages, datagrams, of_streams, transport
from stratokit.protocols.text import arrow_texts, text_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stratokit.streams.byte_runs import ByteRuns
    from stratokit.streams.source import PacketSource

LOSSES = ("dns_unreadable", "dns_question_left_out", "dns_record_left_out")  # in the order of dm's counts
_READ = "dns, messages"  # beside what protocols over TCP found
_DNSSEC_OK = 0x8000  # RFC 3225 section 3
# So many messages are read at a time: what that takes is small, and used again.
_AT_ONCE = 1 << 16
_NARROW: Any = {
    "id": pl.UInt16, "opcode": pl.UInt8, "rcode": pl.UInt16, "qclass": pl.UInt16,
    "ttl": pl.UInt32, "bytes": pl.UInt32, "edns_size": pl.UInt16, "extended_error": pl.UInt16,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """Questions in order of time, and records of multicast answers."""

    questions: pl.DataFrame
    records: pl.DataFrame


def named(number: pl.Expr, names: dict[int, str], prefix: str) -> pl.Expr:
    """Mnemonic of a number; RFC 3597 section 5 for a type that has none."""
    return number.replace_strict(names, default=pl.format(prefix + "{}", number), return_dtype=pl.String)


def _type_names(kinds: NDArray[np.int64]) -> pa.Array:
    """Names of record types; each distinct one is made once."""
    size = np.zeros(int(kinds.max(initial=0)) + 1, np.int64)
    start, names = size.copy(), b""
    for kind in np.flatnonzero(np.bincount(kinds)).tolist():
        name = QTYPES.get(kind, f"TYPE{kind}").encode()
        start[kind], size[kind] = len(names), len(name)
        names += name
    return arrow_texts(np.frombuffer(names, np.uint8), start[kinds], size[kinds])


def _lists(texts: pa.Array, chosen: NDArray[np.bool_], first: NDArray[np.int64]) -> pl.Series:
    """The texts of chosen records by question; first[k] is the first record of question k."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(chosen)])
    lists = pa.LargeListArray.from_arrays(before[first], texts)
    return pl.Series(lists, dtype=pl.List(pl.String))


def parse(source: Messages, number: int) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Questions and their records; messages are counted from `number`."""
    flow = source.packets["flow_id"].cast(pl.Int64).to_numpy()
    verdict = np.zeros(int(flow.max(initial=-1)) + 1, np.uint8)
    multicast = (source.packets["transport"] == "mdns").to_numpy()
    frames, owners, losses = [], [], Counter[str](dns_skipped_bytes=source.skipped_bytes)
    for first in range(0, max(flow.size, 1), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        # Of datagrams and of streams alike, so that nothing is compiled twice.
        spans = read_only(source.starts[part], np.int64), read_only(source.ends[part], np.int64)
        about = read_only(flow[part], np.int64), verdict, read_only(source.known[part], np.bool_)
        found = dm.read_messages(
            read_only(source.data, np.uint8), *spans, *about, read_only(multicast[part], np.bool_)
        )
        frame, owned = _frames(source, first, number, found)
        frames.append(frame)
        owners.append(owned)
        losses.update(dict(zip(LOSSES, map(int, found[4]), strict=True)))
    questions = pl.concat(frames, rechunk=True) if len(frames) > 1 else frames[0]
    return questions, pl.concat(owners), dict(losses)


def _frames(source: Messages, begin: int, number: int, found: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Questions and records of multicast answers, from what the kernel found in messages from `begin` on."""
    rows, names, records, texts, _ = found
    first = np.append(rows[:, dm.RECORDS], len(records))
    ends = records[:, dm.TEXT_END]
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    section, kinds = records[:, dm.SECTION], records[:, dm.KIND]
    columns = {}
    for k, name in enumerate(("answers", "authority", "additional")):
        chosen = section == k
        columns[name] = _lists(
            arrow_texts(texts, starts[chosen], ends[chosen] - starts[chosen]), chosen, first
        )
    answered = section == 0
    columns["answer_types"] = _lists(_type_names(kinds[answered]), answered, first)
    message = rows[:, dm.MESSAGE] + begin
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
            "answer_count": rows[:, dm.ANSWERS],
            **columns,
        }
    )
    missing = ("edns_size", "dnssec_ok", "extended_error", "qtype", "qclass", "ttl", "answer_count")
    frame = frame.with_columns(pl.when(pl.col(name) >= 0).then(name).alias(name) for name in missing)
    frame = frame.with_columns(pl.col("dnssec_ok") & _DNSSEC_OK != 0).cast(_NARROW)
    # The upper bit of multicast asks for an answer to the asker alone (RFC 6762 section 5.4).
    qclass = pl.when(transport="mdns").then(pl.col("qclass") & 0x7FFF).otherwise("qclass")
    frame = frame.hstack(source.packets[message]).with_columns(qclass=qclass)
    return frame, _owners(rows, records, first, number + begin)


def _owners(
    rows: NDArray[np.int64], records: NDArray[np.int64], first: NDArray[np.int64], number: int
) -> pl.DataFrame:
    """Name and type of every answer record to multicast questions."""
    if not records[:, dm.OWNER_HASH].any():
        rows, records, first = rows[:0], records[:0], first[:1]
    row = np.repeat(np.arange(len(rows)), np.diff(first))
    answers = records[:, dm.SECTION] == 0
    return pl.DataFrame(
        {
            "message": rows[row[answers], dm.MESSAGE] + number,
            "name_hash": records[answers, dm.OWNER_HASH],
            "qtype": records[answers, dm.KIND],
        }
    )


def parse_streams(runs: ByteRuns, asks: NDArray[np.int64]) -> over_tcp.Parsed:  # noqa: ARG001
    """Questions of messages over TCP; `message_frame` makes their packets known to the pass."""
    frame, _, losses = parse(of_streams(runs), 0)
    return over_tcp.Parsed({"dns": frame.with_columns(message_frame="frame")}, losses)


def read(capture: PacketSource) -> Found:
    """All DNS messages of a capture. What was left out is counted once for a capture."""
    passes = getattr(capture, "passes", None) or Passes()
    if _READ not in passes.parts:
        frames, packets = over_tcp.messages(capture, "dns"), over_tcp.beside(capture, "dns")
        # polars may ask in two threads at once: what the other one has read is there before the packets go.
        if packets is not None:
            found, losses = _read(capture, frames, packets)
            if _READ not in passes.parts:
                passes.parts[_READ] = [found.questions, found.records]
                if _READ not in passes.counted:
                    passes.counters.update(losses)
                    passes.counted.add(_READ)
                # Their bytes were read: nobody looks at them again.
                passes.beside.pop("dns", None)
    return Found(*passes.parts[_READ])


def _read(
    capture: PacketSource, frames: list[pl.DataFrame], packets: pl.DataFrame
) -> tuple[Found, dict[str, int]]:
    frame, records, losses = parse(datagrams(packets), 0)
    frames = [frame, *_over_tcp(frames, capture, packets.height)]
    questions = pl.concat(frames)
    if len(frames) > 1 or not questions["ts"].is_sorted():
        questions = questions.sort("ts", "frame", maintain_order=True)
    return Found(questions, records), losses


def _over_tcp(frames: list[pl.DataFrame], capture: PacketSource, number: int) -> Iterator[pl.DataFrame]:
    """Questions of streams, messages counted from `number`; LLMNR is known by the ports of its packets."""
    if not frames:
        return
    ends = over_tcp.sighted(capture, "dns").rows("packet").select("frame", "src_port", "dst_port")
    named = pl.concat(frame.select("frame") for frame in frames).unique().lazy()
    ends = ends.join(named, on="frame", how="semi").unique("frame").with_columns(transport("tcp"))
    known = ends.select("frame", "transport").collect()
    for frame in frames:
        found = frame.drop("transport", "message_frame").join(
            known, on="frame", how="left", maintain_order="left"
        )
        yield found.select(name for name in frame.columns if name != "message_frame").with_columns(
            pl.col("message") + number
        )
        number += int(frame["message"].max() or 0) + 1  # type: ignore[arg-type]


RCODE = named(pl.col("rcode"), RCODES, "RCODE")
QTYPE = named(pl.col("qtype"), QTYPES, "TYPE")
