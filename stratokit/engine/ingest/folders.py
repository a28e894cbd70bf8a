"""Relative paths completed: with the current directory of the process, or the name of the directory's fd.

A process has its parent's directory until it changes it. A name is joined as it was given: `..` and links
inside it stay, because what they led to then is not known. An empty name is the descriptor's own file
(AT_EMPTY_PATH of openat(2)), which is how the C library asks for the state of an open file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.engine.ingest import limits
from stratokit.engine.ingest.call_records import AT_FDCWD, NO_FOLDER

if TYPE_CHECKING:
    from stratokit.engine.ingest.survey import Survey

# So deep may directories be opened one from another, as `rm -r` does.
GENERATIONS = 32
_CWD = {"pid": pl.UInt32, "ts": pl.Int64, "cwd": pl.String}


class Folders:
    """Completes names; `files` is `Survey.files` with every name completed that can be."""

    def __init__(self, found: Survey, processes: pl.DataFrame) -> None:
        """`processes`: rows of kind process, for forks."""
        self._users = found.users.select("pid", "fd", "ts", "identity", "inode")
        self.files = found.files
        self._known = pl.DataFrame()
        self._again = limits.calls_again(found)
        self._cwd = _current(found, processes, {})
        self._complete_files()
        by_descriptor = found.folders.filter(pl.col("identity") != 0)
        if not by_descriptor.is_empty():
            named = self._names(by_descriptor.select("ts", "identity", pl.lit(None).alias("inode")))
            keys = by_descriptor.select("pid", "ts").iter_rows()
            self._cwd = _current(found, processes, dict(zip(keys, named, strict=True)))
            self.files = found.files
            self._complete_files()

    def complete(self, rows: pl.DataFrame) -> pl.Series:
        """The names of `rows` (pid, ts, dirfd, name); one whose directory is not known stays as it is."""
        rows = rows.with_row_index("row")
        relative = rows.filter(_is_relative())
        if relative.is_empty():
            return rows["name"]
        here = relative.filter(pl.col("dirfd") == AT_FDCWD).sort("ts")
        here = here.join_asof(self._cwd, on="ts", by="pid", check_sortedness=False).rename({"cwd": "folder"})
        there = relative.filter(pl.col("dirfd") >= 0).sort("ts")
        there = there.join_asof(
            self._users.rename({"fd": "dirfd"}).with_columns(pl.col("ts").alias("used")),
            on="ts",
            by=["pid", "dirfd"],
            check_sortedness=False,
        )
        # While calls were left out the descriptor may have become another directory's.
        there = there.join_asof(self._again, left_on="ts", right_on="again", check_sortedness=False)
        there = there.filter((pl.col("used") >= pl.col("again")).fill_null(True))
        there = there.with_columns(self._names(there.select("ts", "identity", "inode")).alias("folder"))
        columns = ["row", "name", "folder"]
        joined = pl.concat([here.select(columns), there.select(columns)]).filter(
            pl.col("folder").str.starts_with("/")
        )
        full = pl.concat_str(
            pl.col("folder").str.strip_chars_end("/"),
            pl.lit("/"),
            pl.col("name").str.replace(r"^(\./+)+", ""),
        )
        done = joined.select(
            "row", pl.when(pl.col("name").is_in(["", "."])).then("folder").otherwise(full).alias("full")
        )
        result = rows.join(done, on="row", how="left", maintain_order="left")
        return result.select(pl.coalesce("full", "name").alias("name")).to_series()

    def _names(self, wanted: pl.DataFrame) -> pl.Series:
        """Name of the file (identity, inode where known) at ts, in the order of `wanted`."""
        found = wanted.with_row_index("row").sort("ts")
        found = found.join_asof(self._known, on="ts", by="identity", check_sortedness=False).sort("row")
        same = (pl.col("named_inode") == pl.col("inode").cast(pl.UInt64)).fill_null(True)
        return found.select(pl.when(same).then("name").alias("name")).to_series()

    def _complete_files(self) -> None:
        """Directory by directory: the name of an inner one follows from that of the outer."""
        for _ in range(GENERATIONS):
            columns = ["identity", "ts", "name", pl.col("inode").alias("named_inode")]
            self._known = self.files.select(columns).sort("ts")
            names = self.complete(self.files.select("pid", "ts", "dirfd", "name"))
            if names.equals(self.files["name"]):
                return
            self.files = self.files.with_columns(names)


def _is_relative() -> pl.Expr:
    name, folder = pl.col("name"), pl.col("dirfd")
    return ((name != "") | (folder >= 0)) & ~name.str.starts_with("/") & (folder != NO_FOLDER)


def _current(found: Survey, processes: pl.DataFrame, by_descriptor: dict[Any, str | None]) -> pl.DataFrame:
    """(pid, ts, cwd) sorted by ts: the current directory from ts on, null where it is not known.

    `by_descriptor`: names of the directories that fchdir went to, by (pid, ts).
    """
    table = found.tables.get("processes", {"monotonic_ns": 0, "rows": []})
    now: dict[int, str | None] = {row["pid"]: row["cwd"] for row in table["rows"]}
    rows: list[tuple[int, int, str | None]] = [(pid, 0, cwd) for pid, cwd in now.items()]
    forks = processes.filter(pl.col("event") == "fork").select(
        "ts", "pid", "parent_pid", pl.lit(None, pl.String).alias("name"), pl.lit(False).alias("by_descriptor")
    )
    moves = found.folders.select(
        "ts", "pid", pl.lit(None, pl.UInt32).alias("parent_pid"), "name", pl.col("identity") != 0
    ).rename({"identity": "by_descriptor"})
    looked = found.tables.get("folders", {"rows": []})["rows"]  # after a time without system calls
    again = pl.DataFrame(
        [(int(found.clock.utc_ns(r["at_ns"])), r["pid"], None, r["cwd"], False) for r in looked],
        schema=moves.schema,
        orient="row",
    )
    for ts, pid, parent, name, descriptor in pl.concat([forks, moves, again]).sort("ts").iter_rows():
        if parent is not None:
            now[pid] = now.get(parent)
        elif descriptor:
            now[pid] = by_descriptor.get((pid, ts))
        elif name is None:
            now[pid] = None
        else:
            now[pid] = _joined(now.get(pid), name)
        rows.append((pid, ts, now[pid]))
    return pl.DataFrame(rows, schema=_CWD, orient="row").sort("ts")


def _joined(folder: str | None, name: str) -> str | None:
    if name.startswith("/"):
        return name
    if folder is None or name == ".":
        return folder
    return f"{folder.rstrip('/')}/{name}"
