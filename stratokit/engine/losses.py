"""What a capture lost, cut or rejected, in one row a counter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.frames import collect
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_UNDECODED = "packet_undecoded"
_FRAGMENTS = "fragment_alone"


def loss_totals(capture: Capture) -> pl.DataFrame:
    """Counters above zero, losses first: counter, amount, is_loss, meaning, first_ts, last_ts."""
    whole = capture.whole
    start = pl.col("ts") - pl.duration(nanoseconds=pl.col("span_ns").fill_null(0).cast(pl.Int64))
    totals = collect(
        whole.table("losses")
        .group_by("counter", "is_loss", "meaning")
        .agg(pl.col("amount").sum(), start.min().alias("first_ts"), pl.col("ts").max().alias("last_ts"))
        .filter(pl.col("amount") > 0)
    )
    for found in (_undecoded(whole), _fragments(whole)):
        if not set(found["counter"]) & set(totals["counter"]):
            totals = pl.concat([totals, found.select(totals.columns)], how="vertical_relaxed")
    totals = pl.concat([totals, _of_passes(whole).select(totals.columns)], how="vertical_relaxed")
    order = ("counter", "amount", "is_loss", "meaning", "first_ts", "last_ts")
    return totals.select(order).sort(["is_loss", "counter"], descending=[True, False])


def _of_passes(capture: Capture) -> pl.DataFrame:
    """What the parsers of streams skipped, in the tables that were built so far; it has no place in time."""
    found = [
        (name, amount, counter.loss, counter.doc)
        for name, amount in capture.passes.counters.items()
        if amount and (counter := load.counters().get(name))
    ]
    schema = {"counter": pl.String, "amount": pl.UInt64, "is_loss": pl.Boolean, "meaning": pl.String}
    never = pl.lit(None, pl.Datetime("ns", "UTC"))
    return pl.DataFrame(found, schema=schema, orient="row").with_columns(first_ts=never, last_ts=never)


def _undecoded(capture: Capture) -> pl.DataFrame:
    """Counted while reading; a local packet seen twice counts once. A fragment is judged with its packet."""
    stopped = capture.rows("packet").filter(
        pl.col("stop_layer").is_not_null(), pl.col("stop_reason") != "fragment"
    )
    return _counted(stopped, _UNDECODED, pl.col("frame").n_unique())


def _fragments(capture: Capture) -> pl.DataFrame:
    """Counted while reading: fragments, without those that packets were put together from."""
    fragments = capture.rows("packet").filter(pl.col("fragment_id").is_not_null())
    used = pl.col("datagram_fragments").cast(pl.Int64).sum()
    return _counted(fragments, _FRAGMENTS, (pl.len().cast(pl.Int64) - used).clip(0))


def _counted(rows: pl.LazyFrame, name: str, amount: pl.Expr) -> pl.DataFrame:
    """One row where `amount` of `rows` is above zero, otherwise none."""
    counter = load.counters()[name]
    return collect(
        rows.select(
            pl.lit(counter.name).alias("counter"),
            amount.cast(pl.UInt64).alias("amount"),
            pl.lit(counter.loss).alias("is_loss"),
            pl.lit(counter.doc).alias("meaning"),
            pl.col("ts").min().alias("first_ts"),
            pl.col("ts").max().alias("last_ts"),
        ).filter(pl.col("amount") > 0)
    )
