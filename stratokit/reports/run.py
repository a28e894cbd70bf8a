"""All sections of a report from one capture."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl

from stratokit.engine.capture import Capture
from stratokit.engine.frames import collect, polars_schema
from stratokit.engine.losses import loss_totals
from stratokit.engine.tables import entries
from stratokit.errors import UsageError
from stratokit.protocols.over_tcp import parsers
from stratokit.reports.base import Options, Report, reports
from stratokit.streams.memory import give_back

# Of larger captures tables and sections are made one after the other: what two need at once is more memory.
_TOGETHER_PACKETS = 1 << 21


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
    usual = [r.name for r in reports().values() if not r.extra or (r.picture and options.pictures)]
    wanted = [report for name, report in reports().items() if name in (only or usual)]
    facts = capture.info()
    if capture.filter_text:
        facts["where"] = capture.filter_text
    is_large = not capture.whole.has_at_most(_TOGETHER_PACKETS)
    threads = 1 if is_large else len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads, thread_name_prefix="stratokit-report") as pool:
        sections = _together(capture, wanted, options, pool, is_large)
    return Result(facts, loss_totals(capture), all(file.is_recording for file in capture.files), sections)


def _together(
    capture: Capture, wanted: list[Report], options: Options, pool: ThreadPoolExecutor, is_large: bool
) -> list[Section]:
    """Several sections at a time, after the derived tables, for which several of them ask.

    These are small beside the packets they come from. Those that are made of others come last, and beside
    them sections that need none.
    """
    derived = {n for n, e in entries().items() if e.kind == "packet" and e.is_derived}
    asked = {report.name: {*report.needs, *report.uses()} for report in wanted}
    needed = derived & set().union(*asked.values()) if capture.recorded("packets") else set()
    joined = [n for n in needed if entries()[n].table.costly and not entries()[n].from_payload]
    in_streams = {table for parser in parsers() for table in parser.tables}
    first = [n for n in entries() if n in needed and n not in joined]
    groups = [[n for n in first if n in in_streams], *([n] for n in first if n not in in_streams)]
    keep = functools.partial(_keep_alone, capture) if is_large else capture.whole.keep
    for made in [pool.submit(keep, names) for names in groups]:
        made.result()
    last = pool.submit(keep, joined)
    alone = [report for report in wanted if not needed & asked[report.name]]
    pending = {report.name: pool.submit(section, capture, report, options) for report in alone}
    last.result()
    rest = [report for report in wanted if report.name not in pending]
    pending |= {report.name: pool.submit(section, capture, report, options) for report in rest}
    return [pending[report.name].result() for report in wanted]


def _keep_alone(capture: Capture, names: list[str]) -> None:
    """Make tables of a large capture, and keep nothing that only made them."""
    capture.whole.keep(names)
    if capture.filter_text is None:  # a filter asks for it again
        capture.whole.passes.forget()
    give_back()


def section(capture: Capture, report: Report, options: Options) -> Section:
    """One section, or the reason why there is none."""
    there = [name for name in report.needs if capture.recorded(name)]
    if report.needs and not there:
        absent = " and no ".join(report.needs)
        return Section(report, None, note=f"not recorded: this capture has no {absent}")
    if there and not any(capture.applies(name) for name in there):
        return Section(report, None, note=f"the filter says nothing about {' and '.join(there)}")
    frame = collect(report.build(capture, options))
    declared = polars_schema(report.columns)
    if frame.schema != declared:
        frame = frame.select(pl.col(name).cast(dtype) for name, dtype in declared.items())
    limit = None if report.picture and options.pictures else options.limit
    return Section(report, frame.head(limit) if limit else frame, frame.height)
