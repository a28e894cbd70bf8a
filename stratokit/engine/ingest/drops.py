"""Rows of kind `drop`: packets that the kernel dropped, with reason, place and socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.dissect.columns import packet_columns
from stratokit.dissect.packets import dissect
from stratokit.engine.ingest.interfaces import LINKTYPE_RAW, Interfaces
from stratokit.engine.ingest.stacks import named, stacks, symbols
from stratokit.formats import events

if TYPE_CHECKING:
    from stratokit.engine.ingest.packets import Context
    from stratokit.engine.ingest.survey import Survey
    from stratokit.formats.events import Batch

_DISSECTED = ("src_ip", "dst_ip", "src_port", "dst_port", "ip_proto", "tcp_flags", "payload_len")


class Drops:
    """Turns windows of drop records into rows. The places' names are those of the whole spool."""

    def __init__(self, found: Survey, context: Context) -> None:
        self._clock = found.clock
        self._context = context
        self._interfaces = Interfaces(found)
        reasons = found.opening.get("drop_reasons") or {}
        self._reasons = {int(number): str(name) for number, name in reasons.items()}
        self._symbols = symbols(found)
        self._stacks = stacks(found)

    def rows(self, batch: Batch) -> pa.Table:
        """Rows of one span, sorted by time."""
        ts = self._clock.utc_ns(batch.fixed["ts_ns"])
        order = np.argsort(ts, kind="stable")
        fixed, ts = batch.fixed[order], ts[order]
        starts, lengths = (values[order] for values in batch.sections["data"])
        data, offsets = events.gather(batch.data, starts, lengths)
        links = np.full(ts.size, LINKTYPE_RAW, np.uint16)
        table = packet_columns(dissect(data, offsets[:-1], fixed["cap_len"], fixed["orig_len"], links))
        who = self._context.of_socket(
            pl.DataFrame({"ts": ts, "socket_cookie": pl.Series(fixed["socket_cookie"]).replace(0, None)})
        )
        own = {
            "ts": pa.array(ts, pa.timestamp("ns", "UTC")),
            **{name: who[name].to_arrow() for name in self._context.COLUMNS},
            **{name: table[name] for name in _DISSECTED},
            "interface": self._interfaces.names_at(fixed["netns_cookie"], fixed["ifindex"]).to_arrow(),
            "ifindex": pl.Series(fixed["ifindex"]).replace(0, None).to_arrow(),
            "netns": pl.Series(fixed["netns_cookie"]).replace(0, None).to_arrow(),
            "ether_type": pl.Series(fixed["protocol"]).replace(0, None).to_arrow(),
            "orig_len": pa.array(fixed["orig_len"]),
            "drop_reason": self._reason(fixed["reason"]).to_arrow(),
            "drop_location": named(fixed["location"], self._symbols).to_arrow(),
            "kernel_stack": named(fixed["stack"], self._stacks).to_arrow(),
        }
        return pa.table(own)

    def _reason(self, numbers: np.ndarray) -> pl.Series:
        """Names; a number beyond those that the kernel has told has its subsystem's, and itself."""
        if not self._reasons:
            return pl.Series([None] * len(numbers), dtype=pl.String)
        names = {}
        for number in np.unique(numbers).tolist():
            group = self._reasons.get(number & ~0xFFFF) if number > 0xFFFF else None
            other = f"{group}_{number & 0xFFFF}" if group else f"REASON_{number}"
            names[number] = self._reasons.get(number, other)
        return named(numbers, names)
