"""What is in a file, whatever compresses it."""

import json
from pathlib import Path

import polars as pl


def everything(path: Path) -> bytes:
    """All that a reader of the file could find: its bytes, and every cell of a Parquet file."""
    found = [path.read_bytes()]
    if path.suffix == ".parquet":
        cells = pl.read_parquet(path)
        for name, kind in cells.schema.items():
            if kind == pl.Binary:
                found += cells[name].drop_nulls().to_list()
            elif kind == pl.String:
                found += [text.encode() for text in cells[name].drop_nulls().unique()]
            elif kind == pl.List(pl.String):
                found += [text.encode() for text in cells[name].explode().drop_nulls().unique()]
        found.append(json.dumps(pl.read_parquet_metadata(path)).encode())
    return b"\0".join(found)
