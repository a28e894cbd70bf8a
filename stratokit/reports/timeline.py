"""How long each layer kept its user waiting, span of time by span of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.tables import entries
from stratokit.reports import latency
from stratokit.reports.base import Options, Report, count
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_BEGINS = {"dns": "ts_query", "tcp": "syn_ts", "tls": "ts", "http": "ts_request"}
_BUCKETS = 60  # at most; spans are 1, 2 or 5 of a power of ten long
_LEAST_NS = 1_000_000


def span_ns(whole_ns: int) -> int:
    """Length of a span for a capture that lasts so long.

    >>> span_ns(60_000_000_000), span_ns(3_600_000_000_000), span_ns(0)
    (1000000000, 100000000000, 1000000)
    """
    size = _LEAST_NS
    for step in (2, 2.5, 2) * 16:
        if size * _BUCKETS >= whole_ns:
            break
        size = int(size * step)
    return size


def begun(capture: Capture) -> pl.DataFrame:
    """Everything that was waited for: `waiting_for`, `ts` of its beginning, `waited_ns`, `failed`."""
    steps = []
    for title, table, duration, failed in latency.STEPS:
        if table in entries():
            rows = capture.table(table).select(
                pl.lit(title).alias("waiting_for"),
                pl.col(_BEGINS[table]).alias("ts"),
                pl.col(duration).alias("waited_ns"),
                failed.alias("failed"),
            )
            steps.append(rows.drop_nulls("ts").collect())
    return pl.concat(steps)


def span_of(ts: pl.Series) -> pl.Expr:
    """The beginning of the span that a time lies in, for spans that divide all of these times."""
    times = ts.to_physical()
    span = span_ns(int(times.max()) - int(times.min()))  # type: ignore[arg-type]
    return pl.col("ts").dt.truncate(f"{span}ns")


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row for each layer and span in which it began something."""
    found = begun(capture)
    if found.is_empty():
        return found.lazy().select(
            "waiting_for", "ts", count=pl.lit(0), errors=0, p50_ns=0, p99_ns=0, max_ns=0
        )
    waited = pl.col("waited_ns")
    order = pl.col("waiting_for").replace_strict({title: k for k, (title, *_) in enumerate(latency.STEPS)})
    return (
        found.lazy()
        .group_by("waiting_for", span_of(found["ts"]))
        .agg(
            pl.len().cast(pl.UInt64).alias("count"),
            count(pl.col("failed")).alias("errors"),
            waited.quantile(0.5, "equiprobable").cast(pl.Int64).alias("p50_ns"),
            waited.quantile(0.99, "equiprobable").cast(pl.Int64).alias("p99_ns"),
            waited.max().cast(pl.Int64).alias("max_ns"),
        )
        .sort(order, "ts")
    )


REPORT = Report(
    name="timeline",
    title="Latency over time",
    doc="How long each layer kept its user waiting, by the time at which it began.",
    place=71,
    needs=("dns", "tcp", "http", "tls"),
    columns=(
        Column("waiting_for", "text", "What was waited for."),
        Column("ts", "time", "Begin of the span."),
        Column("count", "u64", "How often it began in the span."),
        Column("errors", "u64", "How often in vain."),
        Column("p50_ns", "s64", "Half took at most this long.", "ns"),
        Column("p99_ns", "s64", "99 of 100 took at most this long.", "ns"),
        Column("max_ns", "s64", "The longest.", "ns"),
    ),
    build=build,
)
