"""Reports and tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stratokit.render import units
from stratokit.render.cells import Cells, cells, fitted, least_width, plain_cells
from stratokit.reports.run import Result, Section
from stratokit.schema import load
from stratokit.schema.model import Column

# A text column is worth showing when this much of it fits.
_LEAST_TEXT = 16
_NARROW = 120
# Files that another program wrote may have lost anything without a word.
_SILENT = "This file does not say whether anything was lost before it was written."


def print_report(result: Result, console: Console) -> None:
    """The whole report: facts, sections, and what was lost."""
    print_facts(result.facts, console)
    for section in result.sections:
        console.print()
        _print_section(section, console)
    console.print()
    print_losses(result.losses, result.counts_losses, console)


def print_facts(facts: dict[str, Any], console: Console) -> None:
    """Where, when and how much: a few lines."""
    for name, value in fact_lines(facts):
        console.print(Text.assemble((f"{name:<8}", "bold"), units.clean(value)), soft_wrap=name == "file")


def fact_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts of a capture as (name, text), those that are known."""
    lines = [("file", f"{f['path']} ({f['format']}, {units.size(f['size_bytes'])})") for f in facts["files"]]
    host = facts["host"]
    if host:
        known = (host.get("hostname"), host.get("os"), f"kernel {host.get('kernel')}", host.get("machine"))
        lines.append(("host", ", ".join(str(fact) for fact in known if fact)))
    if facts["first_ts"] is not None:
        lines.append(("from", f"{units.moment(facts['first_ts'])} UTC"))
        lines.append(("to", f"{units.moment(facts['last_ts'])} UTC, {units.duration(facts['duration_ns'])}"))
    rows = ", ".join(f"{units.number(count)} {kind}" for kind, count in facts["rows"].items())
    lines.append(("rows", rows or "none"))
    if facts.get("where"):
        lines.append(("where", facts["where"]))
    return lines


def _print_section(section: Section, console: Console) -> None:
    report = section.report
    console.print(Text.assemble((report.title, "bold cyan"), "  ", (report.doc, "dim")))
    if section.frame is None:
        console.print(f"  {section.note}")
        return
    if section.frame.is_empty():
        console.print("  nothing of this kind in the capture")
        return
    shown = _that_fit(section.frame, report.columns, report.narrow, console.width)
    console.print(_table(shown))
    if section.total > section.frame.height:
        console.print(
            f"  {section.frame.height} of {units.number(section.total)} shown; --limit 0 shows all",
            style="dim",
        )


def _that_fit(
    frame: pl.DataFrame, columns: Sequence[Column], narrow: tuple[str, ...], width: int
) -> list[Cells]:
    """All columns where there is room for them, else those that matter most."""
    whole = cells(frame, columns)
    if narrow and sum(c.width for c in whole) + 2 * (len(whole) - 1) > width:
        whole = cells(frame, [column for column in columns if column.name in narrow])
    while len(whole) > 1 and least_width(whole) > width:
        whole.pop()
    return fitted(whole, width)


def print_table(frame: pl.DataFrame, columns: Iterable[Column], console: Console) -> None:
    """Rows of one table, every column that has a value; a long row wraps nowhere, it is cut."""
    found = plain_cells(frame, columns, console.width < _NARROW)
    room = console.width
    shown: list[Cells] = []
    for column in found:
        # Columns are in order of importance: what no longer fits stays out, and is named below.
        # Only a text that would take a third of the line is cut to let others in.
        need = column.width if column.whole else min(column.width, max(_LEAST_TEXT, console.width // 3))
        if need <= room or not shown:
            shown.append(column)
        elif room >= _LEAST_TEXT and not column.whole:
            shown.append(column)
            break
        else:
            break
        room -= need + 2
    console.print(_table(fitted(shown, console.width)))
    if len(shown) < len(found):
        names = ", ".join(column.heading for column in found[len(shown) :])
        console.print(Text(f"not shown for lack of width: {names}", style="dim"))


def _table(columns: Sequence[Cells]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )
    for column in columns:
        table.add_column(
            column.heading, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis"
        )
    for row in zip(*(column.texts for column in columns), strict=True):
        table.add_row(*map(Text, row))
    return table


def loss_lines(losses: pl.DataFrame, counts_losses: bool) -> list[tuple[bool, str]]:
    """What was lost or cut, in sentences: (it is a loss, sentence)."""
    lines = [
        (is_loss, f"{units.number(amount)} {meaning}")
        for amount, is_loss, meaning in losses.select("amount", "is_loss", "meaning").iter_rows()
    ]
    if not any(is_loss for is_loss, _ in lines):
        lines.insert(0, (False, "Nothing was lost." if counts_losses else _SILENT))
    return lines


def print_loss_totals(totals: dict[str, int], counts_losses: bool, console: Console) -> None:
    """As `print_losses`, from totals by counter alone."""
    known = load.counters()
    rows = [
        (amount, known[name].loss if name in known else True, known[name].doc if name in known else name)
        for name, amount in totals.items()
    ]
    schema = {"amount": pl.UInt64, "is_loss": pl.Boolean, "meaning": pl.String}
    print_losses(pl.DataFrame(rows, schema=schema, orient="row"), counts_losses, console)


def print_losses(losses: pl.DataFrame, counts_losses: bool, console: Console) -> None:
    """The last lines of every report."""
    for is_loss, sentence in loss_lines(losses, counts_losses):
        mark = ("lost  ", "bold red") if is_loss else ("note  ", "dim")
        console.print(Text.assemble(mark, sentence))
