"""What a report is. A module of this folder that ends with `REPORT = Report(...)` is one: no list to keep."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import polars as pl

from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What the reader wants: at most `limit` rows a section, None for all; `pictures`: what is only drawn."""

    limit: int | None = None
    pictures: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A section: `build` turns tables into a frame with exactly `columns`, and knows no output medium.

    `needs` are tables of which there has to be one to say anything, `uses` names others. `place` orders the
    sections. `narrow` are the columns that matter most, for a reader with little room; empty for all. `prose`
    says that the first of these holds sentences, which a terminal shows in full with the others below.
    `extra` ones come only where they are named, or, where they are a `picture`, where something can be drawn.
    """

    name: str
    title: str
    doc: str
    place: int
    needs: tuple[str, ...]
    columns: tuple[Column, ...]
    build: Callable[[Capture, Options], pl.LazyFrame]
    narrow: tuple[str, ...] = ()
    prose: bool = False
    uses: Callable[[], Iterable[str]] = tuple
    extra: bool = False
    picture: bool = False


@functools.cache
def reports() -> dict[str, Report]:
    """All reports by name, in order."""
    package = importlib.import_module("stratokit.reports")
    found = []
    for module_info in pkgutil.iter_modules(package.__path__):
        report = getattr(importlib.import_module(f"stratokit.reports.{module_info.name}"), "REPORT", None)
        if isinstance(report, Report):
            found.append(report)
    return {report.name: report for report in sorted(found, key=lambda report: (report.place, report.name))}


SPREAD = (
    Column("p50_ns", "s64", "Half took at most this long.", "ns"),
    Column("p90_ns", "s64", "Nine of ten took at most this long.", "ns"),
    Column("p99_ns", "s64", "99 of 100 took at most this long.", "ns"),
    Column("max_ns", "s64", "The longest.", "ns"),
)


SHARES = {"p50_ns": 0.5, "p90_ns": 0.9, "p99_ns": 0.99}


def spread(duration: pl.Expr) -> list[pl.Expr]:
    """Values of the SPREAD columns; every one is a duration that occurred, none is interpolated."""
    return [
        *(duration.quantile(q, "equiprobable").cast(pl.Int64).alias(name) for name, q in SHARES.items()),
        duration.max().cast(pl.Int64).alias("max_ns"),
    ]


def count(condition: pl.Expr) -> pl.Expr:
    """How many rows fulfil it."""
    return condition.sum().cast(pl.UInt64)
