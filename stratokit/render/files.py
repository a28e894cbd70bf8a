"""Tables in the formats of other programs, streamed: a table may be larger than memory."""

from __future__ import annotations

import os
import re
from typing import IO

import polars as pl
import polars.selectors as cs

from stratokit.errors import FormatError

_OS_ERROR = re.compile(r"os error (\d+)")


def plain(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Times as integers of ns, bytes as hexadecimal digits: what JSON can hold."""
    return frame.with_columns(cs.datetime().to_physical(), cs.binary().bin.encode("hex"))


def _flat(frame: pl.LazyFrame) -> pl.LazyFrame:
    """As CSV can hold it: lists joined."""
    lists = [name for name, dtype in frame.collect_schema().items() if isinstance(dtype, pl.List)]
    return plain(frame).with_columns(pl.col(lists).list.join(" ")) if lists else plain(frame)


def _write_json(frame: pl.LazyFrame, out: IO[bytes]) -> None:
    """One array of objects, a batch of them after the other."""
    before = b"["
    for batch in frame.collect_batches(maintain_order=True):
        if batch.height:
            out.write(before + batch.write_json().encode()[1:-1])
            before = b","
    out.write((b"[]" if before == b"[" else b"]") + b"\n")


def write(frame: pl.LazyFrame, format_: str, out: IO[bytes]) -> None:
    """Write as parquet, csv, ndjson or json."""
    try:
        match format_:
            case "parquet":
                frame.sink_parquet(out)
            case "csv":
                _flat(frame).sink_csv(out)
            case "ndjson":
                plain(frame).sink_ndjson(out)
            case "json":
                _write_json(plain(frame), out)
    except pl.exceptions.ComputeError as error:
        raise FormatError(f"the table cannot be written: {error}") from error
    except OSError as error:
        # polars tells the number of an error in its text alone.
        number = _OS_ERROR.search(str(error))
        if error.errno is None and number:
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise
