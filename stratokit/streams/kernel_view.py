"""What the kernel itself measured of a connection, from the socket rows of a recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.schema.model import Column
from stratokit.streams.sides import CLIENT, SERVER

if TYPE_CHECKING:
    from stratokit.streams.connections import Connections
    from stratokit.streams.source import PacketSource

KERNEL_COLUMNS = (
    Column(
        "kernel_srtt_ns",
        "s64",
        "The kernel's own smoothed round trip, last one; the client's, else the server's.",
        "ns",
    ),
    Column(
        "kernel_retransmits", "u32", "Segments that the kernel counted as sent again, of all recorded ends."
    ),
    Column("kernel_retransmits_c2s", "u32", "Those of the client's socket; null unless recorded there."),
    Column("kernel_retransmits_s2c", "u32", "Those of the server's socket; null unless recorded there."),
)


def _measured(capture: PacketSource) -> pl.DataFrame:
    """Per socket: last round trip, highest count of retransmissions."""
    return (
        capture.rows("socket")
        .filter(pl.col("socket_cookie").is_not_null())
        .group_by("socket_cookie")
        .agg(
            srtt=pl.col("rtt_ns").sort_by("ts").drop_nulls().last().cast(pl.Int64),
            retransmits=pl.col("retransmits").max().cast(pl.UInt32),
        )
        .collect()
    )


def with_kernel(rows: pl.DataFrame, found: Connections, capture: PacketSource) -> pl.DataFrame:
    """Rows of `tcp` with KERNEL_COLUMNS: null unless one of their sockets was recorded."""
    measured = _measured(capture)
    if measured.is_empty():
        return rows.with_columns(
            pl.lit(None, pl.Int64 if column.type == "s64" else pl.UInt32).alias(column.name)
            for column in KERNEL_COLUMNS
        )
    sockets = pl.DataFrame(
        {"flow_id": found.flow_id.astype(np.uint64), "view": found.view, "socket_cookie": found.socket}
    ).join(measured, on="socket_cookie")
    for view, way in ((CLIENT, "c2s"), (SERVER, "s2c")):
        end = (
            sockets.filter(pl.col("view") == view)
            .select("flow_id", "srtt", "retransmits")
            .rename({"srtt": f"srtt_{way}", "retransmits": f"kernel_retransmits_{way}"})
        )
        rows = rows.join(end, on="flow_id", how="left", maintain_order="left")
    c2s, s2c = pl.col("kernel_retransmits_c2s"), pl.col("kernel_retransmits_s2c")
    return rows.with_columns(
        kernel_srtt_ns=pl.coalesce("srtt_c2s", "srtt_s2c"),
        kernel_retransmits=pl.when(c2s.is_null() & s2c.is_null())
        .then(None)
        .otherwise(c2s.fill_null(0) + s2c.fill_null(0)),
    )
