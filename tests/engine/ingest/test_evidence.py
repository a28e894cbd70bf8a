"""What is kept of the evidence about sockets and files: every change, nothing twice."""

import polars as pl
import pytest

from stratokit.engine.ingest.evidence import Evidence

SCHEMA = {"key": pl.Int64, "ts": pl.Int64, "name": pl.String}


def kept(*parts, most=1000):
    evidence = Evidence(("key",), SCHEMA, most)
    for part in parts:
        evidence.add({"key": [r[0] for r in part], "ts": [r[1] for r in part], "name": [r[2] for r in part]})
    return evidence.frame().rows()


def test_a_pointer_that_goes_back_to_an_earlier_name_says_so():
    rows = [(1, 10, "a"), (1, 20, "b"), (1, 30, "a")]
    assert kept(rows) == rows


def test_repetition_is_dropped():
    assert kept([(1, 10, "a"), (1, 20, "a"), (2, 25, "a"), (1, 30, "a")]) == [(1, 10, "a"), (2, 25, "a")]


def test_null_is_a_value():
    rows = [(1, 10, None), (1, 20, "a"), (1, 30, None)]
    assert kept(rows) == rows


@pytest.mark.parametrize("most", [1, 2, 1000])
def test_order_and_compaction_do_not_matter(most):
    parts = [[(1, 30, "a")], [(1, 10, "a"), (2, 5, "x")], [(1, 20, "b")]]
    assert kept(*parts, most=most) == [(2, 5, "x"), (1, 10, "a"), (1, 20, "b"), (1, 30, "a")]


def test_an_empty_one_has_its_columns():
    assert Evidence(("key",), SCHEMA).frame().schema == SCHEMA
