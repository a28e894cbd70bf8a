"""`stratokit info`: what is in a capture, from its metadata alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stratokit.cli.arguments import Inputs

if TYPE_CHECKING:
    from stratokit.engine.facts import FileFacts


def info(
    inputs: Inputs,
    as_json: bool = typer.Option(False, "--json", help="One JSON object; times in ns since 1970."),
) -> None:
    """Show host, time span, contents and losses.

    \b
    Examples:
      stratokit info now.parquet
      stratokit info now.parquet --json | jq .losses
    """
    import sys

    from stratokit.cli.output import console, reading
    from stratokit.engine.facts import merged
    from stratokit.engine.inputs import resolve
    from stratokit.engine.quick_facts import quick_facts
    from stratokit.render import facts

    paths = resolve(inputs)
    files = quick_facts(paths)
    if files is None:
        with reading(protocols=False):
            files = _files(paths)
    found = merged(files)
    if as_json:
        facts.write_facts(found, sys.stdout)
        return
    out = console()
    facts.print_facts(found, out)
    lines = facts.total_lines(found["losses"], all(file.is_recording for file in files))
    facts.print_loss_lines(lines, out)


def _files(paths: list[Path]) -> list[FileFacts]:
    from stratokit.engine.capture import Capture

    return Capture.open(paths).files
