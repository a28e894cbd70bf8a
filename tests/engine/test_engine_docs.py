"""The pages of docs/ that follow from code are up to date, and nothing in them is without a meaning."""

from __future__ import annotations

import pytest

import docs
from stratokit.engine.tables import entries
from stratokit.reports.base import reports
from stratokit.schema import load


@pytest.mark.parametrize("name", docs.PAGES)
def test_a_page_says_what_the_code_says(name):
    assert name not in docs.outdated(), f"docs/{name} is outdated; run tools/docs.py"


def test_every_table_and_column_has_a_meaning():
    for name, entry in entries().items():
        assert entry.table.doc, name
        for column in entry.table.columns:
            assert column.doc, (name, column.name)
            assert column.type in load.COLUMN_TYPES, (name, column.name)
        assert len(entry.columns) == len(entry.table.columns), name


def test_every_report_and_its_columns_have_a_meaning():
    for name, report in reports().items():
        assert report.title, name
        assert report.doc, name
        assert set(report.narrow) <= {column.name for column in report.columns}, name
        for column in report.columns:
            assert column.doc, (name, column.name)


def test_every_field_has_a_meaning_and_stands_for_columns():
    for name, entry in entries().items():
        for spec in entry.fields:
            assert spec.doc, (name, spec.name)
            assert spec.values, (name, spec.name)


def test_units_end_the_names_of_columns():
    for name, entry in entries().items():
        for column in entry.table.columns:
            assert (column.unit == "ns") == column.name.endswith("_ns"), (name, column.name)
