"""JSON and HTML: what programs and browsers get."""

from __future__ import annotations

import html.parser
import io
import json

import polars as pl
import pytest
import synthetic
from synthetic import T0

from stratokit.engine.capture import Capture
from stratokit.render import files
from stratokit.render import html as html_report
from stratokit.render import json as json_report
from stratokit.reports.run import run


class Balance(html.parser.HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = frozenset(("meta",))
    OPTIONAL = frozenset(("html",))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def result(tmp_path):
    evil = synthetic.syscall(T0, "openat", comm="<script>alert(1)</script>")
    return run(Capture.open(synthetic.small_shop(tmp_path / "shop.parquet", syscall=[evil])))


def test_the_page_is_well_formed_and_runs_its_own_script_only(result):
    out = io.StringIO()
    html_report.write_report(result, out)
    page = out.getvalue()
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert page.count("<script") == 1, "the page's own"
    assert "http://" not in page
    assert "https://" not in page
    assert "&lt;script&gt;" in page
    for part in result.sections:
        assert f'<h2 id="{part.report.name}">' in page


def test_json_is_one_object_and_keeps_odd_text(result):
    out = io.StringIO()
    json_report.write_report(result, out)
    report = json.loads(out.getvalue())
    assert report["syscalls"]["rows"][0]["comm"] == "<script>alert(1)</script>"


def test_large_numbers_times_and_bytes_survive():
    frame = pl.DataFrame(
        {
            "cookie": pl.Series([2**64 - 1], dtype=pl.UInt64),
            "ts": pl.Series([1_767_225_600_000_000_001]).cast(pl.Datetime("ns", "UTC")),
            "data": [b"\x00\xff"],
            "names": [["a", "b"]],
        }
    ).lazy()
    out = io.BytesIO()
    files.write(frame, "ndjson", out)
    assert json.loads(out.getvalue()) == {
        "cookie": 2**64 - 1,
        "ts": 1_767_225_600_000_000_001,
        "data": "00ff",
        "names": ["a", "b"],
    }
    out = io.BytesIO()
    files.write(frame, "csv", out)
    assert out.getvalue() == b"cookie,ts,data,names\n18446744073709551615,1767225600000000001,00ff,a b\n"
    out = io.BytesIO()
    files.write(frame.clear(), "json", out)
    assert json.loads(out.getvalue()) == []


@pytest.mark.parametrize("rows", [0, 1, 300_000])
def test_an_array_of_objects_is_whole_however_many_batches_it_takes(rows):
    out = io.BytesIO()
    files.write(pl.LazyFrame({"n": range(rows)}, schema={"n": pl.Int64}), "json", out)
    assert out.getvalue().endswith(b"]\n")
    assert json.loads(out.getvalue()) == [{"n": n} for n in range(rows)]
