"""`stratokit report`: where the time went and what failed."""

from __future__ import annotations

import typer

from stratokit.cli.arguments import Force, Inputs, KeyLog, Output, ReportFormat, Where
from stratokit.cli.values import names

_ROWS = {"text": 15, "html": 500, "json": 0}


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

    Sections: findings, protocols, services, conversations, tcp, dns, http, tls, latency, timeline, slowest,
    syscalls, processes; then what was lost.

    \b
    Examples:
      stratokit report now.parquet
      stratokit report now.parquet --only http,dns --where 'http.response.code >= 500'
      stratokit report now.parquet -o report.html
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
            result = run(capture, names(only), Options(rows or None))
        if format_ == "json":
            json.write_report(result, out)
        elif format_ == "html":
            html.write_report(result, out)
        else:
            text.print_report(result, console(out))
    warn_of_damage(capture)
