"""Sockets by process: what its calls sent to whom and received, how long that took, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.frames import collect
from stratokit.reports import io_calls
from stratokit.reports.base import Options, Report
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_OWN = ("comm", "fd_name", "dst_ip", "src_port", "dst_port")
_ENDS = (r"->\[?([0-9a-fA-F.:]+?)\]?:\d+$", r":(\d+)->", r"->.*:(\d+)$")


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a process name, peer and port, most time first."""
    calls = capture.table("syscalls").filter(pl.col("fd_kind") == "socket").select(*io_calls.USED, *_OWN)
    rows = collect(calls)
    # Most calls name their socket only by both ends, 10.0.0.1:40001->10.0.0.2:80, and each end many times.
    peer, own_port, peer_port = (pl.col("fd_name").str.extract(pattern) for pattern in _ENDS)
    lower = pl.min_horizontal(own_port.cast(pl.UInt16), peer_port.cast(pl.UInt16))
    ends = rows.select("fd_name").unique().with_columns(named_peer=peer, named_port=lower)
    rows = rows.join(ends, on="fd_name", how="left", nulls_equal=True)
    key = {
        "comm": pl.col("comm"),
        "peer": pl.coalesce("dst_ip", "named_peer", "fd_name"),
        "port": pl.coalesce(pl.min_horizontal("src_port", "dst_port"), "named_port"),
    }
    return io_calls.totals(rows.lazy(), key)


REPORT = Report(
    name="socket_io",
    title="Sockets",
    doc="Calls on sockets by process name and peer, most time first; calls that wait for data among them.",
    place=84,
    needs=("syscalls",),
    columns=(
        Column("comm", "name", "Process name."),
        Column("peer", "text", "Address of the other side, or the socket's name; empty where none is known."),
        Column("port", "u16", "The lower port of both sides: most often the server's."),
        *io_calls.COLUMNS,
    ),
    build=build,
    narrow=("comm", "peer", "port", "calls", "errors", "read_bytes", "written_bytes", "total_ns", "max_ns"),
)
