#!/usr/bin/env python3
"""Write the pages of docs/ that follow from code and schemas: `tools/docs.py`, or `tools/docs.py --check`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from stratokit.engine.fields import listing
from stratokit.engine.tables import entries
from stratokit.reports.base import reports
from stratokit.schema import load
from stratokit.schema.model import Column

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTE = "<!-- Written by tools/docs.py; change the code or the schema instead. -->\n\n"


def _rows(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    texts = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in texts)


def _column_rows(columns: Iterable[Column]) -> str:
    head = ("column", "type", "unit", "meaning")
    return _rows(head, ((f"`{c.name}`", c.type, c.unit, c.doc) for c in columns))


def tables() -> str:
    """Every table with its columns, and every section of the report."""
    parts = [
        "# Tables\n\n",
        "What `stratokit table NAME IN` shows and `capture.table(name)` gives. Times are UTC, ",
        "`_ns` columns are integers of nanoseconds; a column that a capture cannot fill is null.\n",
    ]
    for name, entry in entries().items():
        parts += [f"\n## {name}\n\nA row is {entry.table.doc}.\n\n", _column_rows(entry.named.values())]
    parts.append("\n# Sections of the report\n\nWhat `stratokit report IN --only NAME` shows.\n")
    for name, report in reports().items():
        parts += [f"\n## report: {name}\n\n{report.doc}\n\n", _column_rows(report.columns)]
    return "".join(parts)


def fields() -> str:
    """Every filter field."""
    rows = listing().select("name", "type", "tables", "meaning").iter_rows()
    head = ("field", "type", "tables", "meaning")
    return (
        "# Filter fields\n\nWhat `--where` and `capture.where` may name, as `stratokit fields` lists it. "
        "The language is Wireshark's; its grammar stands in `stratokit/filters/parse.py`.\n\n"
    ) + _rows(head, ((f"`{name}`", type_, tables, meaning) for name, type_, tables, meaning in rows))


def columns() -> str:
    """The flat schema of capture.parquet."""
    schema = load.capture()
    kinds = _rows(("kind", "a row is"), ((f"`{name}`", doc) for name, doc in schema.kinds.items()))
    head = ("column", "type", "unit", "kinds", "meaning", "since")
    found = ((f"`{c.name}`", c.type, c.unit, " ".join(c.kinds), c.doc, c.since) for c in schema.columns)
    return (
        f"# Columns of capture.parquet\n\nSchema version {schema.version}. Every event is a row; "
        f"a column that its kind does not fill is null.\n\n{kinds}\n{_rows(head, found)}"
    )


def counters() -> str:
    """Every way to lose something."""
    head = ("counter", "counted by", "data is missing", "amount of")
    found = ((f"`{c.name}`", c.where, "yes" if c.loss else "no", c.doc) for c in load.counters().values())
    return (
        "# Counters\n\nEvery way to lose, cut or reject something. Each amount is located in time "
        f"in the table `losses`, and every report shows what is above zero.\n\n{_rows(head, found)}"
    )


PAGES = {"tables.md": tables, "fields.md": fields, "columns.md": columns, "counters.md": counters}


def outdated() -> list[str]:
    """Names of pages that differ from what the code says."""
    return [
        n for n, page in PAGES.items() if not (DOCS / n).exists() or (DOCS / n).read_text() != NOTE + page()
    ]


def main() -> int:
    """Write what is outdated; with --check only tell."""
    old = outdated()
    if "--check" in sys.argv:
        print("\n".join(f"docs/{name} is outdated; run tools/docs.py" for name in old))
        return bool(old)
    DOCS.mkdir(exist_ok=True)
    for name in old:
        (DOCS / name).write_text(NOTE + PAGES[name]())
        print(f"wrote docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
