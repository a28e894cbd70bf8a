"""What `stratokit info` shows, and reports begin and end with; without the libraries that read rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from stratokit.render import units
from stratokit.render.limits import limit_lines
from stratokit.schema import load

# Files that another program wrote may have lost anything without a word.
_SILENT = "This file does not say whether anything was lost before it was written."


def write_facts(facts: dict[str, Any], out: TextIO) -> None:
    """As one JSON object."""
    out.write(json.dumps(facts, indent=2) + "\n")


def print_facts(facts: dict[str, Any], console: Console) -> None:
    """Where, when and how much: a few lines."""
    for name, value in fact_lines(facts):
        console.print(Text.assemble((f"{name:<7} ", "bold"), units.clean(value)), soft_wrap=name == "file")


def fact_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts of a capture as (name, text), those that are known."""
    lines = [("file", f"{f['path']} ({f['format']}, {units.size(f['size_bytes'])})") for f in facts["files"]]
    host = facts["host"]
    if host:
        kernel = host.get("kernel")
        known = (host.get("hostname"), host.get("os"), kernel and f"kernel {kernel}", host.get("machine"))
        lines.append(("host", ", ".join(str(fact) for fact in known if fact)))
    if facts["first_ts"] is not None:
        lines.append(("from", f"{units.moment(facts['first_ts'])} UTC"))
        lines.append(("to", f"{units.moment(facts['last_ts'])} UTC, {units.duration(facts['duration_ns'])}"))
    rows = ", ".join(units.counted(count, kind) for kind, count in facts["rows"].items())
    lines.append(("rows", rows or "none"))
    if facts["rows"].get("plaintext"):
        lines.append(("secrets", "holds plaintext of TLS"))
    if facts.get("redacted"):
        lines.append(("redacted", ", ".join(facts["redacted"])))
    lines += [("kept", text) for text in facts.get("kept") or []]
    lines += [("trigger", _trigger(row)) for row in facts.get("triggers") or []]
    lines += [("limits", text) for text in limit_lines(facts.get("limits") or [])]
    if facts.get("where"):
        lines.append(("where", facts["where"]))
    return lines


def _trigger(row: dict[str, Any]) -> str:
    reason = f": {row['reason']}" if row["reason"] else ""
    return f"{units.moment(row['ts'])} UTC by {row['by']}{reason}"


def loss_lines(rows: Iterable[tuple[int, bool, str]], counts_losses: bool) -> list[tuple[bool, str]]:
    """(amount, it is a loss, meaning) in sentences: (it is a loss, sentence)."""
    lines = [(is_loss, f"{units.number(amount)} {meaning}") for amount, is_loss, meaning in rows]
    if not any(is_loss for is_loss, _ in lines):
        lines.insert(0, (False, "Nothing was lost." if counts_losses else _SILENT))
    return lines


def total_lines(totals: dict[str, int], counts_losses: bool) -> list[tuple[bool, str]]:
    """As `loss_lines`, from totals by counter."""
    known = load.counters()
    rows = [
        (amount, known[name].loss if name in known else True, known[name].doc if name in known else name)
        for name, amount in totals.items()
    ]
    return loss_lines(rows, counts_losses)


def print_loss_lines(lines: Iterable[tuple[bool, str]], console: Console) -> None:
    """What was lost, marked."""
    for is_loss, sentence in lines:
        mark = ("lost  ", "bold red") if is_loss else ("note  ", "dim")
        console.print(Text.assemble(mark, sentence))
