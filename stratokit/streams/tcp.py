"""Table `tcp`: how each TCP connection (RFC 9293) began, how well it went, and how it ended. See docs/tcp.md.

Where both ends were recorded, times come from the client's view: the network's share then is in `syn_rtt_ns`
and the client's own in `ack_rtt_ns`. For a capture made on the way, the first is the way to the server and
back, the second the way to the client and back. What a side did wrong or again (`_c2s`, `_s2c`) is counted in
that side's own view where there is one.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, Table
from stratokit.streams import lifecycle, tcp_state
from stratokit.streams.connections import Connections, judged
from stratokit.streams.kernel_view import KERNEL_COLUMNS, with_kernel
from stratokit.streams.sides import CLIENT, SERVER, VIEWS, WIRE
from stratokit.streams.source import deferred, frame_schema
from stratokit.streams.tcp_flags import FLAG_NAMES
from stratokit.streams.tcp_state import NEVER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.streams.source import PacketSource

# Column, flag of tcp_state, meaning. Each is the sum of both directions.
_COUNTS = (
    ("retransmissions", "retransmission", "Segments sent again, of every kind."),
    ("fast_retransmissions", "fast_retransmission", "Those that answered duplicate ACKs at once."),
    ("spurious_retransmissions", "spurious_retransmission", "Those that had been acknowledged already."),
    ("rto_retransmissions", "rto_retransmission", "Those that came 200 ms or more after the original."),
    ("out_of_order", "out_of_order", "Segments that were overtaken by later ones."),
    ("lost_segments", "lost_segment", "Segments before which others are missing from the capture."),
    ("acked_unseen", "ack_lost_segment", "ACKs of bytes that are missing from the capture."),
    ("dup_acks", "duplicate_ack", "ACKs that only repeat the one before."),
    ("duplicate_sacks", "duplicate_sack", "ACKs that tell of data received twice (RFC 2883)."),
    ("keep_alives", "keep_alive", "Keep-alive probes."),
    ("zero_windows", "zero_window", "Segments that announce that the sender takes no more data."),
    ("zero_window_probes", "zero_window_probe", "Probes whether the other side takes data again."),
    ("window_full", "window_full", "Segments that fill the other side's window."),
    ("window_updates", "window_update", "ACKs that only announce another window."),
)
_BOTH_WAYS = ("retransmissions", "lost_segments", "zero_windows")
_WAYS = (("c2s", "client to server"), ("s2c", "server to client"))
_PER_WAY = (
    ("payload", "u64", "Bytes of payload as sent, repeated ones too", "bytes"),
    ("bytes_in_flight_max", "u64", "Most bytes that were sent and not yet acknowledged", "bytes"),
    ("rtt_min_ns", "s64", "Shortest time from data to its ACK", "ns"),
    ("rtt_mean_ns", "s64", "Mean time from data to its ACK", "ns"),
    ("rtt_max_ns", "s64", "Longest time from data to its ACK", "ns"),
    ("first_byte_ns", "s64", "From the first packet of the connection to the first data", "ns"),
    ("zero_window_ns", "s64", "Time in which the receiver had closed its window", "ns"),
)

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
        Column("conn_state", "text", "How it went, as Zeek's conn_state: SF, S0, REJ, RSTO, ..."),
        Column("history", "text", "What happened, in Zeek's letters; capitals are the client's."),
        Column("completeness", "u8", "SYN 1, SYN-ACK 2, ACK 4, data 8, FIN 16, RST 32, as Wireshark's."),
        Column("closed_by", "text", "Who ended it first: client or server; null while it is open."),
        Column("closed_how", "text", "fin, or rst where one came before both sides had sent a FIN."),
        *(Column(name, "u32", doc) for name, _, doc in _COUNTS),
        Column("resets", "u32", "RST segments, each counted once."),
        Column("reused_ports", "bool", "An earlier connection had the same ports at the same addresses."),
        Column("bytes_missing", "u64", "Bytes within the streams that no captured segment brought.", "bytes"),
        *(
            Column(f"{name}_{way}", "u32", f"The {name.replace('_', ' ')} from {words}.")
            for name in _BOTH_WAYS
            for way, words in _WAYS
        ),
        *(
            Column(
                f"{name}_{way}" if unit != "ns" else f"{name[:-3]}_{way}_ns", kind, f"{doc}, {words}.", unit
            )
            for name, kind, doc, unit in _PER_WAY
            for way, words in _WAYS
        ),
        Column("window_scale_client", "u8", "Shift of the client's windows; null where it is not known."),
        Column("window_scale_server", "u8", "Shift of the server's windows; null where it is not known."),
        *KERNEL_COLUMNS,
        Column("view", "text", "Where the times were taken: client, server, or wire for a plain capture."),
    ),
    (
        FilterField("tcp.analysis.initial_rtt", ("handshake_rtt_ns",), "Time of the handshake."),
        FilterField(
            "tcp.completeness", ("completeness",), "SYN 1, SYN-ACK 2, ACK 4, data 8, FIN 16, RST 32."
        ),
        FilterField("tcp.connection.state", ("conn_state",), "How the connection went, in Zeek's terms."),
    ),
)
# Rows that are made at once: what is gathered for them is several times as large as they are.
_ROWS_MAX = 1 << 15
_VIEW_NAMES = np.array(["wire", "client", "server"], object)
_HOW = np.array([None, "fin", "rst"], object)
_WHO = np.array(["client", "server", None], object)


class _Rows:
    """Some records of an array, of which only the fields that are looked at are gathered."""

    def __init__(self, records: NDArray[Any], index: NDArray[np.int64]) -> None:
        self._records, self._index = records, index

    def __getitem__(self, field: str) -> NDArray[Any]:
        found: NDArray[Any] = self._records[field][self._index]
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class _Chosen:
    """Per flow the connection that times come from, those of both ends' sockets, that on the wire or -1."""

    main: NDArray[np.int64]
    at_client: NDArray[np.int64]
    at_server: NDArray[np.int64]
    wire: NDArray[np.int64]

    @classmethod
    def of(cls, found: Connections) -> _Chosen:
        flows, index = np.unique(found.flow_id, return_inverse=True)
        place = np.full((flows.size, VIEWS), -1, np.int64)
        place[index, found.view] = np.arange(found.flow_id.size)
        wire, client, server = place[:, WIRE], place[:, CLIENT], place[:, SERVER]
        main = np.where(client >= 0, client, np.where(server >= 0, server, wire))
        return cls(main, np.where(client >= 0, client, main), np.where(server >= 0, server, main), wire)

    def part(self, rows: slice) -> _Chosen:
        """Of some flows."""
        return _Chosen(self.main[rows], self.at_client[rows], self.at_server[rows], self.wire[rows])


def _times(values: NDArray[np.int64]) -> pl.Series:
    return pl.Series(values).replace(NEVER, None)


def _counts(at_client: _Rows, at_server: _Rows) -> dict[str, NDArray[Any]]:
    """Flags of both directions, each as its own side saw it."""
    columns = {}
    of_client, of_server = at_client["counts"], at_server["counts"]
    for name, flag, _ in _COUNTS:
        bit = FLAG_NAMES.index(flag)
        c2s, s2c = of_client[:, bit], of_server[:, bit]
        columns[name] = c2s + s2c
        if name in _BOTH_WAYS:
            columns[f"{name}_c2s"], columns[f"{name}_s2c"] = c2s, s2c
    return columns


def _way(side: _Rows, receiver: _Rows, life: _Rows) -> dict[str, Any]:
    """What `_PER_WAY` lists, of one direction."""
    rtts = side["rtts"]
    known = rtts > 0
    closed, first_data = receiver["zero_since_ns"], side["first_data_ns"]
    still_closed = np.where(closed == NEVER, 0, life["last_ns"] - closed)
    first = np.where(first_data == NEVER, NEVER, first_data - life["first_ns"])
    return {
        "payload": side["payload"],
        "bytes_in_flight_max": side["in_flight_max"],
        "rtt_min_ns": _times(np.where(known, side["rtt_min_ns"], NEVER)),
        "rtt_mean_ns": _times(np.where(known, side["rtt_sum_ns"] // np.maximum(rtts, 1), NEVER)),
        "rtt_max_ns": _times(np.where(known, side["rtt_max_ns"], NEVER)),
        "first_byte_ns": _times(first),
        "zero_window_ns": receiver["zero_ns"] + still_closed,
    }


def _missing(side: _Rows, found: Connections) -> NDArray[np.int64]:
    """Bytes in holes that are open at the end, or were given up."""
    total: NDArray[np.int64] = found.troubles["missing"][side["trouble"]]
    holes = side["holes"]
    if holes.any():
        watched = np.arange(tcp_state.HOLES) < holes[:, None]
        edges = _Rows(found.edges, side["edges"])
        total = total + ((edges["hole_right"] - edges["hole_left"]).astype(np.int64) * watched).sum(1)
    return total


def _letters(life: _Rows) -> list[str]:
    width = lifecycle.HISTORY_MAX
    joined = life["history"].tobytes().decode("ascii")
    return [joined[i * width : i * width + n] for i, n in enumerate(life["history_size"].tolist())]


def _resets(found: Connections, flow_id: NDArray[np.int64], chosen: _Chosen) -> NDArray[np.int64]:
    """A local RST was seen at both ends and counts once."""
    total = np.where(chosen.wire >= 0, found.lives["resets"][chosen.wire], 0).astype(np.int64)
    local, times = np.unique(found.resets["flow_id"].to_numpy(), return_counts=True)
    total[np.searchsorted(flow_id, local.astype(np.int64))] += times
    return total


def frame_of(found: Connections) -> pl.DataFrame:
    """One row a flow, with every column but those from the kernel."""
    chosen = _Chosen.of(found)
    resets = _resets(found, found.flow_id[chosen.main], chosen)
    parts = (slice(first, first + _ROWS_MAX) for first in range(0, max(chosen.main.size, 1), _ROWS_MAX))
    return pl.concat([_frame(found, chosen.part(rows), resets[rows]) for rows in parts], rechunk=False)


def _frame(found: Connections, chosen: _Chosen, resets: NDArray[np.int64]) -> pl.DataFrame:
    """The rows of some flows."""
    main = chosen.main
    life = _Rows(found.lives, main)
    client_side = 2 * np.arange(found.flow_id.size) + found.client
    client, server = _Rows(found.sides, client_side[main]), _Rows(found.sides, client_side[main] ^ 1)
    own = (
        _Rows(found.sides, client_side[chosen.at_client]),
        _Rows(found.sides, client_side[chosen.at_server] ^ 1),
    )

    def trouble(sides: _Rows) -> _Rows:
        return _Rows(found.troubles, sides["trouble"])

    syn_ack, last_syn, ack = (_times(life[name]) for name in ("syn_ack_ns", "last_syn_ns", "ack_ns"))
    states = lifecycle.conn_states(found.lives[main], client["payload"] + server["payload"])
    flow_id = found.flow_id[main]
    columns: dict[str, Any] = {
        "flow_id": flow_id.astype(np.uint64),
        "syn_ts": _times(life["syn_ns"]).cast(pl.Datetime("ns", "UTC")),
        "syns": life["syns"],
        "handshake_rtt_ns": ack - last_syn,
        "syn_rtt_ns": syn_ack - last_syn,
        "ack_rtt_ns": ack - syn_ack,
        "conn_state": pl.Series(np.array(lifecycle.CONN_STATES, object)[states].tolist(), dtype=pl.String),
        "history": _letters(life),
        "completeness": life["completeness"],
        "closed_by": pl.Series(_WHO[life["closed_side"]].tolist(), dtype=pl.String),
        "closed_how": pl.Series(_HOW[life["closed_how"]].tolist(), dtype=pl.String),
        **_counts(*(trouble(sides) for sides in own)),
        "resets": resets,
        "reused_ports": found.state["reused_ports"][main],
        "bytes_missing": _missing(client, found) + _missing(server, found),
        "view": pl.Series(_VIEW_NAMES[found.view[main]].tolist(), dtype=pl.String),
    }
    for (way, _), side, receiver in zip(_WAYS, (client, server), (server, client), strict=True):
        for name, values in _way(side, receiver, life).items():
            columns[f"{name[:-3]}_{way}_ns" if name.endswith("_ns") else f"{name}_{way}"] = values
        scale = pl.Series(side["scale"])
        known = pl.when(scale >= 0).then(scale).when(scale == tcp_state.SCALE_UNUSED).then(0)
        columns["window_scale_" + ("client" if way == "c2s" else "server")] = pl.select(known).to_series()
    return pl.DataFrame(columns)


def _connections(capture: PacketSource) -> pl.DataFrame:
    found = judged(capture)
    return with_kernel(frame_of(found), found, capture)


def build(capture: PacketSource) -> pl.LazyFrame:
    """Rows of `tcp`, in order of flow_id."""
    return deferred(frame_schema(TABLE), lambda: _connections(capture))
