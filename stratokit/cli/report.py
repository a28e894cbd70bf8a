"""`stratokit report`: where the time went and what failed."""

from __future__ import annotations

from typing import Any

import typer

from stratokit.cli.arguments import Force, Inputs, KeyLog, Output, ReportFormat, Where
from stratokit.cli.parameters import Command
from stratokit.cli.values import names

_ROWS = {"text": 15, "html": 500, "json": 0}


class ReportCommand(Command):
    """Its help names the sections that there are; what they are made of loads only then."""

    def format_help_text(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """What the verb does, and the sections."""
        from stratokit.reports.base import reports

        super().format_help_text(ctx, formatter)
        usual = [name for name, section in reports().items() if not section.extra]
        extra = [name for name, section in reports().items() if section.extra]
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(f"Sections: {', '.join(usual)}; then what was lost.")
            formatter.write_text(f"Only where they are named: {', '.join(extra)}.")


def report(
    inputs: Inputs,
    only: str | None = typer.Option(None, metavar="NAME,...", help="Only these sections."),
    where: Where = None,
    format_: ReportFormat = None,
    limit: int | None = typer.Option(
        None, min=0, metavar="N", help="Rows a section, 0 for all.  [default: 15 as text, all as JSON]"
    ),
    output: Output = None,
    force: Force = False,
    keylog: KeyLog = None,
) -> None:
    """Say where the time went and what failed.

    \b
    Examples:
      stratokit report now.parquet
      stratokit report now.parquet --only http,dns --where 'http.response.code >= 500'
      stratokit report now.parquet -o report.html
      ssh HOST tcpdump -i any -w - | stratokit report -
    """
    from stratokit.cli.output import console, opened, reading, text_output, warn_of_damage
    from stratokit.render import html, json, text
    from stratokit.reports.base import Options
    from stratokit.reports.run import run

    suffix = output.suffix.removeprefix(".") if output else ""
    format_ = format_ or (suffix if suffix in _ROWS else "text")
    capture = opened(inputs, keylog)
    if where:
        capture = capture.where(where)
    rows = _ROWS[format_] if limit is None else limit
    with text_output(output, force) as out:
        with reading():
            result = run(capture, names(only), Options(rows or None, pictures=format_ == "html"))
        if format_ == "json":
            json.write_report(result, out)
        elif format_ == "html":
            html.write_report(result, out)
        else:
            text.print_report(result, console(out))
    warn_of_damage(capture)
