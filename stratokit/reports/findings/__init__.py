"""Findings: what is wrong, in a sentence. A module of this folder with a `RULE` is one: no list to keep."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.base import Options, Report
from stratokit.reports.findings.base import COLUMNS, Rule, with_confidence

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


@functools.cache
def rules() -> dict[str, Rule]:
    """All rules by name."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        rule = getattr(importlib.import_module(f"{__name__}.{info.name}"), "RULE", None)
        if isinstance(rule, Rule):
            found[rule.name] = rule
    return found


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a finding, the surest first, then those with most evidence."""
    parts = [
        rule.find(capture).with_columns(pl.lit(name).alias("rule"))
        for name, rule in rules().items()
        if all(capture.recorded(table) and capture.applies(table) for table in rule.needs)
    ]
    if not parts:
        return pl.LazyFrame(schema=dict.fromkeys((c.name for c in COLUMNS), pl.Null))
    found = with_confidence(pl.concat(parts).collect(), capture)
    return found.lazy().sort(
        "confidence", "count", "rule", "whom", descending=[True, True, False, False], maintain_order=True
    )


REPORT = Report(
    name="findings",
    title="Findings",
    doc="What is wrong, for whom and since when; `filter` selects the evidence in `table`.",
    place=5,
    needs=("flows", "syscalls", "http", "dns"),
    columns=COLUMNS,
    build=build,
    narrow=("finding", "since", "confidence", "table", "filter"),
    prose=True,
    uses=lambda: [table for rule in rules().values() for table in rule.needs],
)
