"""The section `services` drawn as a map: callers left of whom they call, lines as wide as they are busy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any

import polars as pl

from stratokit.render import units
from stratokit.render.drawing import WIDTH, figure

_LINES = 40  # more would only be a knot; the table has them all
_BOX_WIDTH, _BOX_HEIGHT, _GAP = 132, 24, 12
_LETTERS = 19
_DEEPEST = 6  # columns


def draw(frame: pl.DataFrame) -> Iterator[str]:
    """One figure, of those whose callers waited longest."""
    calls = frame.filter(pl.col("client").is_not_null(), pl.col("server").is_not_null()).head(_LINES)
    if calls.is_empty():
        return
    lines: list[dict[str, Any]] = calls.to_dicts()
    depth = _depths([(_name(line["client"]), _name(line["server"])) for line in lines])
    places = _places(depth)
    boxes = [_box(name, *place) for name, place in places.items()]
    height = int(max(y for _, y in places.values())) + _BOX_HEIGHT + 8
    marks = [_line(line, places) for line in lines]
    key = '<span class="key">lines by requests, <b class="kerr">red</b> where some failed</span>'
    yield figure(f"Service map {key}", "Service map", height, [*marks, *boxes])


def _name(value: object) -> str:
    return str(value)


def _depths(calls: list[tuple[str, str]]) -> dict[str, int]:
    """The column of each: right of everybody who calls it; where calls go in circles, as far as found."""
    depth = dict.fromkeys((name for call in calls for name in call), 0)
    for _ in range(_DEEPEST):
        for client, server in calls:
            if client != server and depth[server] <= depth[client] < _DEEPEST - 1:
                depth[server] = depth[client] + 1
    return depth


def _places(depth: dict[str, int]) -> dict[str, tuple[float, float]]:
    """The upper left corner of each box."""
    columns = max(depth.values())
    step = (WIDTH - _BOX_WIDTH - 8) / max(columns, 1)
    rows = dict.fromkeys(range(columns + 1), 0)
    most = max(list(depth.values()).count(column) for column in rows)
    places = {}
    for name, column in depth.items():
        of_column = list(depth.values()).count(column)
        lead = (most - of_column) / 2
        places[name] = (4 + column * step, 4 + (rows[column] + lead) * (_BOX_HEIGHT + _GAP))
        rows[column] += 1
    return places


def _box(name: str, x: float, y: float) -> str:
    short = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
    return (
        f'<g><title>{escape(name)}</title><rect class="node" x="{x:.1f}" y="{y:.1f}" width="{_BOX_WIDTH}" '
        f'height="{_BOX_HEIGHT}" rx="5"/><text class="label" x="{x + _BOX_WIDTH / 2:.1f}" y="{y + 16:.1f}" '
        f'text-anchor="middle">{escape(short)}</text></g>'
    )


def _line(line: dict[str, Any], places: dict[str, tuple[float, float]]) -> str:
    (x, y), (to_x, to_y) = places[_name(line["client"])], places[_name(line["server"])]
    y, to_y = y + _BOX_HEIGHT / 2, to_y + _BOX_HEIGHT / 2
    if to_x > x:
        start, end = x + _BOX_WIDTH, to_x
        path = (
            f"M{start:.1f},{y:.1f} C{start + 40:.1f},{y:.1f} {end - 40:.1f},{to_y:.1f} {end:.1f},{to_y:.1f}"
        )
    else:  # back, or to itself: around the right side
        start, end = x + _BOX_WIDTH, to_x + _BOX_WIDTH
        out = min(max(start, end) + 34, WIDTH - 1)
        path = f"M{start:.1f},{y - 5:.1f} C{out:.1f},{y - 16:.1f} {out:.1f},{to_y + 16:.1f} "
        path += f"{end:.1f},{to_y + 5:.1f}"
    width = 1 + math.log10(1 + line["requests"] + line["connections"])
    name = "call bad" if line["errors"] else "call"
    note = f"<title>{escape(_note(line))}</title>"
    return f'<path class="{name}" d="{path}" stroke-width="{width:.1f}">{note}</path>'


def _note(line: dict[str, Any]) -> str:
    port = "" if line["server_port"] is None else f":{line['server_port']}"
    parts = [
        f"{line['client']} calls {line['server']}{port}",
        f"{line['connections']} connections",
        f"{line['requests']} requests, {line['errors']} in vain",
    ]
    parts += [f"{p} {units.duration(line[f'{p}_ns'])}" for p in ("p50", "p99") if line[f"{p}_ns"] is not None]
    return ", ".join(parts)
