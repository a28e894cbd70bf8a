"""`stratokit doctor`: can this host and user record?"""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap

import typer


def doctor(
    as_json: bool = typer.Option(False, "--json", help="A JSON array of objects, one a check."),
) -> None:
    """Check whether this host can record.

    Says what is missing and which command mends it. Exits with 0 when everything
    can be recorded, with 1 when something cannot.

    \b
    Examples:
      stratokit doctor
      stratokit doctor --json | jq '.[] | select(.ok | not)'
    """
    from stratokit.record.doctor import examine

    checks = examine()
    if as_json:
        json.dump([dataclasses.asdict(check) for check in checks], sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        width = max(len(f"{check.feature}: {check.name}") for check in checks)
        told: set[str] = set()
        for check in checks:
            name = f"{check.feature}: {check.name}"
            print(f"{'ok  ' if check.ok else 'FAIL'}  {name:<{width}}  {check.found}")
            if check.remedy and check.remedy not in told:
                told.add(check.remedy)
                print(textwrap.indent(check.remedy, " " * (width + 8)))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
