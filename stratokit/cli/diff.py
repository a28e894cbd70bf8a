"""`stratokit diff`: what changed between two captures."""

from __future__ import annotations

from pathlib import Path

import typer

from stratokit.cli.arguments import Force, Output, ReportFormat, Where


def diff(
    before: Path = typer.Argument(metavar="BEFORE", help="Capture of when it was well."),
    after: Path = typer.Argument(metavar="AFTER", help="Capture of when it was not."),
    where: Where = None,
    format_: ReportFormat = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Say what changed between two captures: latency, failures, traffic, servers and programs.

    Only what is too large for chance is told; p says how likely chance alone would be.

    \b
    Examples:
      stratokit diff before.parquet after.parquet
      stratokit diff before.parquet after.parquet --where http --format json
    """
    from stratokit.cli.output import console, reading, text_output, warn_of_damage
    from stratokit.engine.capture import Capture
    from stratokit.render import html, json, text
    from stratokit.reports.diff import diff as compare

    suffix = output.suffix.removeprefix(".") if output else ""
    format_ = format_ or (suffix if suffix in {"json", "html"} else "text")
    captures = [Capture.open([path]) for path in (before, after)]
    if where:
        captures = [capture.where(where) for capture in captures]
    with text_output(output, force) as out:
        with reading():
            result = compare(*captures)
        if format_ == "json":
            json.write_report(result, out)
        elif format_ == "html":
            html.write_report(result, out)
        else:
            text.print_report(result, console(out))
    for capture in captures:
        warn_of_damage(capture)
