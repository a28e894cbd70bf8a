"""DNS messages of a capture: datagrams, and what TCP streams carry behind two bytes of length."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, routine
from stratokit.protocols import dns_messages as dm
from stratokit.protocols.buffers import be16
from stratokit.streams import reassembly
from stratokit.streams.conversations import OWNER
from stratokit.streams.flows import TCP, UDP
from stratokit.streams.reassembly import Payload
from stratokit.streams.source import payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stratokit.streams.source import PacketSource

DNS_PORT, MDNS_PORT, LLMNR_PORT = 53, 5353, 5355
NAME_SERVICE_PORT = 137  # NetBIOS names look like DNS
PORTS = (DNS_PORT, MDNS_PORT, LLMNR_PORT)
SEEN = ("frame", "ts", "direction", "src_ip", "src_port", "dst_ip", "dst_port", *OWNER)
_PREFIX_BYTES = 2  # RFC 1035 section 4.2.2
_HEAD_BYTES = 600  # the first message of a stream; a query hardly needs more


@dataclasses.dataclass(frozen=True, slots=True)
class Messages:
    """Where messages stand in `data`, and the packets that carried them, one row for each."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    cut: NDArray[np.bool_]  # the capture holds only its beginning
    known: NDArray[np.bool_]
    packets: pl.DataFrame  # SEEN, flow_id, transport
    seen: pl.DataFrame  # SEEN of these packets and of their other sightings
    skipped_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Some:
    """Some packets as a source of their own."""

    packets: pl.DataFrame

    def rows(self, kind: str) -> pl.LazyFrame:
        """See `PacketSource`."""
        assert kind == "packet"
        return self.packets.lazy()


def _on(*ports: int) -> pl.Expr:
    return pl.any_horizontal(pl.col("src_port", "dst_port").is_in(ports))


def messages(capture: PacketSource) -> Iterator[Messages]:
    """All datagrams that may be DNS, then all streams."""
    # Nearly every message has one question: this spares the reading of other protocols' payload.
    one = b"\0\1"
    is_one = (pl.col("payload_len") >= dm.HEADER_BYTES) & (payload(4, pl.lit(2)) == one)
    datagram = (pl.col("ip_proto") == UDP) & (pl.col("payload_len") > 0)
    datagram &= ~_on(NAME_SERVICE_PORT) & (_on(*PORTS) | is_one)
    segment = (pl.col("ip_proto") == TCP) & (pl.col("payload_len") > 0)
    segment &= _on(DNS_PORT, LLMNR_PORT) | (payload(6, pl.lit(2)) == one)
    found = (
        capture.rows("packet")
        .filter(pl.col("flow_id").is_not_null(), datagram | segment)
        .select("ip_proto", "flow_id", *SEEN, "payload_len", payload=payload().fill_null(b""))
        .collect()
    )
    over_tcp = found["ip_proto"] == TCP
    streams = found.filter(over_tcp)["flow_id"].unique() if over_tcp.any() else None
    yield _datagrams(found if streams is None else found.filter(~over_tcp))
    if streams is not None:
        yield from _of_streams(capture, streams)


def _transport(default: str) -> pl.Expr:
    return (
        pl.when(_on(MDNS_PORT))
        .then(pl.lit("mdns"))
        .when(_on(LLMNR_PORT))
        .then(pl.lit("llmnr"))
        .otherwise(pl.lit(default))
        .alias("transport")
    )


def _datagrams(packets: pl.DataFrame) -> Messages:
    seen = packets.select(SEEN)
    if packets["direction"].null_count() < packets.height:
        # A local datagram was seen twice; what its sender or receiver at the client's end saw counts.
        is_response = pl.col("payload").bin.slice(2, 1) >= b"\x80"
        at_client = ((pl.col("direction") == "in") == is_response).fill_null(value=True)
        packets = packets.sort(at_client, descending=True, maintain_order=True)
        packets = packets.unique("frame", keep="first", maintain_order=True).sort("ts", maintain_order=True)
    payload = Payload.of(packets["payload"])
    size = np.diff(payload.bounds)
    return Messages(
        data=payload.data,
        starts=payload.bounds[:-1],
        ends=payload.bounds[1:],
        cut=size < packets["payload_len"].to_numpy(),
        known=packets.select(_on(*PORTS)).to_series().to_numpy(),
        packets=packets.select(*SEEN, "flow_id", _transport("udp")),
        seen=seen,
    )


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


def _of_streams(capture: PacketSource, flows: pl.Series) -> Iterator[Messages]:
    of_flows = pl.col("flow_id").is_in(flows.implode())
    rows = capture.rows("packet").filter(pl.col("ip_proto") == TCP, of_flows).collect()
    known = set(rows.filter(_on(DNS_PORT, LLMNR_PORT))["flow_id"].unique())
    for streams in reassembly.batches(Some(rows)):
        on_port = np.isin(streams.flow_id, np.array(sorted(known), np.int64))
        chosen = on_port | _begins(*streams.heads(_HEAD_BYTES))
        if not chosen.any():
            continue
        runs = streams.byte_runs(chosen)
        found, skipped = _split(runs.data, runs.run_bounds, runs.run_start)
        # A message counts from the packet that completed it, as Wireshark shows it.
        last = runs.ready_row_at(found[:, 2] - 1)
        order = np.argsort(last, kind="stable")
        found = found[order]
        told = pl.DataFrame(
            {
                "frame": pl.Series(runs.frame[last[order]], dtype=pl.UInt64),
                "ts": pl.Series(runs.ts_ns[last[order]]).cast(rows.schema["ts"]),
                "flow_id": pl.Series(runs.flow_id[found[:, 0] // 2], dtype=pl.UInt64),
            }
        )
        seen = rows.select(SEEN).unique(["frame", "ts"], keep="first")
        told = told.join(seen, on=["frame", "ts"], how="left", maintain_order="left")
        yield Messages(
            data=runs.data,
            starts=found[:, 1],
            ends=found[:, 2],
            cut=found[:, 3] == 1,
            known=np.ones(len(found), np.bool_),
            packets=told.select(*SEEN, "flow_id", _transport("tcp")),
            seen=rows.select(SEEN),
            skipped_bytes=int(skipped),
        )
