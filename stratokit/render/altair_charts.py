"""Sections of a report as Altair charts, for notebooks: to change, to put together, to save.

The page of a report draws its own (render.charts), for it needs neither network nor scripts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.engine.latency.table import PARTS
from stratokit.errors import UsageError
from stratokit.reports.latency import WHOLE, WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

_WIDTH, _HEIGHT = 600, 160
_TOOLTIPS = {"tooltip": True}


def _altair() -> Any:
    try:
        import altair as alt
    except ImportError:
        raise UsageError("charts need the package altair: pip install 'stratokit[notebook]'") from None
    return alt


def chart(name: str, frame: pl.DataFrame | None) -> Any:
    """The altair.Chart of a section's frame; durations are in ms, times in UTC.

    Raises:
        UsageError: the section has no chart, or nothing to draw, or altair is not installed.
    """
    draw = _CHARTS.get(name)
    if draw is None:
        raise UsageError(f"section {name!r} has no chart; these have: {', '.join(_CHARTS)}")
    if frame is None or frame.is_empty():
        raise UsageError(f"section {name!r} is not in this report, or is empty: there is nothing to draw")
    return draw(_altair(), frame)


def _ms(frame: pl.DataFrame) -> pl.DataFrame:
    """Durations as milliseconds, under names that say so."""
    return frame.select(
        (pl.col(name) / 1e6).round(6).alias(f"{name.removesuffix('_ns')}_ms")
        if name.endswith("_ns")
        else name
        for name in frame.columns
    )


def _time(alt: Any) -> Any:
    axis = alt.Axis(format="%H:%M:%S.%L", labelOverlap="greedy", labelSeparation=8)
    return alt.X("ts:T", title=None, scale=alt.Scale(type="utc"), axis=axis)


def _log_ms(alt: Any, field: str, channel: str, title: str = "ms") -> Any:
    return getattr(alt, channel)(f"{field}:Q", title=title, scale=alt.Scale(type="log"))


def _timeline(alt: Any, frame: pl.DataFrame) -> Any:
    """Half and 99 of 100 over time, a line each, for each layer."""
    percentiles = {"p50_ms": "half", "p99_ms": "99 of 100"}
    rows = _ms(frame).unpivot(
        list(percentiles), index=["waiting_for", "ts", "count", "errors"], variable_name="took at most",
        value_name="ms",
    )  # fmt: skip
    rows = rows.drop_nulls("ms").with_columns(pl.col("took at most").replace(percentiles))
    return (
        alt.Chart(rows, width=_WIDTH, height=_HEIGHT)
        .mark_line(point=True, **_TOOLTIPS)
        .encode(x=_time(alt), y=_log_ms(alt, "ms", "Y"), color="took at most:N")
        .facet(row=alt.Row("waiting_for:N", title=None))
        .resolve_scale(y="independent")
    )


def _latency(alt: Any, frame: pl.DataFrame) -> Any:
    """From the half to the longest, a bar for each layer, with a mark at 99 of 100."""
    rows = _ms(frame.filter(part=WHOLE).drop_nulls("p50_ns"))
    base = alt.Chart(rows, width=_WIDTH).encode(y=alt.Y("waiting_for:N", title=None, sort=None))
    bars = base.mark_bar(opacity=0.4, **_TOOLTIPS)
    bars = bars.encode(x=_log_ms(alt, "p50_ms", "X", "ms, from half to the longest"), x2="max_ms:Q")
    return bars + base.mark_tick(thickness=3, **_TOOLTIPS).encode(x=_log_ms(alt, "p99_ms", "X", ""))


def _slowest(alt: Any, frame: pl.DataFrame) -> Any:
    """The slowest requests, each a bar of its parts in order of time."""
    order = [WORDS[part] for part in PARTS]
    rows = (
        frame.with_row_index("nr", offset=1)
        .with_columns(request=pl.format("{}. {} {}", "nr", "kind", pl.col("what").fill_null("")))
        .unpivot(list(PARTS), index=["nr", "request"], variable_name="part", value_name="ms")
        .filter(pl.col("ms") > 0)
        .with_columns(
            pl.col("ms") / 1e6, place=pl.col("part").replace_strict({p: k for k, p in enumerate(PARTS)})
        )
        .with_columns(pl.col("part").replace(WORDS))
        .sort("nr", "place")
    )
    return (
        alt.Chart(rows, width=_WIDTH)
        .mark_bar(**_TOOLTIPS)
        .encode(
            x=alt.X("ms:Q", title="ms"),
            y=alt.Y("request:N", title=None, sort=None, axis=alt.Axis(labelLimit=300)),
            color=alt.Color("part:N", title=None, scale=alt.Scale(domain=order, scheme="tableau20")),
            order="place:Q",
        )
    )


def _heat(alt: Any, frame: pl.DataFrame) -> Any:
    """How many waits began when, by how long they took."""
    first = pl.col("from_ns").cast(pl.String).str.head(1)
    above = pl.col("from_ns") * pl.when(first == "2").then(2.5).otherwise(2.0)
    rows = _ms(frame.with_columns(below_ns=above))
    times = frame["ts"].unique().sort()
    span = times.diff().min()
    rows = rows.with_columns(until=pl.col("ts") + span if times.len() > 1 else pl.col("ts"))
    return (
        alt.Chart(rows, width=_WIDTH, height=_HEIGHT)
        .mark_rect(**_TOOLTIPS)
        .encode(
            x=_time(alt),
            x2="until:T",
            y=_log_ms(alt, "from_ms", "Y"),
            y2="below_ms:Q",
            color=alt.Color("count:Q", title="began", scale=alt.Scale(type="symlog", scheme="blues")),
        )
        .facet(row=alt.Row("waiting_for:N", title=None))
        .resolve_scale(y="independent")
    )


_CHARTS: dict[str, Callable[[Any, pl.DataFrame], Any]] = {
    "timeline": _timeline,
    "latency": _latency,
    "slowest": _slowest,
    "heat": _heat,
}
