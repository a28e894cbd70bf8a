"""Names are bytes to the kernel: whatever they hold, they become text."""

import polars as pl
import pytest

from stratokit.engine.ingest.texts import text


@pytest.mark.parametrize("values", [[], [None], [b"ok", None, "caf\u00e9".encode()]])
def test_text_stays(values):
    result = text(pl.Series("a", values, dtype=pl.Binary))
    assert result.to_list() == [None if value is None else value.decode() for value in values]


def test_other_bytes_are_escaped_so_that_names_stay_apart():
    values = [b"\xff\xfeab", b"ok", None, b"x" * 20 + b"\xff", b"ok", b"\xff\xfeab"]
    result = text(pl.Series("a", values, dtype=pl.Binary))
    expected = [r"\xff\xfeab", "ok", None, "x" * 20 + r"\xff", "ok", r"\xff\xfeab"]
    assert result.to_list() == expected
