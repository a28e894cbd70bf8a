"""Rows made while polars asks for them: a LazyFrame over what gives columns piece by piece."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Generator, Iterator, Mapping

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from stratokit.engine.frames import polars_schema
from stratokit.formats.views import spread
from stratokit.schema import load

# A piece: how many rows, and the columns that are there; those that are not are null.
Piece = tuple[int, Mapping[str, pa.Array]]


def lazy_rows(kind: str, pieces: Callable[[Collection[str]], Generator[Piece]]) -> pl.LazyFrame:
    """Rows of one kind as a LazyFrame; `pieces` gives columns of these names."""
    schema = polars_schema(load.capture().of_kind(kind))

    def scan(
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG001
    ) -> Iterator[pl.DataFrame]:
        """What polars calls: rows with the columns that a query needs, until it has enough of them.

        Only Arrow and numba run in threads of our own. polars waits for this generator in one of its
        threads, and would wait for ever if it needed that thread to filter what another one made.
        """
        shown = list(schema.names()) if with_columns is None else with_columns
        names = {*shown, *(predicate.meta.root_names() if predicate is not None else ())}
        given = 0
        with contextlib.closing(pieces(names)) as found:
            for height, columns in found:
                frame = _frame(kind, height, columns, names, schema)
                if predicate is not None:
                    frame = frame.filter(predicate)
                if n_rows is not None:
                    frame = frame.head(n_rows - given)
                given += frame.height
                yield frame.select(shown)
                if n_rows is not None and given >= n_rows:
                    return
        if not given:
            yield pl.DataFrame(schema={name: schema[name] for name in shown})

    rows: pl.LazyFrame = register_io_source(scan, schema=schema, is_pure=True, validate_schema=False)
    return rows


class _Exported:
    """An Arrow array by Arrow's own interface between libraries alone: for a pyarrow array polars would load
    pyarrow.compute, which takes 30 ms.
    """

    def __init__(self, array: pa.Array) -> None:
        self._array = array

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        schema, array = self._array.__arrow_c_array__(requested_schema)
        return schema, array


def _frame(
    kind: str, height: int, columns: Mapping[str, pa.Array], names: Collection[str], schema: pl.Schema
) -> pl.DataFrame:
    """Arrow columns as polars has them: names as text, absent ones null."""
    found = {}
    for name in names:
        column = columns.get(name)
        if column is None or column.null_count == height:
            found[name] = _filled(kind if name == "kind" else None, schema[name], height).alias(name)
        else:
            text = isinstance(column, pa.DictionaryArray)
            series = pl.Series(name, _Exported(spread(column) if text else column))
            found[name] = series if series.dtype == schema[name] else series.cast(schema[name])
    return pl.DataFrame(found)


# Pieces are of a few sizes, and many columns of all of them are null: made once, shared by all.
_FILLED_MAX = 64


@functools.lru_cache(_FILLED_MAX)
def _longest(value: str | None, dtype: pl.DataType, height: int) -> pl.Series:
    return pl.repeat(value, height, dtype=dtype, eager=True)


def _filled(value: str | None, dtype: pl.DataType, height: int) -> pl.Series:
    """`value` as often as wanted."""
    return _longest(value, dtype, 1 << max(height - 1, 0).bit_length()).head(height)
