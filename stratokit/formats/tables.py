"""The flat schema of a capture as Arrow sees it, and tables brought into its form."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pyarrow as pa

from stratokit.schema import load
from stratokit.schema.arrow import arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterable


@functools.cache
def capture_schema() -> pa.Schema:
    """All columns of capture.parquet in file order."""
    return arrow_schema(load.capture().columns)


def kind_columns(kind: str) -> list[str]:
    """Names of the columns that rows of `kind` may fill, in file order."""
    return [column.name for column in load.capture().of_kind(kind)]


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    if not pa.types.is_dictionary(kind):
        return column.cast(kind)
    if pa.types.is_dictionary(column.type):
        # Other widths of index or text; Arrow does not cast between dictionaries of different kinds.
        column = column.cast(column.type.value_type)
    return column.cast(kind.value_type).dictionary_encode()


def conform(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """`table` with exactly the capture columns `names`: missing ones null, others cast if they differ."""
    fields = [capture_schema().field(name) for name in names]
    columns = []
    for field in fields:
        index = table.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
        else:
            columns.append(_cast(table.column(index), field.type))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))
