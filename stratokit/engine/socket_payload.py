"""What system calls sent and received over sockets, as the packets that parsers of protocols read.

For captures without packets, as those from scap files: every call that moved bytes is one packet from the
caller's end, with the bytes that were recorded and the length that was moved, so parsers see what is missing.
Both ends of a local conversation are two views of the same stream. A datagram of a socket without a peer
names the other end alone: what was sent and received with the same bytes is one, whose ends both calls tell
together. Nothing is known of segments, so tables of packets, conversations and TCP stay empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.frames import conform
from stratokit.engine.scap.events_out import with_ends
from stratokit.protocols.base import Passes
from stratokit.schema import load
from stratokit.streams.source import with_room

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_SENDS = ("write", "writev", "sendto", "sendmsg", "sendmmsg")
_RECEIVES = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg")
_TCP, _UDP, _DNS = 6, 17, 53
_PUSH_ACK = 24
_NAMES = (
    "ts", "duration_ns", "pid", "tid", "comm", "process_start", "container_id", "pod", "namespace", "cgroup",
    "syscall", "ret", "fd", "fd_name", "socket_cookie", "ip_proto", "src_ip", "src_port", "dst_ip",
    "dst_port", "data",
)  # fmt: skip


def stands_in(capture: Capture) -> bool:
    """Whether the capture has system calls and no packets."""
    if capture.packet_file is not None:  # that its packets are counted first would take a walk through it
        return False
    return any(f.rows.get("syscall") for f in capture.files) and not any(
        f.rows.get("packet") for f in capture.files
    )


class SocketPayload:
    """Rows of a capture, with calls for packets."""

    has_sequence_numbers = False  # those of TCP are not known

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._packets: pl.LazyFrame | None = None
        self.has_plaintext = capture.has_plaintext
        self.passes = Passes()  # remembers by whom messages were seen that no call tells

    def rows(self, kind: str) -> pl.LazyFrame:
        """See `streams.source.PacketSource`."""
        if kind != "packet":
            return self._capture.rows(kind)
        if self._packets is None:
            self._packets = conform(self._moved().lazy(), load.capture().of_kind("packet"))
        return self._packets

    def _moved(self) -> pl.DataFrame:
        """One row a call, in the order in which the bytes were sent or had arrived."""
        calls = self._capture.rows("syscall").filter(
            pl.col("fd_kind") == "socket", pl.col("ret") > 0, pl.col("syscall").is_in((*_SENDS, *_RECEIVES))
        )
        known = with_ends(calls.select(_NAMES).collect()).filter(
            pl.col("dst_port") > 0, pl.col("dst_ip").is_not_null()
        )
        sent = pl.col("syscall").is_in(_SENDS)
        moved = known.with_columns(
            self._protocol(known),
            ts=pl.when(sent).then("ts").otherwise(pl.col("ts") + pl.duration(nanoseconds="duration_ns")),
            direction=pl.when(sent).then(pl.lit("out")).otherwise(pl.lit("in")),
            data=pl.col("data").fill_null(b""),
            # Calls for several messages return how many: of these only the first was recorded.
            payload_len=pl.when(pl.col("syscall").str.ends_with("mmsg"))
            .then(pl.col("data").bin.size().fill_null(0))
            .otherwise("ret")
            .cast(pl.UInt32),
            socket=pl.when(pl.col("src_port").fill_null(0) == 0).then(pl.format("{} {}", "pid", "fd")),
            **{
                f"{a}_{name}": pl.when(sent).then(f"{a}_{name}").otherwise(f"{b}_{name}")
                for a, b in (("src", "dst"), ("dst", "src"))
                for name in ("ip", "port")
            },
        ).sort("ts", maintain_order=True)
        moved = _paired(moved.with_columns(frame=pl.int_range(1, pl.len() + 1).cast(pl.UInt64)))
        stream = ("direction", "src_ip", "src_port", "dst_ip", "dst_port", "ip_proto", "socket")
        before = pl.col("payload_len").cast(pl.UInt64).cum_sum().over(stream) - pl.col("payload_len")
        segments = moved.with_columns(
            _conversation(),
            tcp_seq=(before & 0xFFFFFFFF).cast(pl.UInt32),
            tcp_flags=pl.lit(_PUSH_ACK, pl.UInt16),
            payload_offset=pl.lit(0, pl.UInt32),
            cap_len=pl.col("data").bin.size().cast(pl.UInt32),
            orig_len="payload_len",
        ).drop("syscall", "ret", "fd", "fd_name", "duration_ns", "socket")
        return with_room(segments)

    def _protocol(self, known: pl.DataFrame) -> pl.Series:
        """TCP or UDP: as the row says, or the socket of that cookie; by its port where neither says."""
        sockets = self._capture.rows("socket").select("socket_cookie", proto="ip_proto").drop_nulls()
        cookies = known.select("socket_cookie").join(
            sockets.unique("socket_cookie").collect(), on="socket_cookie", how="left", maintain_order="left"
        )
        named = pl.any_horizontal(pl.col("src_port", "dst_port") == _DNS)
        guess = pl.when(named).then(_UDP).otherwise(_TCP).cast(pl.UInt8)
        return known.with_columns(cookies["proto"]).select(ip_proto=pl.coalesce("ip_proto", "proto", guess))[
            "ip_proto"
        ]


def _paired(moved: pl.DataFrame) -> pl.DataFrame:
    """Datagrams that were sent and received here: one frame number, and the ends that either call knows."""
    ends = ["src_ip", "src_port", "dst_ip", "dst_port"]
    datagrams = (
        moved.filter(pl.col("ip_proto") == _UDP, pl.col("data").bin.size() > 0)
        .select("frame", "direction", "data", "payload_len", *ends)
        .with_columns(nth=pl.int_range(pl.len()).over("direction", "data", "payload_len"))
    )
    out, in_ = (datagrams.filter(pl.col("direction") == way).drop("direction") for way in ("out", "in"))
    both = out.join(in_, on=["data", "payload_len", "nth"], suffix="_in").filter(
        pl.col("frame") < pl.col("frame_in"),
        # As far as both know them, they are the same.
        *(
            (pl.col(f"{end}_port").fill_null(0) == 0)
            | (pl.col(f"{end}_port_in").fill_null(0) == 0)
            | (
                (pl.col(f"{end}_port") == pl.col(f"{end}_port_in"))
                & (pl.col(f"{end}_ip") == pl.col(f"{end}_ip_in"))
            )
            for end in ("src", "dst")
        ),
    )
    if both.is_empty():
        return moved
    known = both.select(
        "frame",
        "frame_in",
        *(
            pl.when(pl.col(f"{end}_port").fill_null(0) > 0)
            .then(f"{end}_{name}")
            .otherwise(f"{end}_{name}_in")
            .alias(f"{end}_{name}_known")
            for end in ("src", "dst")
            for name in ("ip", "port")
        ),
    )
    received = known.drop("frame").rename({"frame_in": "frame"})
    received = received.with_columns(frame_known=known["frame"])
    sent = known.drop("frame_in").with_columns(frame_known=pl.col("frame"))
    found = moved.join(pl.concat([sent, received.select(sent.columns)]), on="frame", how="left")
    paired = pl.col("frame_known").is_not_null()
    return found.with_columns(
        *(pl.coalesce(f"{name}_known", name).alias(name) for name in ("frame", *ends)),
        socket=pl.when(~paired | (pl.col("src_port_known") == 0) | (pl.col("dst_port_known") == 0)).then(
            "socket"
        ),
    ).drop(f"{name}_known" for name in ("frame", *ends))


def _conversation() -> pl.Expr:
    """A number for each pair of ends, whoever sends; where the local one is unknown, for each descriptor."""
    ends = [
        pl.format("{}|{}", pl.col(f"{end}_ip").fill_null(""), pl.col(f"{end}_port").fill_null(0))
        for end in ("src", "dst")
    ]
    several = pl.min_horizontal(ends), pl.max_horizontal(ends), "ip_proto", pl.col("socket").fill_null("")
    pair = pl.concat_str(several, separator=" ")
    return (pair.rank("dense") - 1).cast(pl.UInt64).alias("flow_id")
