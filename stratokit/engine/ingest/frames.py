"""Rows of kind `packet` from frames that were recorded at devices, with their link layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from stratokit.dissect.packets import dissect
from stratokit.engine.ingest import endpoints
from stratokit.engine.ingest.interfaces import ARPHRD_LOOPBACK, LINK_TYPES
from stratokit.engine.ingest.packets import LINKTYPE_RAW, OUT, Packets
from stratokit.engine.ingest.sightings import packet_hashes
from stratokit.engine.ingest.watch_points import WatchPoints
from stratokit.formats import events
from stratokit.streams.sides import sender_is_greater

if TYPE_CHECKING:
    from stratokit.engine.ingest.packets import Context
    from stratokit.engine.ingest.survey import Survey
    from stratokit.formats.events import Batch

ETHERNET_BYTES = 14


class Frames(Packets):
    """Turns windows of frame records into rows."""

    def __init__(self, found: Survey, context: Context) -> None:
        super().__init__(found, context)
        self._ends = found.ends
        self._alone = 0
        self._watch_points = WatchPoints()

    def rows(self, batch: Batch) -> pa.Table:
        """Rows of one span, sorted by time."""
        ts = self._clock.utc_ns(batch.fixed["ts_ns"])
        order = np.argsort(ts, kind="stable")
        fixed, ts = batch.fixed[order], ts[order]
        starts, lengths = (values[order] for values in batch.sections["data"])
        types = fixed["device_type"]
        links = np.full(ts.size, LINKTYPE_RAW, np.uint16)
        for device, number in LINK_TYPES.items():
            links[types == device] = number
        cut = np.where(np.isin(types, list(LINK_TYPES)), 0, fixed["network_offset"]).astype(np.int64)
        cut = np.minimum(cut, lengths)
        data, offsets = events.gather(batch.data, starts + cut, lengths - cut)
        lengths = lengths - cut
        orig = (fixed["orig_len"] - cut).astype(np.uint32)
        found = dissect(data, offsets[:-1], lengths.astype(np.uint32), orig, links)
        outgoing = fixed["direction"] == OUT
        frames = self._numbers(data, offsets[:-1], lengths, ts, types == ARPHRD_LOOPBACK, outgoing)
        return self._table(
            found,
            (data, offsets),
            {
                "ts": ts,
                "outgoing": outgoing,
                "frame": frames,
                "socket_cookie": endpoints.cookies(self._ends, found, ts, outgoing, fixed["netns_cookie"]),
                "interface": self._interfaces.names_at(fixed["netns_cookie"], fixed["ifindex"]),
                "ifindex": fixed["ifindex"],
                "link_type": links,
                "orig_len": orig,
                "cap_len": lengths.astype(np.uint32),
                "gso_segments": fixed["gso_segments"],
                "netns": fixed["netns_cookie"],
            },
        )

    def _followed(
        self, flows: dict[str, pa.Array], table: dict[str, pa.Array], given: dict[str, Any]
    ) -> dict[str, pa.Array]:
        ends = ("src_ip", "dst_ip", "src_port", "dst_port")
        columns = pl.DataFrame({name: pl.from_arrow(table[name]) for name in ends})
        frames = columns.with_columns(pl.col("src_ip", "dst_ip").cast(pl.String)).select(
            pl.Series("flow_id", pl.from_arrow(flows["flow_id"])),
            sender_is_greater().alias("side"),
            # Cookies of namespaces count from one, indexes of devices too.
            pl.Series("device", given["netns"] << np.uint64(32) | given["ifindex"].astype(np.uint64)),
        )
        here = self._watch_points.followed(frames).to_numpy()
        return flows | {"flow_id": pc.if_else(pa.array(here), flows["flow_id"], None)}

    def _numbers(self, data: Any, starts: Any, lengths: Any, ts: Any, loops: Any, outgoing: Any) -> pl.Series:
        """A loopback device gives back what it gets: one frame, seen twice. All others count singly."""
        hashes = np.arange(self._alone, self._alone + ts.size).astype(np.uint64)
        self._alone += ts.size
        if loops.any():
            head = np.minimum(lengths[loops], ETHERNET_BYTES)
            hashes[loops] = packet_hashes(data, starts[loops] + head, lengths[loops] - head)
        return self._sightings.number(hashes, ts, outgoing & loops)
