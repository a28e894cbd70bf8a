"""What TCP analysis found about each packet, as columns of `packets` that only a query pays that names them.

They are looked up in the table `segments` by frame and direction. All of a capture's segments are judged for
that, once, whatever part of the packets is asked for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import polars as pl

from stratokit.filters.catalogue import FieldSpec
from stratokit.schema.model import Column
from stratokit.streams.tcp_flags import FLAG_NAMES

if TYPE_CHECKING:
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
_KEY = ("frame", "direction")
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


class _Found:
    """Findings of a capture's segments, made when the first of them is looked up."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._lock = threading.Lock()
        self._rows: pl.DataFrame | None = None

    def _segments(self) -> pl.DataFrame:
        with self._lock:
            if self._rows is None:
                own = pl.col("view") == pl.when("from_client").then(pl.lit("client")).otherwise(
                    pl.lit("server")
                )
                direction = pl.when(own).then(pl.lit("out")).when(pl.col("view") != "wire").then(pl.lit("in"))
                columns = (pl.col(name).alias(column) for column, (name, _) in _FOUND.items())
                segments = self._capture.whole.built("segments")
                self._rows = segments.select("frame", *columns, direction=direction).collect()
            return self._rows

    def of(self, keys: pl.Series) -> pl.Series:
        """Structs of what was found, for structs of frame and direction."""
        found = keys.struct.unnest().join(
            self._segments(), on=_KEY, how="left", maintain_order="left", nulls_equal=True
        )
        return found.select(pl.struct(*_FOUND)).to_series()


NAMES = frozenset(field.name for field in FIELDS)


def with_analysis(rows: pl.LazyFrame, capture: Capture) -> pl.LazyFrame:
    """Rows of packets with what was found about them, unless they have it.

    Filters on other columns belong in front of it: polars takes none past it into the scan.
    """
    if COLUMNS[0].name in rows.collect_schema():
        return rows
    dtype = pl.Struct({column: dtype for column, (_, dtype) in _FOUND.items()})
    # Not told to be elementwise: a filter on it would go into the scan, which waits for other scans here.
    found = pl.struct(*_KEY).map_batches(_Found(capture).of, return_dtype=dtype)
    return rows.with_columns(found.struct.field(column).alias(column) for column in _FOUND)
