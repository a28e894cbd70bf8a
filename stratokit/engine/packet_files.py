"""Packet files of other programs: their frames become the rows of a capture while they are read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.layers import HAS_IP, HAS_PORTS
from stratokit.dissect.packets import dissect
from stratokit.engine.facts import FileFacts
from stratokit.engine.frames import conform
from stratokit.formats.events import gather
from stratokit.formats.frames import FrameBatch
from stratokit.formats.registry import Format
from stratokit.schema import load
from stratokit.streams.flows import FlowTable

Tables = Iterator[tuple[str, pa.Table]]


def capture_tables(path: Path, form: Format, progress: Callable[[int, int], None] | None = None) -> Tables:
    """(kind, rows) of a packet file: packets batch by batch, then interfaces and what was lost in reading."""
    assert form.open_reader is not None
    size = path.stat().st_size
    flows, frames, last_ns = FlowTable(), 0, 0
    with form.open_reader(path) as reader:
        for batch in reader.batches():
            yield "packet", _rows(batch, reader.interfaces, flows, frames)
            frames += len(batch.offsets)
            last_ns = max(last_ns, int(batch.ts_ns.max()))
            if progress:
                progress(reader.position(), size)
        yield "interface", _interfaces(reader.interfaces, last_ns)
        if reader.damage is not None:
            lost = {"ts": [last_ns], "counter": [reader.damage.counter], "amount": [1], "span_ns": [0]}
            yield "loss", pa.table(lost)


def _rows(batch: FrameBatch, interfaces: list[Any], flows: FlowTable, before: int) -> pa.Table:
    """Rows of kind packet in the order of the file, whose frames are numbered so too."""
    found = dissect(batch.data, batch.offsets, batch.cap_lens, batch.orig_lens, batch.link_types)
    layers = found["layers"]
    flow_id, _ = flows.assign(
        found["src_ip"],
        found["dst_ip"],
        found["src_port"],
        found["dst_port"],
        found["ip_proto"],
        found["vlan"],
        found["tcp_flags"],
        found["tcp_seq"],
        batch.ts_ns,
        (layers & HAS_PORTS) != 0,
        tcp_ack=found["tcp_ack"],
        icmp_type=found["icmp_type"],
        valid=(layers & HAS_IP) != 0,
    )
    count = len(batch.offsets)
    data, offsets = gather(batch.data, batch.offsets, batch.cap_lens.astype(np.int64))
    names = pa.array([interface.name or None for interface in interfaces], pa.string())
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    columns = {
        "ts": pa.array(batch.ts_ns, pa.timestamp("ns", "UTC")),
        "frame": pa.array(np.arange(before + 1, before + 1 + count, dtype=np.uint64)),
        "interface": pa.DictionaryArray.from_arrays(pa.array(batch.interfaces.astype(np.int32)), names),
        "ifindex": pa.array(batch.interfaces),
        "link_type": pa.array(batch.link_types),
        "orig_len": pa.array(batch.orig_lens),
        "cap_len": pa.array(batch.cap_lens),
        "flow_id": pa.array(flow_id.astype(np.uint64), mask=flow_id < 0),
        "data": pa.Array.from_buffers(pa.large_binary(), count, buffers),
    }
    for name, column in packet_columns(found).items():
        columns.setdefault(name, column)
    return pa.table(columns)


def _interfaces(interfaces: list[Any], last_ns: int) -> pa.Table:
    return pa.table(
        {
            "ts": pa.array([last_ns] * len(interfaces), pa.timestamp("ns", "UTC")),
            "interface": pa.array([i.name or None for i in interfaces], pa.string()),
            "ifindex": pa.array(range(len(interfaces)), pa.uint32()),
            "link_type": pa.array([i.link_type for i in interfaces], pa.uint16()),
            "mac": pa.array([i.mac or None for i in interfaces], pa.string()),
            "addresses": pa.array([list(i.addresses) for i in interfaces], pa.list_(pa.string())),
        }
    )


class PacketSource:
    """A packet file as a source of rows; it is read whole, once, when the first of them is wanted."""

    def __init__(self, path: Path, form: Format) -> None:
        self.path = path
        self.form = form

    @functools.cached_property
    def _frames(self) -> dict[str, pl.DataFrame]:
        found: dict[str, list[pl.DataFrame]] = {}
        for kind, table in capture_tables(self.path, self.form):
            frame = pl.DataFrame(pl.from_arrow(table))
            found.setdefault(kind, []).append(_typed(frame, kind))
        return {kind: pl.concat(frames) for kind, frames in found.items()}

    @functools.cached_property
    def facts(self) -> FileFacts:
        """See `Source`; for these files the rows have to be read."""
        rows = {kind: frame.height for kind, frame in self._frames.items()}
        times = (
            self._frames["packet"]["ts"].to_physical()
            if rows.get("packet")
            else pl.Series([], dtype=pl.Int64)
        )
        losses = self._frames["loss"] if "loss" in rows else None
        return FileFacts(
            path=self.path,
            format=self.form.name,
            size_bytes=self.path.stat().st_size,
            rows=rows,
            first_ns=int(times.min()) if len(times) else None,  # type: ignore[arg-type]
            last_ns=int(times.max()) if len(times) else None,  # type: ignore[arg-type]
            losses=dict(losses.select("counter", "amount").iter_rows()) if losses is not None else {},
        )

    def rows(self, kind: str) -> pl.LazyFrame:
        """See `Source`."""
        columns = load.capture().of_kind(kind)
        return conform(self._frames.get(kind, pl.DataFrame()).lazy(), columns)


def _typed(frame: pl.DataFrame, kind: str) -> pl.DataFrame:
    return conform(frame.lazy(), load.capture().of_kind(kind)).collect()
