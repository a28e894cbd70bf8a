"""Columns of bytes from the kernel, and their text."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa


def binary(data: Any, offsets: Any) -> pl.Series:
    """A Binary column of a gathered buffer."""
    array = pa.Array.from_buffers(
        pa.large_binary(), offsets.size - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def text(series: pl.Series) -> pl.Series:
    r"""Text of a Binary column; a byte that is no UTF-8 becomes \xNN, so that names stay apart."""
    try:
        return series.cast(pl.String)
    except pl.exceptions.ComputeError:
        distinct = series.drop_nulls().unique()
        mended = pl.Series([value.decode("utf-8", "backslashreplace") for value in distinct], dtype=pl.String)
        names = pl.DataFrame({"bytes": distinct, "text": mended})
        rows = pl.DataFrame({"bytes": series})
        return rows.join(names, on="bytes", how="left", maintain_order="left")["text"].alias(series.name)
