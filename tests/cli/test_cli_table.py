"""`stratokit table`: formats, filters, columns, order, limits, files."""

from __future__ import annotations

import csv
import io
import json

import polars as pl
import pytest
from synthetic import MS, T0


def rows(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_table_for_people(stratokit, shop):
    done = stratokit("table", "syscalls", shop)
    assert done.code == 0
    assert 'dirfd=AT_FDCWD, path="/etc/hosts", flags=O_RDONLY|O_CLOEXEC' in done.out
    assert "40.0 ms" in done.out


def test_where_select_sort_limit(stratokit, shop):
    arguments = ("--where", "evt.latency >= 1ms", "--select", "syscall,duration_ns", "--sort", "-duration_ns")
    done = stratokit("table", "syscalls", shop, *arguments, "--limit", "2", "--format", "ndjson")
    assert rows(done.out) == [
        {"syscall": "epoll_wait", "duration_ns": 900 * MS},
        {"syscall": "read", "duration_ns": 40 * MS},
    ]


@pytest.mark.parametrize(
    ("where", "frames"),
    [
        ("tcp.flags.syn == 1", [5, 6]),
        ("dns", [1, 2, 3, 4]),
        ("udp.port == 50002", [3, 4]),
        ("ip.src == 10.0.0.2 && tcp.len > 0", [9, 11]),
        ('proc.name == "curl" and frame.number in {1..3}', [1, 2, 3]),
        ('frame contains "/cart"', [10]),
        ("http.response.code == 500", [11]),
        ('http.request.method == "GET"', [8, 10]),
        ("proc.cmdline", None),
    ],
)
def test_packets_are_chosen_by_wiresharks_words(stratokit, shop, where, frames):
    done = stratokit("table", "packets", shop, "--where", where, "--select", "frame", "--format", "ndjson")
    if frames is None:
        assert done.code == 2
        assert "is known only in the table processes" in done.err
    else:
        assert [row["frame"] for row in rows(done.out)] == frames


def test_fields_of_the_conversation_choose_requests(stratokit, shop):
    done = stratokit(
        "table",
        "http",
        shop,
        "--where",
        "tcp.port == 80 && ip.addr == 10.0.0.2 && http",
        "--format",
        "ndjson",
    )
    assert len(rows(done.out)) == 2
    done = stratokit("table", "http", shop, "--where", "tcp.port == 81", "--format", "ndjson")
    assert done.out == ""


def test_times_are_integers_for_programs(stratokit, shop):
    for format_ in ("json", "ndjson"):
        out = stratokit("table", "syscalls", shop, "--format", format_, "--limit", "1").out
        row = json.loads(out)[0] if format_ == "json" else json.loads(out)
        assert row["ts"] == T0 + MS
    out = stratokit("table", "syscalls", shop, "--format", "csv", "--limit", "1").out
    assert next(csv.DictReader(io.StringIO(out)))["ts"] == str(T0 + MS)


def test_a_list_is_one_cell_of_csv(stratokit, shop):
    out = stratokit("table", "interfaces", shop, "--format", "csv").out
    assert next(csv.DictReader(io.StringIO(out)))["addresses"] == "10.0.0.1/24"


@pytest.mark.parametrize("format_", ["json", "ndjson", "csv", "parquet", "table"])
def test_the_name_of_the_output_tells_its_format(stratokit, shop, tmp_path, format_):
    path = tmp_path / f"out.{format_}"
    done = stratokit("table", "packets", shop, "-o", path)
    assert (done.code, done.out, done.err) == (0, "", "")
    read = {"json": pl.read_json, "ndjson": pl.read_ndjson, "csv": pl.read_csv, "parquet": pl.read_parquet}
    if format_ in read:
        assert read[format_](path).height == 14
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_an_existing_output_is_kept_unless_forced(stratokit, shop, tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("precious")
    done = stratokit("table", "packets", shop, "-o", path)
    assert done.code == 1
    assert "exists; --force replaces it" in done.err
    assert path.read_text() == "precious"
    assert stratokit("table", "packets", shop, "-o", path, "--force").code == 0
    assert path.read_text().startswith("frame,")


def test_an_output_that_cannot_be_written(stratokit, shop, tmp_path):
    done = stratokit("table", "packets", shop, "-o", tmp_path / "no" / "such" / "x.csv")
    assert (done.code, done.out) == (1, "")
    assert "there is no folder" in done.err
    done = stratokit("table", "packets", shop, "-o", tmp_path)
    assert "is a folder" in done.err
    done = stratokit("table", "packets", shop, "--format", "csv", "-o", "/dev/full")
    assert done.code == 1
    assert "cannot write /dev/full: No space left on device" in done.err


def test_a_wrong_filter_leaves_no_output(stratokit, shop, tmp_path):
    path = tmp_path / "out.csv"
    done = stratokit("table", "packets", shop, "--where", "tcp.prot == 1", "-o", path)
    assert done.code == 2
    assert "there is no field tcp.prot; the nearest is tcp.port" in done.err
    assert "^^^^^^^^" in done.err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nonsense", "SHOP"], "there is no table 'nonsense'"),
        (["syscals", "SHOP"], "did you mean syscalls"),
        (["packets", "SHOP", "--select", "frame,nope"], "table packets has no column 'nope'"),
        (["packets", "SHOP", "--sort", "nope"], "table packets has no column 'nope'"),
        (["packets", "SHOP", "--format", "xml"], "none of table, json, ndjson, csv, parquet"),
        (["packets", "SHOP", "--limit", "-1"], "--limit"),
    ],
)
def test_wrong_values_are_explained(stratokit, shop, arguments, reason):
    done = stratokit("table", *(shop if a == "SHOP" else a for a in arguments))
    assert (done.code, done.out) == (2, "")
    assert reason in done.err


def test_long_tables_are_cut_for_people_only(stratokit, shop):
    done = stratokit("table", "packets", shop, "--limit", "3")
    assert "the first 3 rows; --limit 0 shows all" in done.out
    done = stratokit("table", "packets", shop, "--limit", "0")
    assert "--limit" not in done.out
