"""capture.parquet: what is written comes back, to us and to programs that know nothing of us."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stratokit.errors import FormatError
from stratokit.formats import parquet
from stratokit.formats.parquet import CaptureReader, CaptureWriter
from stratokit.formats.tables import capture_schema
from stratokit.schema import load

START = 1_700_000_000_000_000_000


def packets(count: int, first: int = 0, data: bytes = b"frame") -> pa.Table:
    numbers = np.arange(first, first + count)
    return pa.table(
        {
            "ts": pa.array(START + numbers, pa.timestamp("ns", "UTC")),
            "frame": pa.array(numbers + 1, pa.uint64()),
            "comm": pa.array(["curl"] * count).dictionary_encode(),
            "src_ip": ["10.0.0.1"] * count,
            "data": pa.array([data] * count, pa.binary_view()),
        }
    )


def losses(counter: str, *amounts: int) -> pa.Table:
    return pa.table(
        {
            "ts": pa.array([START] * len(amounts), pa.timestamp("ns", "UTC")),
            "counter": [counter] * len(amounts),
            "amount": pa.array(amounts, pa.uint64()),
        }
    )


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    with CaptureWriter(path, {"host": "node-1"}) as writer:
        writer.write("packet", packets(3))
        writer.write("loss", losses("packet_no_space", 4, 5))
        writer.write("packet", packets(2, first=3))
        writer.metadata["recorded_by"] = "test"
    with CaptureReader(path) as reader:
        assert reader.metadata["host"] == "node-1"
        assert reader.metadata["recorded_by"] == "test"
        assert json.loads(reader.metadata["losses"]) == {"packet_no_space": 9}
        assert json.loads(reader.metadata["rows"]) == {"packet": 5, "loss": 2}
        assert reader.schema_version == load.capture().version
        assert sorted((g.kind, g.rows, g.first_ns, g.last_ns) for g in reader.row_groups) == [
            ("loss", 2, START, START),
            ("packet", 5, START, START + 4),
        ]
        (table,) = reader.iter_tables("packet")
        assert table.schema.names == parquet.kind_columns("packet")
        assert table["frame"].to_pylist() == [1, 2, 3, 4, 5]
        assert table["kind"].to_pylist() == ["packet"] * 5
        assert table["data"].to_pylist() == [b"frame"] * 5
        assert table["pod"].null_count == 5
        assert table.schema.field("comm").type == capture_schema().field("comm").type
        assert list(reader.iter_tables("syscall")) == []
        (narrow,) = reader.iter_tables("loss", ["amount", "counter"])
        assert narrow.to_pylist()[1] == {"amount": 5, "counter": "packet_no_space"}
    assert os.listdir(tmp_path) == ["capture.parquet"]


def test_other_programs_see_plain_types(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    with CaptureWriter(path, {}) as writer:
        writer.write("packet", packets(3))
        writer.write(
            "interface",
            pa.table(
                {
                    "ts": pa.array([START], pa.timestamp("ns", "UTC")),
                    "interface": ["lo"],
                    "addresses": pa.array([["127.0.0.1/8", "::1/128"]], pa.list_(pa.string())),
                }
            ),
        )
    frame = pl.read_parquet(path)
    assert frame.schema["kind"] == frame.schema["comm"] == pl.String
    assert frame.schema["ts"] == pl.Datetime("ns", "UTC")
    assert frame.schema["data"] == pl.Binary
    assert frame.filter(pl.col("kind") == "interface")["addresses"].to_list() == [["127.0.0.1/8", "::1/128"]]
    plain = pq.read_table(path)
    assert plain.schema.field("comm").type == pa.string()
    assert plain.schema.field("ts").type == pa.timestamp("ns", "UTC")
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(
        f"select kind, count(*), any_value(comm) from '{path}' group by 1 order by 1"
    ).fetchall()
    assert rows == [("interface", 1, None), ("packet", 3, "curl")]


def test_row_groups_hold_one_kind_sorted_by_time(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    with CaptureWriter(path, {}) as writer:
        for first in (200_000, 0, 100_000, 300_000):
            writer.write("packet", packets(100_000, first))
        writer.write("loss", losses("packet_cut", 1))
    with CaptureReader(path) as reader:
        assert all(group.kind and group.rows <= parquet.GROUP_ROWS for group in reader.row_groups)
        frames = [
            number for t in reader.iter_tables("packet", ["frame"]) for number in t["frame"].to_pylist()
        ]
    # The first three writes fill a flush; the fourth comes later and is later.
    assert frames == list(range(1, 400_001))


def test_row_groups_are_bounded_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    with CaptureWriter(path, {}) as writer:
        writer.write("packet", packets(6_000, data=bytes(65_000)))
    groups = pq.ParquetFile(path).metadata
    sizes = [groups.row_group(i).num_rows * 65_000 for i in range(groups.num_row_groups)]
    assert sum(sizes) == 6_000 * 65_000
    assert max(sizes) <= parquet.GROUP_BYTES
    assert len(sizes) <= 5


def test_a_damaged_row_group_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    with CaptureWriter(path, {}) as writer:
        writer.write("loss", losses("packet_cut", *range(100)))
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with CaptureReader(path) as reader, pytest.raises(FormatError, match="damaged in row group 0: ") as told:
        list(reader.iter_tables("loss"))
    assert str(told.value).splitlines() == [str(told.value)]


def test_polars_skips_row_groups_of_other_kinds(tmp_path: Path) -> None:
    """Damage in the row groups of another kind goes unnoticed when they are never read."""
    path = tmp_path / "capture.parquet"
    with CaptureWriter(path, {}) as writer:
        writer.write("packet", packets(1000))
        writer.write("loss", losses("packet_cut", *range(100)))
    metadata = pq.ParquetFile(path).metadata
    (loss_group,) = [
        metadata.row_group(i)
        for i in range(metadata.num_row_groups)
        if metadata.row_group(i).column(0).statistics.min == "loss"
    ]
    content = bytearray(path.read_bytes())
    for number in range(loss_group.num_columns):
        column = loss_group.column(number)
        start = column.dictionary_page_offset or column.data_page_offset
        content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    found = pl.scan_parquet(path).filter(pl.col("kind") == "packet").select("frame").collect()
    assert len(found) == 1000
    with pytest.raises(pl.exceptions.PolarsError):
        pl.scan_parquet(path).filter(pl.col("kind") == "loss").select("amount").collect()


def test_an_older_file_has_nulls_where_columns_are_new(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    old = pa.table({"kind": ["packet"], "ts": [START], "frame": pa.array([7], pa.uint32())})
    old = old.replace_schema_metadata({"stratokit.schema_version": "1"})
    pq.write_table(old, path)
    with CaptureReader(path) as reader:
        (table,) = reader.iter_tables("packet", ["ts", "frame", "comm"])
    moment = dt.datetime.fromtimestamp(START // 10**9, dt.UTC)
    assert table.to_pylist() == [{"ts": moment, "frame": 7, "comm": None}]


def test_mixed_row_groups_of_other_programs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    with CaptureWriter(path, {}) as writer:
        writer.write("packet", packets(10))
        writer.write("loss", losses("packet_cut", 1))
    table = pq.read_table(path)
    mixed = tmp_path / "mixed.parquet"
    pq.write_table(table, mixed)
    with CaptureReader(mixed) as reader:
        assert [g.kind for g in reader.row_groups] == [None]
        (packet_rows,) = reader.iter_tables("packet", ["frame"])
        assert packet_rows["frame"].to_pylist() == list(range(1, 11))


def test_an_empty_capture_is_a_capture(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    CaptureWriter(path, {"host": "node-1"}).close()
    with CaptureReader(path) as reader:
        assert reader.row_groups == []
        assert reader.metadata["host"] == "node-1"


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "capture.parquet"
    path.write_text("older")

    def fail_half_way() -> None:
        with CaptureWriter(path, {}) as writer:
            writer.write("packet", packets(3))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert os.listdir(tmp_path) == ["capture.parquet"]
    assert path.read_text() == "older"


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"cannot write .*No such file or directory"):
        CaptureWriter(tmp_path / "missing" / "capture.parquet", {})
    with pytest.raises(FormatError, match="cannot write /dev/full: No space left on device"):  # noqa: SIM117
        with CaptureWriter("/dev/full", {}) as writer:
            writer.write("packet", packets(3, data=os.urandom(60_000)))


def test_foreign_and_cut_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "capture.parquet"
    with CaptureWriter(whole, {}) as writer:
        writer.write("packet", packets(1000))
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(FormatError, match="cut or never finished"):
        CaptureReader(cut)
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    with pytest.raises(FormatError, match="no stratokit capture"):
        CaptureReader(foreign)
    with pytest.raises(FormatError, match="No such file"):
        CaptureReader(tmp_path / "missing.parquet")


def test_unknown_columns_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "capture.parquet", {}) as writer, pytest.raises(ValueError, match="amount"):
        writer.write("packet", losses("packet_cut", 1))
