"""`stratokit fields`: what a filter may name."""

from __future__ import annotations

import sys

import typer


def fields(
    text: str = typer.Argument("", metavar="[TEXT]", help="Only fields whose name or meaning has this."),
    as_json: bool = typer.Option(False, "--json", help="A JSON array of objects."),
) -> None:
    """List what a filter may name.

    \b
    Examples:
      stratokit fields http
      stratokit fields latency
    """
    from stratokit.cli.output import console
    from stratokit.engine.fields import FIELD_COLUMNS, listing
    from stratokit.errors import StratokitError
    from stratokit.render import json
    from stratokit.render.text import print_table

    found = listing(text)
    if found.is_empty():
        raise StratokitError(f"no field has {text!r} in its name or meaning")
    if as_json:
        json.write_object(found.to_dicts(), sys.stdout)
    else:
        print_table(found, FIELD_COLUMNS, console())
