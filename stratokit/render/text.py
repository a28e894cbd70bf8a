"""Reports and tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stratokit.render import facts, units
from stratokit.render.cells import Cells, cells, fitted, least_width, plain_cells
from stratokit.render.limits import note
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.reports.run import Result, Section

# A text column is worth showing when this much of it fits.
_LEAST_TEXT = 16
_NARROW = 120


def print_report(result: Result, console: Console) -> None:
    """The whole report: facts, sections, and what was lost."""
    facts.print_facts(result.facts, console)
    for section in result.sections:
        console.print()
        _print_section(section, note(section, result.facts), console)
    console.print()
    print_losses(result.losses, result.counts_losses, console)


def _print_section(section: Section, said: str, console: Console) -> None:
    report = section.report
    console.print(Text.assemble((report.title, "bold cyan"), "  ", (report.doc, "dim")))
    if said:
        console.print(f"  {said}")
    if section.frame is None:
        return
    if section.frame.is_empty():
        console.print("  nothing of this kind in the capture")
        return
    if report.prose:
        _print_sentences(cells(section.frame.select(report.narrow), report.columns), console)
    else:
        shown = _that_fit(section.frame, report.columns, report.narrow, console.width)
        console.print(_table(shown))
    if section.total > section.frame.height:
        console.print(
            f"  {section.frame.height} of {units.number(section.total)} shown; --limit 0 shows all",
            style="dim",
        )


def _print_sentences(columns: Sequence[Cells], console: Console) -> None:
    """Rows whose first text is a sentence, the others below it."""
    sentences, *others = columns
    for row, sentence in enumerate(sentences.texts):
        about = "   ".join(f"{c.heading}: {c.texts[row]}" for c in others if c.texts[row])
        for text, style in ((f"- {sentence}", ""), (f"  {about}", "dim")):
            for number, line in enumerate(Text(text.strip(), style=style).wrap(console, console.width - 2)):
                indent = "  " if number or style else ""
                console.print(Text.assemble(indent, line), soft_wrap=True)


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


def print_losses(losses: pl.DataFrame, counts_losses: bool, console: Console) -> None:
    """The last lines of every report."""
    facts.print_loss_lines(loss_lines(losses, counts_losses), console)


def loss_lines(losses: pl.DataFrame, counts_losses: bool) -> list[tuple[bool, str]]:
    """What was lost or cut, in sentences: (it is a loss, sentence)."""
    rows = losses.select("amount", "is_loss", "meaning").iter_rows()
    return facts.loss_lines(rows, counts_losses)
