"""What a rule is, and how its rows become findings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import polars as pl

from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

COLUMNS = (
    Column("finding", "text", "What is wrong."),
    Column("since", "time", "When it was first seen."),
    Column("until", "time", "When it was last seen."),
    Column("whom", "text", "Who is concerned."),
    Column("count", "u64", "How often it was seen."),
    Column("of", "u64", "How often it could have been seen."),
    Column("confidence", "f64", "How sure this is, up to 1; few observations and losses nearby lower it."),
    Column("table", "text", "Table with the evidence."),
    Column("filter", "text", "Filter that selects the evidence there."),
    Column("frames", "text", "Packets of the first of it."),
    Column("rule", "text", "Rule that found it."),
)
_FRAMES = 5
_NEAR_NS = 1_000_000_000
_NEAR_LOSS = 0.7


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """`find` gives COLUMNS without confidence and rule; `needs` are the tables that it looks at."""

    name: str
    doc: str
    needs: tuple[str, ...]
    find: Callable[[Capture], pl.LazyFrame]


def evidence(is_it: pl.Expr, ts: str, frame: str | None = None) -> list[pl.Expr]:
    """Aggregates of a group that every rule gives: since, until, count, of, frames."""
    frames: pl.Expr = pl.lit(None, pl.String)
    if frame is not None:
        first = pl.col(frame).filter(is_it).drop_nulls().sort().head(_FRAMES)
        frames = first.cast(pl.String).str.join(", ")
    return [
        pl.col(ts).filter(is_it).min().alias("since"),
        pl.col(ts).filter(is_it).max().alias("until"),
        is_it.sum().cast(pl.UInt64).alias("count"),
        pl.len().cast(pl.UInt64).alias("of"),
        frames.alias("frames"),
    ]


def folded(client: str, by: tuple[str, ...], is_one: pl.Expr) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """One row where several clients have the same trouble, for use with `pipe` on rows by `client` and `by`.

    Rows that are `is_one` count. Of a single one the figures stay; of several they become those of all
    clients, so that a filter without the client selects the evidence. `clients` says how many there are,
    and `client` is the one with most.
    """
    sums = [pl.col("count").sum(), pl.col("of").sum(), pl.col("since").min(), pl.col("until").max()]
    totals = pl.struct(*sums).over(by) if by else pl.struct(*sums)

    def fold(rows: pl.LazyFrame) -> pl.LazyFrame:
        clients = is_one.sum().over(by) if by else is_one.sum()
        rows = rows.with_columns(clients=clients, totals=totals).filter(is_one)
        rows = rows.sort("count", client, descending=[True, False])
        rows = rows.unique(by, keep="first", maintain_order=True) if by else rows.head(1)
        several = pl.col("clients") > 1
        return rows.with_columns(
            pl.when(several).then(pl.col("totals").struct.field(name)).otherwise(name).alias(name)
            for name in ("count", "of", "since", "until")
        )

    return fold


def finding(table: str, whom: pl.Expr, sentence: pl.Expr, filter_: pl.Expr) -> list[pl.Expr]:
    """The columns of a finding, from the aggregates of `evidence`."""
    return [
        sentence.alias("finding"),
        pl.col("since", "until"),
        whom.cast(pl.String).alias("whom"),
        pl.col("count", "of"),
        pl.lit(table).alias("table"),
        filter_.alias("filter"),
        pl.col("frames"),
    ]


def side(name: str, ip: str) -> pl.Expr:
    """`ip.src` or `ipv6.src`, as the address is."""
    is_v6 = pl.col(ip).str.contains(":", literal=True)
    return pl.when(is_v6).then(pl.lit(f"ipv6.{name}")).otherwise(pl.lit(f"ip.{name}"))


def address(ip: str) -> pl.Expr:
    """`ip.addr == 10.0.0.1`, of either family."""
    return pl.format("{} == {}", side("addr", ip), ip)


def endpoint(ip: str, port: str) -> pl.Expr:
    """10.0.0.1:80 or [::1]:80."""
    is_v6 = pl.col(ip).str.contains(":", literal=True)
    return pl.when(is_v6).then(pl.format("[{}]:{}", ip, port)).otherwise(pl.format("{}:{}", ip, port))


def counted(column: str, noun: str) -> pl.Expr:
    """1 connection, 2 connections."""
    return (
        pl.when(pl.col(column) == 1).then(pl.lit(f"1 {noun}")).otherwise(pl.format(f"{{}} {noun}s", column))
    )


def quoted(column: str) -> pl.Expr:
    """A text as a filter writes it."""
    escaped = (
        pl.col(column).str.replace_all("\\", "\\\\", literal=True).str.replace_all('"', '\\"', literal=True)
    )
    return pl.format('"{}"', escaped)


def with_confidence(found: pl.DataFrame, capture: Capture) -> pl.DataFrame:
    """n observations give n / (n + 1) for small n; a loss within a second lowers that."""
    count = pl.col("count").cast(pl.Float64)
    found = found.with_columns(confidence=count / (count + 1))
    if not capture.recorded("losses"):
        return found
    losses = (
        capture.whole.table("losses")
        .filter("is_loss", pl.col("amount") > 0)
        .select("ts", "span_ns")
        .collect()
    )
    if losses.is_empty():
        return found
    end = losses["ts"].to_physical()
    begin = end - losses["span_ns"].fill_null(0).cast(pl.Int64)
    near = [
        bool(((begin <= until + _NEAR_NS) & (end >= since - _NEAR_NS)).any())
        for since, until in found.select(pl.col("since", "until").to_physical()).iter_rows()
    ]
    lowered = pl.when(pl.Series(near, dtype=pl.Boolean)).then(_NEAR_LOSS).otherwise(1.0)
    return found.with_columns(pl.col("confidence") * lowered)
