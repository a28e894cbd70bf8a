"""Large packets that vanish on the way while small ones come through: an MTU that nobody tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, address, counted, endpoint, finding

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LARGE_BYTES, _TIMES = 1000, 3
_ACK = 16


def find(capture: Capture) -> pl.LazyFrame:
    """A segment of 1000 bytes or more was sent 3 times in vain, by a sender whose small ones had arrived.

    That the other side is alive is told by packets that came from it later, in this connection or another.
    """
    repeated = capture.table("tcp").filter(pl.col("retransmissions") >= _TIMES - 1).select("flow_id")
    packets = capture.whole.table("packets").filter(
        pl.col("tcp_seq").is_not_null(), pl.col("flow_id").is_not_null()
    )
    # At the sender's socket, or on a wire: what arrived elsewhere does not count as sent again.
    sent = packets.filter(pl.col("direction").ne_missing("in"))
    large = (
        sent.filter(pl.col("payload_len") >= _LARGE_BYTES)
        .join(repeated, on="flow_id", how="semi")
        .group_by("flow_id", "src_ip", "src_port", "dst_ip", "tcp_seq")
        .agg(
            times=pl.len().cast(pl.UInt64),
            since=pl.col("ts").min(),
            until=pl.col("ts").max(),
            size=pl.col("payload_len").min(),
            frames=pl.col("frame").sort().head(5).cast(pl.String).str.join(", "),
        )
        .filter(pl.col("times") >= _TIMES)
    )
    heard = packets.group_by(heard_ip="src_ip").agg(heard_ts=pl.col("ts").max())
    # A SYN acknowledges nothing, whatever stands in that field.
    answers = packets.filter(pl.col("tcp_flags") & _ACK != 0)
    answers = answers.select("flow_id", answer_ip="src_ip", answer_port="src_port", ack="tcp_ack")
    beyond = (pl.col("ack").cast(pl.Int64) - pl.col("tcp_seq").cast(pl.Int64)) % (1 << 32)
    stuck = (
        large.join(answers, on="flow_id")
        .filter((pl.col("answer_ip") != pl.col("src_ip")) | (pl.col("answer_port") != pl.col("src_port")))
        .with_columns(beyond=beyond)
        .group_by("flow_id", "src_ip", "dst_ip", "tcp_seq")
        .agg(
            pl.col("times", "since", "until", "size", "frames").first(),
            # All before it was acknowledged, and it never was.
            reached=(pl.col("beyond") == 0).any(),
            acked=((pl.col("beyond") > 0) & (pl.col("beyond") < 1 << 31)).any(),
        )
        .filter("reached", ~pl.col("acked"))
        .join(heard, left_on="dst_ip", right_on="heard_ip")
        .filter(pl.col("heard_ts") > pl.col("since"))
    )
    ends = capture.whole.table("flows").select("flow_id", "server_ip", "server_port")
    return (
        stuck.join(ends, on="flow_id")
        .group_by("src_ip", "server_ip", "server_port")
        .agg(
            pl.col("since").min(),
            pl.col("until").max(),
            pl.col("times").sum().alias("count"),
            pl.col("times").sum().alias("of"),
            pl.col("frames").first(),
            pl.col("size").min(),
            connections=pl.col("flow_id").n_unique(),
        )
        .select(
            finding(
                "packets",
                endpoint("server_ip", "server_port"),
                pl.format(
                    "Segments of {} bytes or more from {} were sent {} times and never arrived, in {} "
                    "with {}, where small ones did: the MTU is smaller on the way, and no "
                    "ICMP says so.",
                    "size",
                    "src_ip",
                    "count",
                    counted("connections", "connection"),
                    endpoint("server_ip", "server_port"),
                ),
                pl.format("{} && tcp.port == {} && tcp.len >= {}", address("src_ip"), "server_port", "size"),
            )
        )
    )


RULE = Rule("small-mtu", find.__doc__ or "", ("tcp", "flows", "packets"), find)
