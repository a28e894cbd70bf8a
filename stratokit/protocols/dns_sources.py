"""Where DNS messages stand: in datagrams, and in TCP streams behind two bytes of length."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, read_only, routine
from stratokit.protocols import dns_messages as dm
from stratokit.protocols.buffers import be16
from stratokit.streams.byte_runs import Payload
from stratokit.streams.flows import UDP
from stratokit.streams.segment_rows import lead

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stratokit.protocols.over_tcp import Heads
    from stratokit.streams.byte_runs import ByteRuns

DNS_PORT, MDNS_PORT, LLMNR_PORT = 53, 5353, 5355
NAME_SERVICE_PORT = 137  # NetBIOS names look like DNS
PORTS = (DNS_PORT, MDNS_PORT, LLMNR_PORT)
# Who sent a packet, when, and from where to where.
SEEN = ("frame", "ts", "direction", "src_ip", "src_port", "dst_ip", "dst_port")
_PREFIX_BYTES = 2  # RFC 1035 section 4.2.2


@dataclasses.dataclass(frozen=True, slots=True)
class Messages:
    """Where messages stand in `data`, and the packets that completed them, one row for each."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    cut: NDArray[np.bool_]  # the capture holds only its beginning
    known: NDArray[np.bool_]
    packets: pl.DataFrame  # frame, ts, flow_id, transport, party
    skipped_bytes: int = 0


def _on(*ports: int) -> pl.Expr:
    return pl.any_horizontal(pl.col("src_port", "dst_port").is_in(ports))


# Nearly every message has one question: this spares the reading of other protocols' payload.
DATAGRAMS = (
    (pl.col("ip_proto") == UDP)
    & (pl.col("payload_len") > 0)
    & ~_on(NAME_SERVICE_PORT)
    & (_on(*PORTS) | (pl.col("payload_len") >= dm.HEADER_BYTES) & (lead(2, at=4) == 1))
)
# On another port the first message begins a segment, or follows one that is its length alone.
_LENGTH_MAX = 1 << 14
SEGMENTS = (
    _on(DNS_PORT, LLMNR_PORT)
    | (lead(2, at=_PREFIX_BYTES + 4) == 1)
    | (pl.col("payload_len") == _PREFIX_BYTES) & (lead(_PREFIX_BYTES) < _LENGTH_MAX)
)


def transport(default: str) -> pl.Expr:
    """How a message was carried, by the ports of its packet."""
    return (
        pl.when(_on(MDNS_PORT))
        .then(pl.lit("mdns"))
        .when(_on(LLMNR_PORT))
        .then(pl.lit("llmnr"))
        .otherwise(pl.lit(default))
        .alias("transport")
    )


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


def datagrams(packets: pl.DataFrame) -> Messages:
    """Messages of what DATAGRAMS chose."""
    packets = packets.select("flow_id", *SEEN, "payload_len", "payload")
    if packets["direction"].null_count() < packets.height:
        # A local datagram was seen twice; what its sender or receiver at the client's end saw counts.
        is_response = pl.col("payload").bin.slice(2, 1) >= b"\x80"
        at_client = ((pl.col("direction") == "in") == is_response).fill_null(value=True)
        packets = packets.sort(at_client, descending=True, maintain_order=True)
        packets = packets.unique("frame", keep="first", maintain_order=True).sort("ts", maintain_order=True)
    payloads = Payload.of(packets["payload"])
    size = np.diff(payloads.bounds)
    return Messages(
        data=payloads.data,
        starts=payloads.bounds[:-1],
        ends=payloads.bounds[1:],
        cut=size < packets["payload_len"].to_numpy(),
        known=packets.select(_on(*PORTS)).to_series().to_numpy(),
        packets=packets.with_columns(transport("udp")).select(
            "frame", "ts", "flow_id", "transport", party=_party()
        ),
    )


def recognise(heads: Heads) -> NDArray[np.int64]:
    """0 for conversations on the ports of DNS, or that begin with a message; not inside of others."""
    if heads.on_port is None:
        return np.full((heads.bounds.size - 1) // 2, -1, np.int64)
    ours = heads.on_port(DNS_PORT, LLMNR_PORT) | _begins(read_only(heads.data, np.uint8), heads.bounds)
    return np.where(ours, 0, -1)


@kernel
def _begins(data: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Whether either direction of each conversation begins with a DNS message."""
    found = np.zeros((bounds.size - 1) // 2, np.bool_)
    for s in range(bounds.size - 1):
        start, end = bounds[s], bounds[s + 1]
        if end - start < _PREFIX_BYTES + dm.HEADER_BYTES:
            continue
        stop = start + _PREFIX_BYTES + be16(data, start)
        if stop <= end:
            found[s // 2] |= dm.is_message(data, start + _PREFIX_BYTES, stop)
    return found


@routine
def _next_message(data: np.ndarray, p: int, end: int) -> Any:
    """The first place from p on where a prefix and a message beyond doubt stand, or `end`."""
    while p + _PREFIX_BYTES + dm.HEADER_BYTES <= end:
        stop = p + _PREFIX_BYTES + be16(data, p)
        # The number of questions is looked at first: it is cheap, and seldom one by chance.
        if stop <= end and be16(data, p + 6) == 1 and dm.is_message(data, p + _PREFIX_BYTES, stop):
            return p
        p += 1
    return end


@kernel
def _split(data: np.ndarray, run_bounds: np.ndarray, run_start: np.ndarray) -> Any:
    """(stream, start, end, whether cut) of all messages, and the bytes that belong to none.

    After missing bytes reading goes on where a message stands beyond doubt.
    """
    most = run_start[-1] // (_PREFIX_BYTES + dm.HEADER_BYTES) + run_start.size
    rows = np.empty((most, 4), np.int64)
    n, skipped = 0, i64(0)
    for s in range(run_bounds.size - 1):
        for r in range(run_bounds[s], run_bounds[s + 1]):
            p, end = run_start[r], run_start[r + 1]
            if r > run_bounds[s]:
                found = _next_message(data, p, end)
                skipped += found - p
                p = found
            while p + _PREFIX_BYTES + dm.HEADER_BYTES <= end:
                size = be16(data, p)
                if size < dm.HEADER_BYTES:
                    found = _next_message(data, p + 1, end)
                    skipped += found - p
                    p = found
                    continue
                stop = min(p + _PREFIX_BYTES + size, end)
                rows[n, 0], rows[n, 1], rows[n, 2] = s, p + _PREFIX_BYTES, stop
                rows[n, 3] = stop < p + _PREFIX_BYTES + size
                n += 1
                p = stop
            skipped += end - p
    return rows[:n], skipped


def of_streams(runs: ByteRuns) -> Messages:
    """Messages of streams. One counts from the packet that completed it, as Wireshark shows it."""
    found, skipped = _split(read_only(runs.data, np.uint8), runs.run_bounds, runs.run_start)
    last = runs.ready_row_at(found[:, 2] - 1)
    order = np.argsort(last, kind="stable")
    found, last = found[order], last[order]
    flow = runs.flow_id[found[:, 0] // 2]
    return Messages(
        data=runs.data,
        starts=found[:, 1],
        ends=found[:, 2],
        cut=found[:, 3] == 1,
        known=np.ones(len(found), np.bool_),
        packets=pl.DataFrame(
            {
                "frame": pl.Series(runs.frame[last], dtype=pl.UInt64),
                "ts": pl.Series(runs.ts_ns[last]).cast(pl.Datetime("ns", "UTC")),
                "flow_id": pl.Series(flow, dtype=pl.UInt64),
                "transport": pl.repeat("tcp", len(found), eager=True),
                "party": pl.Series(flow, dtype=pl.Int64),
            }
        ),
        skipped_bytes=int(skipped),
    )
