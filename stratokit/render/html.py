"""A report as one HTML file that needs nothing else, no network above all.

Everything stands in the page itself; its script only sorts and filters the tables. Texts of the capture come
in escaped, and the page forbids itself to load or run anything but what was written with it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Iterator
from html import escape
from typing import Any, TextIO

from stratokit.render import charts
from stratokit.render.cells import Cells, cells
from stratokit.render.facts import fact_lines
from stratokit.render.limits import note
from stratokit.render.text import loss_lines
from stratokit.reports.run import Result, Section

_ASSETS = importlib.resources.files("stratokit.render") / "assets"


def write_report(result: Result, out: TextIO) -> None:
    """The whole report."""
    out.writelines(_page(result))


def _page(result: Result) -> Iterator[str]:
    name = escape(", ".join(file["path"] for file in result.facts["files"]))
    style, script = ((_ASSETS / f"report.{kind}").read_text() for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    yield '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    yield '<meta name="viewport" content="width=device-width">\n'
    yield f"<title>stratokit: {name}</title>\n<style>{style}</style>\n<h1>{name}</h1>\n"
    titles = ((section.report.name, section.report.title) for section in result.sections)
    links = "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title in titles)
    yield f"<nav>{links}</nav>\n"
    yield from fragments(result)
    yield f"<script>{script}</script>\n</html>\n"


def summary(facts: dict[str, Any], where: str | None, tables: list[str]) -> str:
    """What a capture is, as a notebook shows it."""
    lines = [*fact_lines(facts), *([("where", where)] if where else []), ("tables", ", ".join(tables))]
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in lines)}</dl>"


def fragments(result: Result) -> Iterator[str]:
    """The content without the page around it, as a notebook wants it."""
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in fact_lines(result.facts))
    yield f"<dl>{facts}</dl>\n"
    for is_loss, sentence in loss_lines(result.losses, result.counts_losses):
        yield f'<p class="{"lost" if is_loss else "doc"}">{escape(sentence)}</p>\n'
    for section in result.sections:
        yield from _section(section, note(section, result.facts))


def _section(section: Section, said: str) -> Iterator[str]:
    report = section.report
    yield f'<h2 id="{report.name}">{escape(report.title)}</h2>\n<p class="doc">{escape(report.doc)}</p>\n'
    if said:
        yield f"<p>{escape(said)}</p>\n"
    if section.frame is None:
        return
    if section.frame.is_empty():
        yield "<p>nothing of this kind in the capture</p>\n"
    else:
        yield charts.of(section)
        if report.picture:
            return
        yield from _table(cells(section.frame, report.columns))
        if section.total > section.frame.height:
            yield f'<p class="doc">{section.frame.height:,} of {section.total:,} shown</p>\n'


def _table(columns: list[Cells]) -> Iterator[str]:
    kinds = [' class="n"' if column.right else "" for column in columns]
    heads = (
        f'<th{kind} title="{escape(column.doc)}">{escape(column.heading)}</th>'
        for kind, column in zip(kinds, columns, strict=True)
    )
    yield f'<div class="wide"><table>\n<thead><tr>{"".join(heads)}</tr></thead>\n<tbody>\n'
    for row, texts in enumerate(zip(*(column.texts for column in columns), strict=True)):
        fields = (
            f"<td{kind}{_amount(column, row)}>{escape(text)}</td>"
            for column, kind, text in zip(columns, kinds, texts, strict=True)
        )
        yield f"<tr>{''.join(fields)}</tr>\n"
    yield "</tbody></table></div>\n"


def _amount(column: Cells, row: int) -> str:
    """The number behind a text with a unit, for the script to sort by."""
    value = column.amounts[row] if column.amounts else None
    return "" if value is None or column.texts[row] == str(value) else f' data-v="{value}"'
