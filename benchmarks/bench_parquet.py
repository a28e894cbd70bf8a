#!/usr/bin/env python3
"""What the choices of the Parquet writer cost: CPU seconds and bytes of one row group, written each way.

    benchmarks/bench_parquet.py [FILE.pcap]

FILE is made by tools/make_bench_capture.py in a temporary directory when it is not given. One JSON line a
way, the least of five rounds; output goes to memory. Frames are those of the file, and others as long of
random bytes, which is what encrypted payload looks like to a compressor.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timing import make_capture

from stratokit.engine.packet_survey import Survey, capture_tables
from stratokit.formats import parquet, registry
from stratokit.formats.tables import conform, view_schema
from stratokit.formats.views import as_views, view_lengths
from stratokit.schema import load

ROUNDS = 5
FILE_BYTES = 3e8  # more than a row group
NAMES = [column.name for column in load.capture().columns if column.type == "name"]


def group(path: Path) -> pa.Table:
    """The first packets of a file, as many as fill a row group."""
    parts: list[pa.Table] = []
    for _, table in capture_tables(path, registry.by_content(path), Survey()):
        parts.append(table)
        if sum(part.num_rows for part in parts) >= parquet.GROUP_ROWS:
            break
    table = pa.concat_tables(parts, promote_options="default").unify_dictionaries()
    return conform(table.slice(0, parquet.GROUP_ROWS), view_schema().names, view_schema())


def random_frames(like: pa.Table) -> pa.Table:
    """Frames of the same lengths with random bytes."""
    ends = np.concatenate([[0], np.cumsum(view_lengths(like["data"]), dtype=np.int64)])
    data = np.random.default_rng(1).integers(0, 256, int(ends[-1]), np.uint8)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
    column = pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, buffers)
    return pa.table({"data": as_views(pa.chunked_array([column]))})


def written(table: pa.Table, **options: Any) -> tuple[float, int]:
    """CPU seconds and bytes."""
    spent = []
    for _ in range(ROUNDS):
        begin, output = time.process_time(), pa.BufferOutputStream()
        dictionaries = [name for name in NAMES if name in table.schema.names]
        with pq.ParquetWriter(
            output, table.schema, use_dictionary=dictionaries, store_schema=False, **options
        ) as writer:
            writer.write_table(table, row_group_size=parquet.GROUP_ROWS)
        size = output.getvalue().size
        spent.append(time.process_time() - begin)
    return min(spent), size


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder, "big.pcap")
        if not path.exists():
            make_capture(path, FILE_BYTES)
        table = group(path)
    rows = {
        "frames": table.select(["data"]),
        "random frames": random_frames(table),
        "all other columns": table.drop_columns(["data"]),
        "columns that are null": table.select(
            [n for n in table.schema.names if table[n].null_count == table.num_rows]
        ),
    }
    ways: list[dict[str, Any]] = [{"compression": name} for name in ("zstd", "lz4", "none")]
    ways.append({"compression": "zstd", "write_batch_size": parquet.ENCODED_ROWS})
    for name, part in rows.items():
        for way in ways:
            cpu, size = written(part, **way)
            print(json.dumps({"rows": name, **way, "cpu_s": round(cpu, 3), "bytes": size}), flush=True)


if __name__ == "__main__":
    main()
