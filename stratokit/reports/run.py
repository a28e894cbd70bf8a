"""All sections of a report from one capture."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import polars as pl

from stratokit.engine.capture import Capture
from stratokit.engine.frames import collect, polars_schema
from stratokit.engine.losses import loss_totals
from stratokit.engine.tables import entries
from stratokit.errors import UsageError
from stratokit.reports.base import Options, Report, reports


@dataclasses.dataclass(frozen=True)
class Section:
    """`frame` is None where the capture cannot answer: `note` says why. `total` is before the limit."""

    report: Report
    frame: pl.DataFrame | None
    total: int = 0
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """A whole report: facts of the capture, what was lost, sections in order."""

    facts: dict[str, Any]
    losses: pl.DataFrame
    counts_losses: bool
    sections: list[Section]


def run(capture: Capture, only: Collection[str] = (), options: Options | None = None) -> Result:
    """Build the sections named by `only`, all but the extra ones when it is empty."""
    unknown = [name for name in only if name not in reports()]
    if unknown:
        raise UsageError(f"there is no section {unknown[0]!r}; there are {', '.join(reports())}")
    options = options or Options()
    wanted = [report for name, report in reports().items() if (name in only if only else not report.extra)]
    # Derived tables are small beside the packets they come from, and several sections ask for each.
    needed = {name for report in wanted for name in (*report.needs, *report.uses())}
    derived = [n for n, entry in entries().items() if entry.kind == "packet" and n != "packets"]
    if capture.recorded("packets"):
        capture.whole.keep(name for name in derived if name in needed)
    facts = capture.info()
    if capture.filter_text:
        facts["where"] = capture.filter_text
    return Result(
        facts,
        loss_totals(capture),
        all(file.is_recording for file in capture.files),
        [section(capture, report, options) for report in wanted],
    )


def section(capture: Capture, report: Report, options: Options) -> Section:
    """One section, or the reason why there is none."""
    absent = [name for name in report.needs if not capture.recorded(name)]
    if absent:
        return Section(report, None, note=f"not recorded: this capture has no {' and no '.join(absent)}")
    untouched = [name for name in report.needs if not capture.applies(name)]
    if untouched:
        return Section(report, None, note=f"the filter says nothing about {' and '.join(untouched)}")
    frame = collect(report.build(capture, options))
    declared = polars_schema(report.columns)
    if frame.schema != declared:
        frame = frame.select(pl.col(name).cast(dtype) for name, dtype in declared.items())
    return Section(report, frame.head(options.limit) if options.limit else frame, frame.height)
