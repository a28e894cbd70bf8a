"""Tables for people: pairs, headings, widths."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from stratokit.engine.capture import Capture
from stratokit.render.cells import cells, fitted, is_naming, plain_cells, text
from stratokit.render.text import loss_lines, print_report, print_table
from stratokit.reports.run import run
from stratokit.schema.model import Column

COLUMNS = (
    Column("ts", "time", "When."),
    Column("comm", "name", "Process."),
    Column("pid", "u32", "Process id."),
    Column("client_ip", "name", "Address."),
    Column("client_port", "u16", "Port."),
    Column("bytes_c2s", "u64", "Bytes.", "bytes"),
    Column("p99_ns", "s64", "Duration.", "ns"),
    Column("empty", "text", "Never filled."),
)
FRAME = pl.DataFrame(
    {
        "ts": pl.Series([1_767_225_600_000_000_000] * 3).cast(pl.Datetime("ns", "UTC")),
        "comm": ["curl", None, "x"],
        "pid": [10, 11, None],
        "client_ip": ["10.0.0.1", "fe80::1", None],
        "client_port": [80, 443, None],
        "bytes_c2s": [999, 1_500_000, None],
        "p99_ns": [0, 1_234_567, None],
        "empty": pl.Series([None] * 3, dtype=pl.String),
    }
)


def test_pairs_are_read_as_one_and_empty_columns_left_out():
    found = {cell.heading: cell for cell in cells(FRAME, COLUMNS)}
    assert list(found) == ["ts", "process", "client", "bytes →", "p99"]
    assert found["process"].texts == ["curl (10)", "11", "x"]
    assert found["client"].texts == ["10.0.0.1:80", "[fe80::1]:443", ""]
    assert found["bytes →"].texts == ["999 B", "1.50 MB", ""]
    assert found["p99"].texts == ["0", "1.23 ms", ""]
    assert found["p99"].right
    assert not found["process"].right


def test_a_table_keeps_the_names_that_select_takes():
    assert [cell.heading for cell in plain_cells(FRAME, COLUMNS)] == [
        c.name for c in COLUMNS if c.name != "empty"
    ]
    narrow = plain_cells(FRAME, COLUMNS, narrow=True)[0]
    assert narrow.texts[0] == "00:00:00.000000"


def test_texts_are_cut_and_numbers_are_not():
    columns = (Column("path", "text", "Text."), Column("count", "u64", "Number."))
    frame = pl.DataFrame({"path": ["/a/rather/long/path/to/something"], "count": [1_234_567]})
    path, count = fitted(cells(frame, columns), 30)
    assert path.texts == ["/a/rather/long/pat…"]
    assert count.texts == ["1,234,567"]


@pytest.mark.parametrize(
    ("value", "column", "expected"),
    [
        (None, Column("a", "u8", "."), ""),
        (True, Column("a", "bool", "."), "yes"),
        (1234567, Column("count", "u64", "."), "1,234,567"),
        (1234567, Column("pid", "u32", "."), "1234567"),
        (b"\x00\xff", Column("data", "bytes", "."), "00ff"),
        (["a", "b"], Column("a", "list<text>", "."), "a, b"),
        (0.123456, Column("a", "f64", "."), "0.123"),
    ],
)
def test_values(value, column, expected):
    assert text(value, column) == expected


def test_numbers_that_name_something_have_no_commas():
    assert all(
        map(
            is_naming, ("src_port", "pid", "parent_pid", "flow_id", "frame", "request_frame", "socket_cookie")
        )
    )
    assert not any(map(is_naming, ("count", "packets_c2s", "bytes", "retransmits")))


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width):
    out = io.StringIO()
    print_table(FRAME, COLUMNS, Console(file=out, width=width))
    assert max(map(len, out.getvalue().splitlines())) <= width
    assert ("not shown" in out.getvalue()) is (width < 80)


def test_markup_in_a_name_is_shown_as_it_is():
    out = io.StringIO()
    frame = pl.DataFrame({"comm": ["[red]x[/red]"]})
    print_table(frame, (Column("comm", "name", "."),), Console(file=out, width=80))
    assert "[red]x[/red]" in out.getvalue()


def losses(*rows: tuple[int, bool, str]) -> pl.DataFrame:
    schema = {"amount": pl.UInt64, "is_loss": pl.Boolean, "meaning": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_a_report_says_that_nothing_was_lost_only_where_losses_are_counted():
    assert loss_lines(losses(), counts_losses=True) == [(False, "Nothing was lost.")]
    assert "does not say whether" in loss_lines(losses(), counts_losses=False)[0][1]
    cut = losses((3, False, "packets were cut"))
    assert [line for _, line in loss_lines(cut, counts_losses=True)] == [
        "Nothing was lost.",
        "3 packets were cut",
    ]
    lost = losses((1200, True, "packets were lost"), (3, False, "packets were cut"))
    assert loss_lines(lost, counts_losses=True) == [
        (True, "1,200 packets were lost"),
        (False, "3 packets were cut"),
    ]


def test_sentences_are_shown_in_full_with_what_belongs_to_them_below():
    out = io.StringIO()
    console = Console(file=out, width=60, color_system=None)
    sample = Path(__file__).parents[2] / "sample_captures" / "tls.parquet"
    print_report(run(Capture.open(sample), ["findings"]), console)
    lines = out.getvalue().splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("- 2 of 10 TLS handshakes"))
    sentence = " ".join(line.strip() for line in lines[at : at + 2])
    assert sentence.endswith("failed: the client said unknown_ca.")
    assert all(len(line) <= 60 for line in lines[at:])
    assert any("tls.alert_message.desc" in line for line in lines[at:])
