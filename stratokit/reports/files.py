"""Files by process: how much was read and written, how long that took, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.frames import collect
from stratokit.reports import io_calls
from stratokit.reports.base import Options, Report
from stratokit.schema import load
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


def build(capture: Capture, _: Options) -> pl.LazyFrame:
    """One row a process name and file, most time first; a call that only names a file counts for it too."""
    by_path = [call.name for call in load.syscalls("x86_64").values() if call.group == "file"]
    on_file, names_one = (
        pl.col("fd_kind") == "file",
        pl.col("fd_kind").is_null() & (pl.col("path") != ""),  # empty: of a descriptor that is no file
    )
    calls = capture.table("syscalls").filter(on_file | names_one)
    # Names are looked at in what is left: in all calls that would take longer than the rest.
    rows = collect(calls.select(*io_calls.USED, "comm", "fd_kind", "fd_name", "path")).lazy()
    rows = rows.filter(on_file | pl.col("syscall").is_in(by_path))
    return io_calls.totals(rows, {"comm": pl.col("comm"), "file": pl.coalesce("fd_name", "path")})


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
