"""Table `tcp`: how each TCP connection (RFC 9293) began and whether it was reset.

Times come from one view only, the client's where it was recorded: the network's share then is in
`syn_rtt_ns` and the client's own in `ack_rtt_ns`; for a capture made on the way, the first is the way to the
server and back, the second the way to the client and back. Left out for now: everything that needs a pass
over all segments (retransmissions, windows, states).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numba import njit

from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams.flows import ACK, FIN, RST, SYN, TCP
from stratokit.streams.sides import CLIENT, SERVER, SIDE_COLUMNS, VIEWS, WIRE, column, with_sides
from stratokit.streams.source import deferred, frame_schema

if TYPE_CHECKING:
    from stratokit.streams.source import PacketSource

TABLE = Table(
    "tcp",
    "a TCP connection",
    (
        Column("flow_id", "u64", "Number of the conversation."),
        Column("syn_ts", "time", "First SYN; null where the capture began later."),
        Column("syns", "u32", "SYNs that the client sent until the SYN-ACK; more than one is a retry."),
        Column(
            "handshake_rtt_ns", "s64", "From the last SYN before the SYN-ACK to the ACK that ends it.", "ns"
        ),
        Column("syn_rtt_ns", "s64", "From that SYN to the SYN-ACK.", "ns"),
        Column("ack_rtt_ns", "s64", "From the SYN-ACK to the ACK.", "ns"),
        Column("resets", "u32", "RST segments, each counted once."),
        Column("view", "text", "Where the times were taken: client, server, or wire for a plain capture."),
    ),
    (FilterField("tcp.analysis.initial_rtt", ("handshake_rtt_ns",), "Time of the handshake."),),
)
_VIEW_NAMES = {WIRE: "wire", CLIENT: "client", SERVER: "server"}
_SYN_TS, _LAST_SYN_TS, _SYNACK_TS, _ACK_TS, _SYNS = range(5)
_NEVER = np.iinfo(np.int64).min


@njit(nogil=True, cache=True)
def _handshakes(segments: Any, connections: int) -> np.ndarray:
    """Per connection and view: times of SYN, last SYN, SYN-ACK and ACK, and the number of SYNs."""
    at, from_client, flags, seq, ack, ts = segments
    out = np.full((connections, 5), _NEVER, np.int64)
    out[:, _SYNS] = 0
    server_isn = np.zeros(connections, np.uint32)
    for i in range(at.size):
        row = out[at[i]]
        kind = flags[i] & (SYN | ACK | RST | FIN)
        if from_client[i] and kind == SYN and row[_SYNACK_TS] == _NEVER:
            if row[_SYN_TS] == _NEVER:
                row[_SYN_TS] = ts[i]
            row[_LAST_SYN_TS] = ts[i]
            row[_SYNS] += 1
        elif not from_client[i] and kind == SYN | ACK and row[_SYNACK_TS] == _NEVER:
            row[_SYNACK_TS] = ts[i]
            server_isn[at[i]] = seq[i]
        elif from_client[i] and kind == ACK and row[_SYNACK_TS] != _NEVER and row[_ACK_TS] == _NEVER:
            # it may carry data, or acknowledge more than the SYN where its forerunner was lost
            acked = np.int32(ack[i] - server_isn[at[i]])
            row[_ACK_TS] = ts[i] if acked >= 0 else _NEVER
    return out


def _connections(capture: PacketSource) -> pl.DataFrame:
    is_tcp = (pl.col("ip_proto") == TCP) & pl.col("flow_id").is_not_null()
    names = sorted({*SIDE_COLUMNS, "frame", "ts", "tcp_seq", "tcp_ack"})
    packets = with_sides(capture.rows("packet").filter(is_tcp).select(names).collect())
    flows, index = np.unique(column(packets, "flow_id", np.int64), return_inverse=True)
    segments = (
        index * VIEWS + column(packets, "view", np.int64),
        packets["from_client"].to_numpy(),
        column(packets, "tcp_flags", np.int64),
        column(packets, "tcp_seq", np.uint32),
        column(packets, "tcp_ack", np.uint32),
        packets["ts"].to_physical().to_numpy(),
    )
    times = _handshakes(segments, flows.size * VIEWS).reshape(flows.size, VIEWS, 5)
    seen = np.zeros((flows.size, VIEWS), np.bool_)
    seen.ravel()[segments[0]] = True
    view = np.where(seen[:, CLIENT], CLIENT, np.where(seen[:, SERVER], SERVER, WIRE))
    chosen = times[np.arange(flows.size), view]
    frame = pl.DataFrame(
        {
            "flow_id": flows,
            "view": view,
            "syns": chosen[:, _SYNS],
            "syn_ts": chosen[:, _SYN_TS],
            "last_syn": chosen[:, _LAST_SYN_TS],
            "synack": chosen[:, _SYNACK_TS],
            "ack": chosen[:, _ACK_TS],
        }
    ).with_columns(pl.col("syn_ts", "last_syn", "synack", "ack").replace({_NEVER: None}))
    is_reset = pl.col("tcp_flags") & RST != 0
    resets = packets.filter(is_reset).group_by("flow_id").agg(resets=pl.col("frame").n_unique())
    return frame.join(resets.cast({"flow_id": pl.Int64}), on="flow_id", how="left").select(
        "flow_id",
        "syns",
        pl.col("syn_ts").cast(pl.Datetime("ns", "UTC")),
        pl.col("resets").fill_null(0),
        pl.col("view").replace_strict(_VIEW_NAMES, return_dtype=pl.String),
        handshake_rtt_ns=pl.col("ack") - pl.col("last_syn"),
        syn_rtt_ns=pl.col("synack") - pl.col("last_syn"),
        ack_rtt_ns=pl.col("ack") - pl.col("synack"),
    )


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `tcp`, in order of flow_id."""
    return deferred(frame_schema(TABLE), lambda: _connections(capture))
