"""A report as one HTML file that needs nothing else: no script, no network."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TextIO

from stratokit.render.cells import Cells, cells
from stratokit.render.facts import fact_lines
from stratokit.render.text import loss_lines
from stratokit.reports.run import Result, Section

_STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 100em; padding: 0 1em; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin: 2em 0 0; }
p { margin: .2em 0 .6em; } .doc { opacity: .7; } .lost { color: #c00; font-weight: bold; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .15em .9em .15em 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #888; } .n { text-align: right; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 1em; } dd { margin: 0; }
"""


def write_report(result: Result, out: TextIO) -> None:
    """The whole report."""
    out.writelines(_page(result))


def _page(result: Result) -> Iterator[str]:
    name = escape(", ".join(file["path"] for file in result.facts["files"]))
    yield '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width">\n'
    yield f"<title>stratokit: {name}</title>\n<style>{_STYLE}</style>\n<h1>{name}</h1>\n"
    yield from fragments(result)
    yield "</html>\n"


def fragments(result: Result) -> Iterator[str]:
    """The content without the page around it, as a notebook wants it."""
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in fact_lines(result.facts))
    yield f"<dl>{facts}</dl>\n"
    for is_loss, sentence in loss_lines(result.losses, result.counts_losses):
        yield f'<p class="{"lost" if is_loss else "doc"}">{escape(sentence)}</p>\n'
    for section in result.sections:
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    report = section.report
    yield f'<h2 id="{report.name}">{escape(report.title)}</h2>\n<p class="doc">{escape(report.doc)}</p>\n'
    if section.frame is None:
        yield f"<p>{escape(section.note)}</p>\n"
    elif section.frame.is_empty():
        yield "<p>nothing of this kind in the capture</p>\n"
    else:
        yield from _table(cells(section.frame, report.columns))
        if section.total > section.frame.height:
            yield f'<p class="doc">{section.frame.height:,} of {section.total:,} shown</p>\n'


def _table(columns: list[Cells]) -> Iterator[str]:
    kinds = [' class="n"' if column.right else "" for column in columns]
    heads = (
        f'<th{kind} title="{escape(column.doc)}">{escape(column.heading)}</th>'
        for kind, column in zip(kinds, columns, strict=True)
    )
    yield f'<div class="wide"><table>\n<tr>{"".join(heads)}</tr>\n'
    for row in zip(*(column.texts for column in columns), strict=True):
        yield (
            "<tr>" + "".join(f"<td{k}>{escape(t)}</td>" for k, t in zip(kinds, row, strict=True)) + "</tr>\n"
        )
    yield "</table></div>\n"
