"""What a capture lost, cut or rejected, in one row a counter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.frames import collect
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


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
    read = _read(whole).filter(~pl.col("counter").is_in(totals["counter"].implode()))
    totals = pl.concat([totals, read.select(totals.columns)], how="vertical_relaxed")
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


def _read(capture: Capture) -> pl.DataFrame:
    """What is only counted while packets are read, in one pass: those that could not be decoded, each local
    one that was seen twice once, and fragments without those that packets were put together from. A fragment
    is judged with its packet.
    """
    stopped = pl.col("stop_layer").is_not_null() & (pl.col("stop_reason") != "fragment")
    fragment = pl.col("fragment_id").is_not_null()
    used = pl.col("datagram_fragments").filter(fragment).cast(pl.Int64).sum()
    found = {
        "packet_undecoded": (stopped, pl.col("frame").filter(stopped).n_unique()),
        "fragment_alone": (fragment, (fragment.sum().cast(pl.Int64) - used).clip(0)),
    }
    row = collect(
        capture.rows("packet")
        .filter(stopped | fragment)
        .select(
            expr.alias(f"{name}:{what}")
            for name, (which, amount) in found.items()
            for what, expr in (
                ("amount", amount.cast(pl.UInt64)),
                ("first_ts", pl.col("ts").filter(which).min()),
                ("last_ts", pl.col("ts").filter(which).max()),
            )
        )
    )
    parts = []
    for name in found:
        counter = load.counters()[name]
        parts.append(
            row.select(
                pl.lit(name).alias("counter"),
                pl.lit(counter.loss).alias("is_loss"),
                pl.lit(counter.doc).alias("meaning"),
                *(pl.col(f"{name}:{what}").alias(what) for what in ("amount", "first_ts", "last_ts")),
            )
        )
    return pl.concat(parts).filter(pl.col("amount") > 0)
