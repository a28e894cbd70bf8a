"""`stratokit info`: what is in a capture, from its metadata alone."""

from __future__ import annotations

from pathlib import Path

import typer


def info(
    inputs: list[Path] = typer.Argument(metavar="IN...", help="Capture files, folders or patterns."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object; times in ns since 1970."),
) -> None:
    """Show host, time span, contents and losses.

    \b
    Examples:
      stratokit info now.parquet
      stratokit info now.parquet --json | jq .losses
    """
    import sys

    from stratokit.cli.output import console
    from stratokit.engine.capture import Capture
    from stratokit.render import json, text

    capture = Capture.open(inputs)
    facts = capture.info()
    if as_json:
        json.write_object(facts, sys.stdout)
        return
    out = console()
    text.print_facts(facts, out)
    text.print_loss_totals(facts["losses"], all(file.is_recording for file in capture.files), out)
