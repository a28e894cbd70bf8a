"""The flat schema of a capture as Arrow sees it, and tables brought into its form."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pyarrow as pa

from stratokit.formats.views import as_views
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
    if pa.types.is_binary_view(kind) and pa.types.is_large_binary(column.type):
        return as_views(column)
    if not pa.types.is_dictionary(kind):
        return column.cast(kind)
    if pa.types.is_dictionary(column.type):
        # Other widths of index or text; Arrow does not cast between dictionaries of different kinds.
        column = column.cast(column.type.value_type)
    return column.cast(kind.value_type).dictionary_encode()


@functools.cache
def view_schema() -> pa.Schema:
    """`capture_schema` with bytes as views: rows are given on, and written, without a copy of theirs."""
    fields = list(capture_schema())
    views = [f.with_type(pa.binary_view()) if f.type == pa.large_binary() else f for f in fields]
    return pa.schema(views)


def conform(table: pa.Table, names: Iterable[str], schema: pa.Schema | None = None) -> pa.Table:
    """`table` with exactly the columns `names` of `schema`, by default `capture_schema`.

    Missing ones are null, others cast if they differ.
    """
    schema = schema or capture_schema()
    fields = [schema.field(name) for name in names]
    columns = []
    for field in fields:
        index = table.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
        else:
            columns.append(_cast(table.column(index), field.type))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))
