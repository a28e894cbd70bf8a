"""Reports and tables for programs: times are integers in ns, the order is stable."""

from __future__ import annotations

import json
from typing import Any, TextIO

import polars as pl

from stratokit.render.files import plain
from stratokit.render.limits import note
from stratokit.reports.run import Result, Section


def _rows(frame: pl.DataFrame) -> str:
    """{"columns": [...], "rows": [...]} written by polars, which does not make a Python object a cell."""
    return f'"columns": {json.dumps(frame.columns)}, "rows": {plain(frame.lazy()).collect().write_json()}'


def _section(section: Section, said: str) -> str:
    more = f', "note": {json.dumps(said)}' if said else ""
    if section.frame is not None:
        return f"{{{_rows(section.frame)}{more}}}"
    names = [column.name for column in section.report.columns]
    return f'{{"columns": {json.dumps(names)}, "rows": []{more}}}'


def write_report(result: Result, out: TextIO) -> None:
    """One object: capture, losses, and a key a section, a line each."""
    parts = [f'"capture": {json.dumps(result.facts)}', f'"losses": {{{_rows(result.losses)}}}']
    noted = ((section, note(section, result.facts)) for section in result.sections)
    parts += [f'"{section.report.name}": {_section(section, said)}' for section, said in noted]
    out.write("{" + ",\n ".join(parts) + "}\n")


def write_object(value: Any, out: TextIO) -> None:
    """Any other facts, indented."""
    out.write(json.dumps(value, indent=2) + "\n")
