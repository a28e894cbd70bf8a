"""`stratokit trigger`: let a flight recorder write what it has."""

from __future__ import annotations

import json
from typing import Any

import typer

from stratokit.errors import StratokitError, UsageError


def trigger(
    pid: list[int] | None = typer.Option(None, "--pid", metavar="N", min=1, help="This recorder."),
    all_: bool = typer.Option(False, "--all", help="All recorders that run."),
    reason: str = typer.Option("", "--reason", metavar="TEXT", help="Why, for the capture's metadata."),
    list_: bool = typer.Option(False, "--list", help="Show the recorders that run, and trigger none."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a recorder."),
) -> None:
    """Let a flight recorder (record --keep) write a capture of the time around now.

    Prints the file that it will write when the time after the trigger has passed; the recorder goes on.
    The recorder's own user and root may do this. kill -USR1 does the same without a reason.

    \b
    Examples:
      stratokit trigger --reason "checkout is slow"
      stratokit trigger --list
      stratokit trigger --pid 4711
    """
    from stratokit.record.control import ask, recorders

    found = list(recorders())
    if list_:
        for _, about in found:
            typer.echo(json.dumps(about) if as_json else _line(about))
        if not found and not as_json:
            typer.echo("no flight recorder runs here that you may trigger", err=True)
        return
    if not found:
        raise StratokitError(
            "no flight recorder runs here that you may trigger; "
            "stratokit record --keep 10m starts one, and root may trigger those of all users"
        )
    chosen = found
    if pid:
        chosen = [(path, about) for path, about in found if about["pid"] in pid]
        if absent := set(pid) - {about["pid"] for _, about in chosen}:
            raise UsageError(f"{min(absent)} is no flight recorder; there is {_numbers(found)}")
    elif len(found) > 1 and not all_:
        raise UsageError(f"several flight recorders run ({_numbers(found)}): choose with --pid, or --all")
    for path, _ in chosen:
        try:
            answer = ask(path, {"do": "trigger", "reason": reason})
        except OSError as error:
            raise StratokitError(f"the recorder behind {path} does not answer: {error}") from error
        typer.echo(json.dumps(answer) if as_json else answer["output"])


def _numbers(found: list[tuple[Any, dict[str, Any]]]) -> str:
    return ", ".join(f"{about['pid']} ({about['output']})" for _, about in found)


def _line(about: dict[str, Any]) -> str:
    from stratokit.render import units

    kept = f"keeps {units.size(about['kept_bytes'])}"
    if about["kept_ns"] is not None:
        kept += f" of {units.duration(about['kept_ns'])}"
    return f"{about['pid']}  {about['output']}  {kept}  {about['captures']} captures written"
