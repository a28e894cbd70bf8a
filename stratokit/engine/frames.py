"""Between the schema's column types and polars."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from stratokit.errors import FormatError
from stratokit.schema.model import Column

# A "name" is dictionary-coded in the file only: plain text can be searched, joined and concatenated freely.
POLARS_TYPES: dict[str, pl.DataType] = {
    "u8": pl.UInt8(),
    "u16": pl.UInt16(),
    "u32": pl.UInt32(),
    "u64": pl.UInt64(),
    "s32": pl.Int32(),
    "s64": pl.Int64(),
    "f64": pl.Float64(),
    "bool": pl.Boolean(),
    "text": pl.String(),
    "name": pl.String(),
    "bytes": pl.Binary(),
    "time": pl.Datetime("ns", "UTC"),
    "list<text>": pl.List(pl.String()),
}


def polars_schema(columns: Iterable[Column]) -> pl.Schema:
    """Names and polars types of `columns`."""
    return pl.Schema({column.name: POLARS_TYPES[column.type] for column in columns})


def conform(frame: pl.LazyFrame, columns: Iterable[Column]) -> pl.LazyFrame:
    """`frame` with exactly `columns`: what it lacks is null, what has another type is cast."""
    have = frame.collect_schema()
    want = polars_schema(columns)
    changes = []
    for name, dtype in want.items():
        if name not in have:
            changes.append(pl.lit(None, dtype=dtype).alias(name))
        elif have[name] != dtype:
            changes.append(pl.col(name).cast(dtype))
    return frame.with_columns(changes).select(want.names()) if changes else frame.select(want.names())


def collect(frame: pl.LazyFrame) -> pl.DataFrame:
    """The rows; what polars says about a damaged file becomes an error for the user."""
    try:
        return frame.collect()
    except (pl.exceptions.ComputeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FormatError(f"the capture cannot be read to its end: {reason}") from error
