"""What TCP analysis found about each packet, as columns of `packets` that only a query pays that names them.

They are looked up in the table `segments` by frame and direction. All of a capture's segments are judged for
that, once, whatever part of the packets is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.filters.catalogue import FieldSpec
from stratokit.schema.model import Column
from stratokit.streams.source import deferred
from stratokit.streams.tcp_flags import FLAG_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stratokit.engine.capture import Capture

COLUMNS = (
    Column(
        "tcp_analysis", "u32", "What was found about a TCP segment, as bits; rules and bits: docs/tcp.md."
    ),
)
# By name of the column here, that of `segments`.
_FOUND = {
    "tcp_analysis": ("tcp_analysis", pl.UInt32),
    "tcp_ack_rtt_ns": ("ack_rtt_ns", pl.Int64),
    "tcp_bytes_in_flight": ("bytes_in_flight", pl.UInt64),
    "tcp_duplicate_ack_num": ("duplicate_ack_num", pl.UInt32),
}
_KEY = "segment:key"  # no column of a table has a colon
_BITS = pl.col("tcp_analysis")


def any_flag(bits: pl.Expr) -> FieldSpec:
    """As in Wireshark, there only where something was found."""
    doc = "What was found about a segment, as bits."
    return FieldSpec("tcp.analysis.flags", "number", (pl.when(bits != 0).then(bits),), doc)


def _flag(bit: int, name: str) -> FieldSpec:
    found = pl.when(_BITS & (1 << bit) != 0).then(statement=True)
    return FieldSpec(f"tcp.analysis.{name}", "bool", (found,), f"{name.replace('_', ' ')}.")


def _value(name: str, type_: str, column: str, doc: str) -> FieldSpec:
    return FieldSpec(f"tcp.analysis.{name}", type_, (pl.col(column),), doc)


FIELDS = (
    any_flag(_BITS),
    *(_flag(bit, name) for bit, name in enumerate(FLAG_NAMES)),
    _value("ack_rtt", "duration", "tcp_ack_rtt_ns", "From a segment to its acknowledgment."),
    _value("bytes_in_flight", "number", "tcp_bytes_in_flight", "Bytes not yet acknowledged."),
    _value("duplicate_ack_num", "number", "tcp_duplicate_ack_num", "Number of a duplicate ACK."),
)


def _key() -> pl.Expr:
    """One number for frame and direction: one column is joined by faster than two."""
    seen = (
        pl.when(pl.col("direction").is_null()).then(0).when(pl.col("direction") == "out").then(1).otherwise(2)
    )
    return pl.col("frame") * 3 + seen.cast(pl.UInt64)


def findings(capture: Capture) -> pl.LazyFrame:
    """What was found about each of a capture's segments, made once: _KEY and the columns of _FOUND."""
    columns = (pl.col(name).cast(dtype).alias(column) for column, (name, dtype) in _FOUND.items())
    segments = capture.whole.built("segments").select("frame", "direction", *columns)
    found = segments.select(*_FOUND, _key().alias(_KEY))
    return deferred(pl.Schema({_KEY: pl.UInt64} | {c: d for c, (_, d) in _FOUND.items()}), found.collect)


def with_analysis(rows: pl.LazyFrame, capture: Capture, names: Iterable[str]) -> pl.LazyFrame:
    """Rows of packets with those of `names` that are found about segments.

    They are joined, so that a filter by other columns still goes into the scan.
    """
    wanted = [name for name in _FOUND if name in names and name not in rows.collect_schema()]
    if not wanted:
        return rows
    found = capture.whole.kept("segments:packets", findings)
    joined = rows.with_columns(_key().alias(_KEY)).join(
        found.select(_KEY, *wanted), on=_KEY, how="left", maintain_order="left"
    )
    return joined.drop(_KEY)
