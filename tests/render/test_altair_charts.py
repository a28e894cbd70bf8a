"""Altair charts of sections: they obey Vega-Lite's schema and show the section's own numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest

import stratokit as sk
from stratokit.errors import UsageError
from stratokit.render import altair_charts

SAMPLES = Path(__file__).parents[2] / "sample_captures"
NAMES = ["timeline", "latency", "slowest", "heat"]


@pytest.fixture(scope="module")
def report():
    return sk.open(SAMPLES / "mixed.parquet").report([*NAMES, "tls"])


def values(chart) -> pl.DataFrame:
    """The rows that the chart brings along; `to_dict` holds it against the schema."""
    (rows,) = chart.to_dict()["datasets"].values()
    return pl.DataFrame(rows, infer_schema_length=None)


def test_half_and_99_of_100_stand_in_milliseconds(report):
    rows = values(report.chart("timeline"))
    half = rows.filter(pl.col("took at most") == "half")
    assert (half["ms"] * 1e6).round().to_list() == report["timeline"]["p50_ns"].drop_nulls().to_list()


def test_each_layer_has_a_bar(report):
    rows = values(report.chart("latency"))
    layers = report["latency"].filter(pl.col("part") == "all of it").drop_nulls("p50_ns")
    assert rows["waiting_for"].to_list() == layers["waiting_for"].to_list()
    assert (rows["max_ms"] * 1e6).round().to_list() == layers["max_ns"].to_list()


def test_the_slowest_are_bars_of_their_parts(report):
    rows = values(report.chart("slowest"))
    parts = report["slowest"].select(pl.sum_horizontal(pl.col(list(altair_charts.PARTS)))).to_series()
    shown = rows.group_by("nr", maintain_order=True).agg(pl.col("ms").sum())
    assert [round(ms * 1e6) for ms in shown["ms"]] == [ns for ns in parts.to_list() if ns]


def test_the_heat_map_has_all_waits(report):
    rows = values(report.chart("heat"))
    assert rows["count"].sum() == report["heat"]["count"].sum()
    assert (rows["below_ms"] / rows["from_ms"]).round(3).is_in([2.0, 2.5]).all()


def test_what_has_no_chart_is_told(report, monkeypatch):
    with pytest.raises(UsageError, match="section 'tls' has no chart; these have: timeline, latency"):
        report.chart("tls")
    with pytest.raises(UsageError, match="nothing to draw"):
        sk.open(SAMPLES / "mixed.parquet").report(["tls"]).chart("slowest")
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(UsageError, match=r"pip install 'stratokit\[notebook\]'"):
        report.chart("slowest")
