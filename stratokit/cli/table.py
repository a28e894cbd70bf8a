"""`stratokit table`: the rows of one table, filtered, sorted, in the format that the next program wants."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from stratokit.cli.arguments import Force, Inputs, KeyLog, Output
from stratokit.cli.values import names, one_of
from stratokit.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from stratokit.schema.model import Column

FORMATS = ("table", "json", "ndjson", "csv", "parquet")
_SHOWN_ROWS = 50


def table(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="packets, flows, tcp, http, dns, sockets, syscalls, ...")
    ],
    inputs: Inputs,
    where: str | None = typer.Option(None, metavar="FILTER", help="Only rows that match this filter."),
    select: str | None = typer.Option(None, metavar="COLUMN,...", help="Only these columns, in this order."),
    sort: str | None = typer.Option(
        None, metavar="COLUMN", help="Sort by this column; -COLUMN for the highest first."
    ),
    limit: int | None = typer.Option(
        None, min=0, metavar="N", help="At most N rows, 0 for all.  [default: 50 for people, else all]"
    ),
    format_: str | None = typer.Option(
        None,
        "--format",
        metavar="FORMAT",
        callback=one_of(*FORMATS),
        help="table, json, ndjson, csv or parquet; without it, what the name of -o says, else table.",
    ),
    output: Output = None,
    force: Force = False,
    keylog: KeyLog = None,
) -> None:
    """Show one table of a capture.

    \b
    Examples:
      stratokit table http now.parquet --where 'http.response.code >= 500' --sort -latency_ns
      stratokit table syscalls now.parquet --where 'evt.latency > 10ms' --select ts,comm,syscall,args
      stratokit table flows now.parquet --format csv -o flows.csv
    """
    from stratokit.cli.output import binary_output, opened, reading, text_output, warn_of_damage
    from stratokit.engine.tables import entry
    from stratokit.render import files

    found = entry(name)
    columns = found.named
    suffix = output.suffix.removeprefix(".") if output else ""
    format_ = format_ or (suffix if suffix in FORMATS else "table")
    chosen = [_column(text, columns, name) for text in names(select)] or list(found.columns)
    by = _column(sort.removeprefix("-"), columns, name) if sort else None
    rows = (_SHOWN_ROWS if format_ == "table" else 0) if limit is None else limit
    if format_ == "parquet" and output is None and sys.stdout.isatty():
        raise UsageError("Parquet is no text; name a file with -o")
    # Rows that appear on the terminal while the file is read leave no room for a bar.
    quiet = format_ != "table" and output is None and sys.stdout.isatty()
    with reading(found.of_protocols or where is not None, quiet):
        capture = opened(inputs, keylog)
        frame = capture.table(name, where, dict.fromkeys([*chosen, *([by] if by else [])]))
        if sort:
            frame = frame.sort(by, descending=sort.startswith("-"), nulls_last=True, maintain_order=True)
        frame = frame.select(chosen)
        if format_ == "table":
            with text_output(output, force) as text:
                _show(frame, [columns[c] for c in chosen], rows, text)
        else:
            with binary_output(output, force) as file:
                files.write(frame.head(rows) if rows else frame, format_, file)
    warn_of_damage(capture)


def _column(text: str, columns: dict[str, Column], table_name: str) -> str:
    if text not in columns:
        raise UsageError(f"table {table_name} has no column {text!r}; it has {', '.join(columns)}")
    return text


def _show(frame: pl.LazyFrame, columns: list[Column], rows: int, out: TextIO) -> None:
    from stratokit.cli.output import console
    from stratokit.engine.frames import collect
    from stratokit.render import text

    # One row more than shown tells whether there are more.
    found = collect(frame.head(rows + 1) if rows else frame)
    shown = found.head(rows) if rows else found
    screen = console(out)
    text.print_table(shown, columns, screen)
    if shown.height < found.height:
        screen.print(f"the first {rows} rows; --limit 0 shows all", style="dim")
