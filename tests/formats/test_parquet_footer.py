"""Row groups that were encoded apart stand in one file, as every reader of Parquet finds them."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stratokit.formats.parquet_footer import shifted

# Every kind of value that a footer has: statistics, dictionaries, lists, nulls, key and value.
TABLE = pa.table(
    {
        "number": pa.array([1, None, 3], pa.uint32()),
        "text": pa.array(["a", "b", "a"]).dictionary_encode(),
        "bytes": pa.array([b"x", b"", None]),
        "flag": pa.array([True, None, False]),
        "fraction": [0.5, 1.5, None],
        "list": pa.array([["p", "q"], [], None]),
        "null": pa.nulls(3, pa.int64()),
    }
).replace_schema_metadata({"key": "value" * 100})


def encoded(table: pa.Table) -> tuple[bytes, bytes]:
    """Chunks and footer."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_index=True)
    data = sink.getvalue().to_pybytes()
    size = int.from_bytes(data[-8:-4], "little")
    return data[4 : -8 - size], data[-8 - size : -8]


def whole(chunks: bytes, footer: bytes) -> io.BytesIO:
    return io.BytesIO(chunks + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize("shift", [1, 100, 10_000, 1 << 40])
def test_every_place_moves_and_nothing_else_changes(shift: int) -> None:
    _, footer = encoded(TABLE)
    moved = shifted(footer, shift)
    assert moved != footer
    assert shifted(moved, -shift) == footer == shifted(footer, 0)


def test_chunks_are_found_where_they_went() -> None:
    chunks, footer = encoded(TABLE)
    moved = shifted(footer, 1000)
    file = whole(b"PAR1" + bytes(1000) + chunks, moved)
    assert pq.read_table(file).equals(TABLE)
    column = pq.read_metadata(file).row_group(0).column(1)
    before = pq.read_metadata(whole(b"PAR1" + chunks, footer)).row_group(0).column(1)
    assert column.data_page_offset == before.data_page_offset + 1000
    assert column.dictionary_page_offset == before.dictionary_page_offset + 1000
    assert column.statistics.equals(before.statistics)
