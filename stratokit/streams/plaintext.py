"""Plaintext of TLS that a recorder took from programs, as packets that parsers of protocols read.

A piece counts from the packet that completed its ciphertext, like what a key log opens: TCP's sequence
number behind it was recorded with the piece. Where that packet is not in the capture it counts from the call,
and has a number that no packet has (`UNSEEN_FRAME`). Both ends of a local conversation are two views of it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import polars as pl
import polars.selectors as cs

from stratokit.streams.flows import FIN, SYN, TCP
from stratokit.streams.sides import SIDE_COLUMNS, with_sides
from stratokit.streams.source import with_room

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from stratokit.streams.source import PacketSource

UNSEEN_FRAME = 1 << 62
_ACK, _PUSH_ACK = 16, 24
# Ends of a conversation of which no address is known: only told apart.
_HERE, _THERE = "here", "there"
_OWNER = ("pid", "tid", "comm", "process_start", "cgroup", "container_id", "pod", "namespace")
_STREAM = ("socket_cookie", "direction")
_SESSION = ("pid", "tls_session")
_ADDRESSES = ("src_ip", "src_port", "dst_ip", "dst_port")
_PACKETS = tuple(
    dict.fromkeys((*SIDE_COLUMNS, "socket_cookie", "frame", "ts", "tcp_seq", "payload_len", *_OWNER))
)


class PlaintextSource:
    """Rows of packets that carry plaintext; `flow_id` numbers sessions, `flows` says of which conversation.

    Args:
        capture: with rows of kind `plaintext` and `packet`.
        without: conversations that were opened already.
    """

    is_mapped = False

    def __init__(self, capture: PacketSource, without: AbstractSet[int] = frozenset()) -> None:
        self._capture = capture
        self._without = without

    def rows(self, kind: str) -> pl.LazyFrame:
        """See PacketSource."""
        return self._sessions.lazy() if kind == "packet" else self._capture.rows(kind)

    @property
    def flows(self) -> pl.Series:
        """The conversation of each session, by its number here."""
        return (
            self._sessions.group_by("flow_id")
            .agg(pl.col("conversation").first())
            .sort("flow_id")["conversation"]
        )

    def seen(self, pieces: pl.DataFrame) -> pl.DataFrame:
        """The packets of these conversations, and pieces of plaintext that no packet is known for."""
        known = {end: ~pl.col(end).is_in([_HERE, _THERE]) for end in ("src_ip", "dst_ip")}
        pieces = pieces.with_columns(
            pl.when(is_known).then(end).alias(end) for end, is_known in known.items()
        )
        return pl.concat([self.packets, _texts(pieces)], how="diagonal_relaxed")

    @functools.cached_property
    def packets(self) -> pl.DataFrame:
        """The packets of these conversations, at both ends, without their bytes."""
        cookies = self._plain.select("socket_cookie").drop_nulls().unique()
        rows = self._capture.rows("packet")
        ours = (
            rows.filter(pl.col("ip_proto") == TCP, pl.col("flow_id").is_not_null())
            .join(cookies.lazy(), on="socket_cookie", how="semi")
            .select("flow_id")
            .unique()
            .collect()
        )
        found = rows.select(_PACKETS).join(ours.lazy(), on="flow_id", how="semi").collect()
        return _texts(found).sort("ts", "frame")

    @functools.cached_property
    def _plain(self) -> pl.DataFrame:
        rows = self._capture.rows("plaintext").filter(pl.col("cap_len") > 0)
        return _texts(rows.collect()).sort("ts", maintain_order=True)

    @functools.cached_property
    def _sessions(self) -> pl.DataFrame:
        rows = self._located(self._plain)
        rows = rows.filter(~pl.col("conversation").is_in(list(self._without)))
        # Of several sessions on one socket, one after the other or within each other, each is a stream.
        nth = pl.col("tls_session").rank("dense").over("socket", "conversation")
        rows = rows.with_columns(
            nth=pl.when(pl.col("socket_cookie").is_null()).then("tls_session").otherwise(nth)
        )
        rows = rows.with_columns(flow_id=(pl.struct("conversation", "nth").rank("dense") - 1).cast(pl.UInt64))
        return with_room(self._as_segments(rows)).select(
            "conversation", "frame", "ts", "flow_id", "tcp_seq", "tcp_flags", "payload_len", "payload_offset",
            "ip_proto", "icmp_type", "direction", "data", "datagram", "tcp_ack", "orig_len", "cap_len",
            *_ADDRESSES, *_OWNER,
        )  # fmt: skip

    def _located(self, plain: pl.DataFrame) -> pl.DataFrame:
        """`conversation`, addresses, and the packet that completed each piece with its time."""
        unseen = pl.int_range(pl.len(), dtype=pl.UInt64) + UNSEEN_FRAME
        called = pl.when(pl.col("direction") == "out").then("ts").otherwise(
            pl.col("ts") + pl.duration(nanoseconds="duration_ns")
        )  # fmt: skip
        plain = plain.with_columns(
            unseen=unseen,
            called=called,
            # Without a socket a session stands alone.
            socket=pl.coalesce("socket_cookie", "tls_session"),
        )
        carried = self.packets.filter(
            pl.col("socket_cookie").is_not_null(), pl.col("direction").is_not_null()
        )
        which = carried.group_by("socket_cookie", "flow_id").agg(pl.col("ts").min()).sort("ts")
        plain = plain.sort("called", maintain_order=True).join_asof(
            which.rename({"ts": "met", "flow_id": "conversation"}),
            left_on="called", right_on="met", by="socket_cookie", check_sortedness=False,
        )  # fmt: skip
        first = carried.filter(pl.col("src_ip").is_not_null()).group_by(_STREAM).agg(
            pl.col(name).first().alias(f"known_{name}") for name in _ADDRESSES
        )  # fmt: skip
        plain = plain.join(first, on=_STREAM, how="left", maintain_order="left").with_columns(
            pl.coalesce(name, f"known_{name}").alias(name) for name in _ADDRESSES
        )
        plain = plain.with_columns(conversation=self._numbered(plain))
        out, unknown = (
            pl.col("direction") == "out",
            pl.col("src_port").is_null() | pl.col("dst_port").is_null(),
        )
        ends = {"src": (_HERE, _THERE), "dst": (_THERE, _HERE)}
        plain = plain.with_columns(
            pl.when(unknown)
            .then(pl.when(out).then(pl.lit(ours)).otherwise(pl.lit(theirs)))
            .otherwise(f"{end}_ip")
            .alias(f"{end}_ip")
            for end, (ours, theirs) in ends.items()
        )
        if getattr(self._capture, "has_sequence_numbers", True):
            plain = _completed(plain, carried)
        else:
            plain = plain.with_columns(
                frame=pl.lit(None, pl.UInt64), arrived=pl.lit(None, plain.schema["ts"])
            )
        return (
            plain.with_columns(frame=pl.coalesce("frame", "unseen"), ts=pl.coalesce("arrived", "called"))
            .sort("called", maintain_order=True)
            .sort("ts", maintain_order=True)
        )

    def _numbered(self, plain: pl.DataFrame) -> pl.Series:
        """Conversations of which there are no packets get numbers behind the others, one for each pair."""
        above = self._capture.rows("packet").select(pl.col("flow_id").max()).collect().item()
        ends = [pl.format("{}|{}", pl.col(f"{end}_ip"), pl.col(f"{end}_port")) for end in ("src", "dst")]
        pair = pl.concat_str(pl.min_horizontal(ends), pl.max_horizontal(ends), separator=" ")
        alone = pl.when(pl.col("conversation").is_null())
        key = alone.then(pl.coalesce(pair, pl.format("socket {}", "socket")))
        number = (key.rank("dense").cast(pl.Int64) + (-1 if above is None else above)).cast(pl.UInt64)
        return plain.select(pl.coalesce("conversation", number)).to_series()

    def _as_segments(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Positions in sessions as sequence numbers, with SYN and FIN where beginning and end are known."""
        rows = rows.with_columns(
            ip_proto=pl.lit(TCP, pl.UInt8),
            icmp_type=pl.lit(None, pl.UInt8),
            tcp_flags=pl.lit(_PUSH_ACK, pl.UInt16),
            payload_len="orig_len",
            payload_offset=pl.lit(0, pl.UInt32),
            datagram=pl.lit(None, pl.Binary),
            tcp_ack=pl.lit(None, pl.UInt32),
        )
        rows = rows.drop("from_client", strict=False)
        rows = rows.join(_clients(self.packets), on="conversation", how="left", maintain_order="left")
        guessed = with_sides(rows)["from_client"]
        asked = (pl.col("src_ip") == pl.col("client_ip")) & (pl.col("src_port") == pl.col("client_port"))
        from_client = pl.when(pl.col("client_port").is_null()).then(guessed).otherwise(asked)
        stream = ("flow_id", "socket", "direction")
        began = pl.col("tls_began") & (pl.col("tls_position") == 0)
        end = pl.col("tls_position") + pl.col("orig_len")
        last = (end == end.max().over(stream)) & pl.col("ended").fill_null(value=False)
        rows = rows.join(_ended(self.packets), on=_STREAM, how="left", maintain_order="left")
        return rows.with_columns(
            tcp_seq=pl.when(began)
            .then(0)
            .otherwise((pl.col("tls_position") + 1) & 0xFFFFFFFF)
            .cast(pl.UInt32),
            tcp_flags=(
                pl.col("tcp_flags")
                | pl.when(began & from_client).then(SYN).when(began).then(SYN | _ACK).otherwise(0)
                | pl.when(last).then(FIN).otherwise(0)
            )
            # A SYN of the client says who that is, and has no ACK.
            .xor(pl.when(began & from_client).then(_ACK).otherwise(0))
            .cast(pl.UInt16),
        )


def _texts(rows: pl.DataFrame) -> pl.DataFrame:
    """Names as text: rows of two kinds may have them as categories of their own."""
    return rows.with_columns(cs.categorical().cast(pl.String))


def _unwrapped(column: str, base: pl.Expr, over: tuple[str, ...]) -> pl.Expr:
    """Sequence numbers in order of time as places from `base` on, wherever 32 bits are full."""
    seq = pl.col(column).cast(pl.Int64)
    step = seq - seq.shift().over(over).fill_null(base)
    return (((step + (1 << 31)) % (1 << 32)) - (1 << 31)).cum_sum().over(over)


def _completed(plain: pl.DataFrame, packets: pl.DataFrame) -> pl.DataFrame:
    """`plain` with `frame` and `arrived` of the packet with which all ciphertext up to a piece had passed."""
    carrying = packets.filter(pl.col("payload_len") > 0)
    base = carrying.group_by(_STREAM).agg(base=pl.col("tcp_seq").first().cast(pl.Int64))
    carrying = carrying.join(base, on=_STREAM, maintain_order="left").with_row_index("order")
    places = (
        carrying.with_columns(place=_unwrapped("tcp_seq", pl.col("base"), _STREAM))
        .sort("place", "order", maintain_order=True)
        .unique([*_STREAM, "place"], keep="first", maintain_order=True)
        # What came out of order could be read when the last one before it was there.
        .with_columns(ready=pl.col("order").cum_max().over(_STREAM))
        .select(*_STREAM, "place", "ready")
    )
    arrived = carrying.select(ready="order", frame="frame", arrived="ts")
    places = places.join(arrived, on="ready", how="left").sort("place", maintain_order=True)
    rows = plain.with_row_index("row").join(base, on=_STREAM, how="left", maintain_order="left")
    known = rows.filter(pl.col("base").is_not_null(), pl.col("cipher_next_seq").is_not_null())
    known = known.with_columns(place=_unwrapped("cipher_next_seq", pl.col("base"), _STREAM) - 1)
    found = known.sort("place").join_asof(
        places, on="place", by=list(_STREAM), strategy="backward", check_sortedness=False
    )
    found = found.select("row", "frame", "arrived")
    return rows.join(found, on="row", how="left", maintain_order="left").drop("row", "base")


def _clients(packets: pl.DataFrame) -> pl.DataFrame:
    """Of each conversation the address that began it."""
    if packets.is_empty():
        sides = packets.with_columns(from_client=pl.lit(value=True))
    else:
        sides = with_sides(packets)
    sent = pl.when("from_client")
    return sides.group_by(conversation="flow_id").agg(
        client_ip=sent.then("src_ip").otherwise("dst_ip").first(),
        client_port=sent.then("src_port").otherwise("dst_port").first(),
    )


def _ended(packets: pl.DataFrame) -> pl.DataFrame:
    """Streams in which a FIN was seen."""
    fins = packets.filter(pl.col("tcp_flags") & FIN != 0, pl.col("socket_cookie").is_not_null())
    return fins.select(*_STREAM, ended=pl.lit(value=True)).unique()
