"""Charts of report sections as SVG: no script, drawn with the colours of the page around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import polars as pl

from stratokit.engine.latency.table import PARTS
from stratokit.render import service_map, units
from stratokit.render.drawing import WIDTH, Log, figure
from stratokit.reports.latency import WHOLE, WORDS
from stratokit.reports.run import Section

_HEIGHT = 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 8, 8, 22
_ROW = 26  # height of a line of the percentile chart and of the waterfall
_LINES = 25
_LABEL = 20  # letters beside a bar


def of(section: Section) -> str:
    """The charts of a section, empty where it has none."""
    draw = _CHARTS.get(section.report.name)
    if draw is None or section.frame is None or section.frame.is_empty():
        return ""
    return f'<div class="charts">{"".join(draw(section.frame))}</div>\n'


def _bounds(values: pl.Series) -> tuple[float, float]:
    least, most = values.min(), values.max()
    return float(str(least or 1)), float(str(most or 1))


def _timeline(frame: pl.DataFrame) -> Iterator[str]:
    """Half and 99 of 100 over time, a figure for each layer; errors as bars from below."""
    times = frame["ts"].to_physical()
    first, last = int(str(times.min())), int(str(times.max()))
    whole = max(last - first, 1)
    for part in frame.partition_by("waiting_for", maintain_order=True):
        known = part.drop_nulls("p50_ns")
        rows: list[dict[str, Any]] = part.with_columns(pl.col("ts").to_physical()).to_dicts()
        y = Log(*_bounds(pl.concat([known["p50_ns"], known["p99_ns"]])), _HEIGHT - _BOTTOM, _TOP)

        def x(ts: int) -> float:
            return _LEFT + (ts - first) / whole * (WIDTH - _LEFT - _RIGHT)

        marks = [*_grid(y), *_times(first, last)]
        most = max((row["count"] for row in rows), default=1)
        for row in rows:
            note = f"<title>{escape(_note(row))}</title>"
            if row["errors"]:
                height = max(3.0, row["errors"] / most * (_HEIGHT - _TOP - _BOTTOM))
                top = _HEIGHT - _BOTTOM - height
                marks.append(
                    f'<rect class="err" x="{x(row["ts"]) - 2:.1f}" y="{top:.1f}" width="4" '
                    f'height="{height:.1f}">{note}</rect>'
                )
            marks += [
                f'<circle class="dot{p}" cx="{x(row["ts"]):.1f}" cy="{y(row[f"p{p}_ns"]):.1f}" r="2.5">{note}'
                "</circle>"
                for p in (50, 99)
                if row[f"p{p}_ns"] is not None
            ]
        for p in (50, 99):
            points = " ".join(
                f"{x(row['ts']):.1f},{y(row[f'p{p}_ns']):.1f}" for row in rows if row[f"p{p}_ns"] is not None
            )
            marks.append(f'<polyline class="p{p}" points="{points}"/>')
        name = escape(rows[0]["waiting_for"])
        key = (
            '<span class="key"> · <b class="k50">half</b> and <b class="k99">99 of 100</b> took at most, '
            '<b class="kerr">errors</b></span>'
        )
        yield figure(f"{name}{key}", f"{name} over time", _HEIGHT, marks)


def _note(row: dict[str, Any]) -> str:
    parts = [units.moment(row["ts"]), f"{row['count']} begun", f"{row['errors']} errors"]
    parts += [f"{p} {units.duration(row[f'{p}_ns'])}" for p in ("p50", "p99") if row[f"{p}_ns"] is not None]
    return ", ".join(parts)


def _grid(y: Log) -> Iterator[str]:
    for ns in y.ticks():
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(ns):.1f}" y2="{y(ns):.1f}"/>'
        yield f'<text x="{_LEFT - 4}" y="{y(ns) + 4:.1f}" text-anchor="end">{units.duration(ns)}</text>'


def _times(first: int, last: int) -> Iterator[str]:
    for ns, x, anchor in ((first, _LEFT, "start"), (last, WIDTH - _RIGHT, "end")):
        yield f'<text x="{x}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{units.moment(ns)[:19]}</text>'


def _percentiles(frame: pl.DataFrame) -> Iterator[str]:
    """A bar from the half to the longest for each layer, on one logarithmic axis."""
    known = frame.filter(part=WHOLE).drop_nulls("p50_ns")
    if known.is_empty():
        return
    left = 150
    x = Log(_bounds(known["p50_ns"])[0], _bounds(known["max_ns"])[1], left, WIDTH - 40)
    height = known.height * _ROW + 30
    marks = [
        f'<line class="grid" x1="{x(ns):.1f}" x2="{x(ns):.1f}" y1="4" y2="{height - 20}"/>'
        f'<text x="{x(ns):.1f}" y="{height - 6}" text-anchor="middle">{units.duration(ns)}</text>'
        for ns in x.ticks()
    ]
    for k, row in enumerate(known.to_dicts()):
        y = 8 + k * _ROW
        spread = {p: row[f"{p}_ns"] for p in ("p50", "p90", "p99", "max")}
        title = f"<title>{', '.join(f'{p} {units.duration(ns)}' for p, ns in spread.items())}</title>"
        begin, end = x(spread["p50"]), x(spread["max"])
        marks.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(row["waiting_for"])}</text>'
            f'<rect class="bar" x="{begin:.1f}" y="{y + 3}" width="{max(end - begin, 1):.1f}" height="12">'
            f"{title}</rect>"
            f'<circle class="dot50" cx="{begin:.1f}" cy="{y + 9}" r="4">{title}</circle>'
            f'<circle class="dot99" cx="{x(spread["p99"]):.1f}" cy="{y + 9}" r="4">{title}</circle>'
        )
    key = '<span class="key">from <b class="k50">half</b> over <b class="k99">99 of 100</b>'
    key += " to the longest</span>"
    yield figure(key, "Spread of latency", height, marks)


def _waterfall(frame: pl.DataFrame) -> Iterator[str]:
    """The slowest requests as lines of parts, one behind the other, all on the slowest one's axis."""
    rows = frame.head(_LINES).to_dicts()
    left, most = 210, max(row["total_ns"] for row in rows)
    scale = (WIDTH - left - 80) / most
    used, marks = set(), []
    for k, row in enumerate(rows):
        y, x = 6 + k * _ROW, float(left)
        name = f"{row['kind']} {row['what'] or ''}"
        label = f"<title>{escape(name)}</title>{escape(_end(row['kind'], row['what'] or ''))}"
        marks.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{label}</text>'
            f'<rect class="grid" x="{left}" y="{y + 3}" width="{row["total_ns"] * scale:.1f}" height="12"/>'
            f'<text x="{left + row["total_ns"] * scale + 4:.1f}" y="{y + 13}">'
            f"{units.duration(row['total_ns'])}</text>"
        )
        for number, part in enumerate(PARTS):
            if not row[part]:
                continue
            width = row[part] * scale
            note = f"<title>{escape(WORDS[part])} {units.duration(row[part])}</title>"
            marks.append(
                f'<rect class="part{number}" x="{x:.1f}" y="{y + 3}" width="{max(width, 0.5):.1f}" '
                f'height="12">{note}</rect>'
            )
            if part == "app_ns" and row["upstream_ns"]:
                marks.append(
                    f'<rect class="own" x="{x:.1f}" y="{y + 12}" width="{row["upstream_ns"] * scale:.1f}" '
                    f'height="3"><title>{WORDS["upstream_ns"]} {units.duration(row["upstream_ns"])}</title>'
                    "</rect>"
                )
            x += width
            used.add(number)
    names = (f'<b class="part{n}">{escape(WORDS[part])}</b>' for n, part in enumerate(PARTS) if n in used)
    yield figure(
        f'<span class="key">{" ".join(names)}</span>', "Slowest requests", len(rows) * _ROW + 12, marks
    )


def _end(kind: str, what: str) -> str:
    """What fits beside a bar: of a request its end tells most."""
    room = _LABEL - len(kind)
    return f"{kind} {what if len(what) <= room else '…' + what[1 - room :]}"


def _heat(frame: pl.DataFrame) -> Iterator[str]:
    """A field for each span of time and range of durations, darker the more waits it has."""
    times = frame["ts"].to_physical()
    first, last = int(str(times.min())), int(str(times.max()))
    starts = times.unique().sort()
    span = int(str(starts.diff().min() or 1))
    width = (WIDTH - _LEFT - _RIGHT) / ((last - first) // span + 1)
    for part in frame.partition_by("waiting_for", maintain_order=True):
        least, highest = _bounds(part["from_ns"])
        y = Log(least, highest * 2.5, _HEIGHT - _BOTTOM, _TOP)
        most = math.log1p(int(str(part["count"].max())))
        marks = []
        for row in part.with_columns(pl.col("ts").to_physical()).to_dicts():
            low, high = row["from_ns"], row["from_ns"] * (2.5 if str(row["from_ns"])[0] == "2" else 2)
            x, top = _LEFT + (row["ts"] - first) // span * width, y(high)
            spread = f"from {units.duration(low)} to {units.duration(high)}"
            note = f"{units.moment(row['ts'])}, {row['count']} {spread}"
            marks.append(
                f'<rect class="heat" x="{x:.1f}" y="{top:.1f}" width="{max(width - 0.5, 0.5):.1f}" '
                f'height="{max(y(low) - top - 0.5, 1):.1f}" '
                f'fill-opacity="{0.15 + 0.85 * math.log1p(row["count"]) / most:.2f}">'
                f"<title>{escape(note)}</title></rect>"
            )
        name = escape(part["waiting_for"][0])
        key = '<span class="key"> · darker where more began</span>'
        marks += [*_grid(y), *_times(first, last)]
        yield figure(f"{name}{key}", f"{name}, heat map of its latency", _HEIGHT, marks)


_CHARTS: dict[str, Callable[[pl.DataFrame], Iterator[str]]] = {
    "timeline": _timeline,
    "latency": _percentiles,
    "slowest": _waterfall,
    "heat": _heat,
    "services": service_map.draw,
}
