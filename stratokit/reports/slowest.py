"""The slowest requests, each with the parts of its time and the packets that show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.latency.table import PARTS, TABLE
from stratokit.reports.base import Options, Report
from stratokit.reports.latency import WORDS
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_ROWS = 100
_TABLE = {column.name: column for column in TABLE.columns}
_SHOWN = (
    "kind what total_ns mostly outcome comm server_comm "
    f"{' '.join(PARTS)} rest_ns upstream_ns server_ns ts flow_id stream_id request_frame response_frame"
)


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """At most 100 rows, the slowest first."""
    parts = (*PARTS, "rest_ns")
    longest = pl.max_horizontal(parts)
    word = pl.coalesce(
        pl.when((pl.col(part) == longest) & (longest > 0)).then(pl.lit(WORDS[part])) for part in parts
    )
    share = (longest * 100 / pl.col("total_ns")).round(0).cast(pl.Int64)
    return (
        capture.table("latency")
        .filter(pl.col("total_ns") > 0)
        .sort("total_ns", "ts", descending=[True, False])
        .head(_ROWS)
        .with_columns(mostly=pl.format("{} {} %", word, share))
        .select(column.name for column in _COLUMNS)
    )


_MOSTLY = Column("mostly", "text", "The part that took longest, and its share.")
_COLUMNS = tuple(_MOSTLY if name == "mostly" else _TABLE[name] for name in _SHOWN.split())

REPORT = Report(
    name="slowest",
    title="Slowest requests",
    doc="At most 100, with the parts of their time; of packets and conversations the numbers.",
    place=72,
    needs=("latency",),
    columns=_COLUMNS,
    build=build,
    narrow=("kind", "what", "total_ns", "mostly", "outcome", "request_frame", "response_frame"),
)
