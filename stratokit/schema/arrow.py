"""The flat schema of capture.parquet, and tables of columns in general, as Arrow schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stratokit.schema.model import Column

# "name" is text with few distinct values: dictionary-coded in memory and in Parquet, plain text to every
# reader.
ARROW_TYPES: dict[str, pa.DataType] = {
    "u8": pa.uint8(),
    "u16": pa.uint16(),
    "u32": pa.uint32(),
    "u64": pa.uint64(),
    "s32": pa.int32(),
    "s64": pa.int64(),
    "f64": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
    "name": pa.dictionary(pa.int32(), pa.string()),
    "bytes": pa.large_binary(),
    "time": pa.timestamp("ns", tz="UTC"),
    "list<text>": pa.list_(pa.string()),
}


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Arrow schema of `columns`, each with its doc and unit as field metadata."""
    fields = []
    for column in columns:
        metadata = {"doc": column.doc}
        if column.unit:
            metadata["unit"] = column.unit
        fields.append(pa.field(column.name, ARROW_TYPES[column.type], metadata=metadata))
    return pa.schema(fields)
