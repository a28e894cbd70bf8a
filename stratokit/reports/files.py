"""Files by process: how much was read and written, how long that took, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports import io_calls
from stratokit.reports.base import Options, Report
from stratokit.schema import load
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a process name and file, most time first; a call that only names a file counts for it too."""
    by_path = [call.name for call in load.syscalls("x86_64").values() if call.group == "file"]
    on_file = pl.col("fd_kind") == "file"
    names_one = pl.col("path").is_not_null() & pl.col("syscall").is_in(by_path)
    calls = capture.table("syscalls").filter(on_file | (names_one & pl.col("fd_kind").is_null()))
    return io_calls.totals(calls, {"comm": pl.col("comm"), "file": pl.coalesce("fd_name", "path")})


REPORT = Report(
    name="files",
    title="Files",
    doc="Calls on files by process name and path, most time first.",
    place=82,
    needs=("syscalls",),
    columns=(
        Column("comm", "name", "Process name."),
        Column("file", "text", "Path of the file; empty where it is not known."),
        *io_calls.COLUMNS,
    ),
    build=build,
    narrow=("comm", "file", "calls", "errors", "read_bytes", "written_bytes", "total_ns", "p99_ns", "max_ns"),
)
