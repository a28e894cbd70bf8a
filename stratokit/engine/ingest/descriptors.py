"""What a file descriptor was called: from the calls that opened it, and from /proc at the start.

The kernel program gives every call on an fd the identity of the open file behind it, which dup, fork and
passing over a socket keep. A path is known when the call that opened it was seen. For files that were open
before, the snapshot of /proc says what (pid, fd) was; it counts for a file that the process, or the nearest
ancestor that the snapshot knows, used under that fd before it closed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from stratokit.engine.ingest.survey import Survey

GENERATIONS = 16
_SNAPSHOT = {"origin": pl.UInt32, "fd": pl.Int32, "name": pl.String, "listed": pl.UInt64}


def file_names(found: Survey, processes: pl.DataFrame, files: pl.DataFrame) -> pl.DataFrame:
    """(identity, ts, name, named_inode, named_type) sorted by ts, for `join_asof`: an open file's name from
    `ts` on. `files` is `Survey.files` with names completed.

    A name holds for a file with that inode and of that type (null: any) only: a pointer may be used again by
    a file that nobody was seen to open, and file systems count inodes on their own.
    """
    inode = pl.col("inode").alias("named_inode")
    opened = files.select("identity", "ts", "name", inode, pl.col("type").alias("named_type"))
    older = _older(found, processes).with_columns(pl.lit(None, pl.UInt32).alias("named_type"))
    return pl.concat([older, opened]).sort("ts")


def _older(found: Survey, processes: pl.DataFrame) -> pl.DataFrame:
    table = found.tables.get("descriptors", {"monotonic_ns": 0, "rows": []})
    # Spools of the first recorders have rows without the inode.
    rows = [(*row, None)[: len(_SNAPSHOT)] for row in table["rows"]]
    snapshot = pl.DataFrame(rows, schema=_SNAPSHOT, orient="row").unique(["origin", "fd"])
    first = found.users.sort("ts").unique(["pid", "fd", "identity"], keep="first", maintain_order=True)
    first = first.unique(["pid", "fd"], keep="first", maintain_order=True)
    closed = found.closes.group_by("pid", "fd").agg(pl.col("ts").min().alias("closed"))
    opened = found.files.select("identity", pl.col("ts").alias("opened")).sort("opened")
    candidates = (
        first.join(_origins(processes, snapshot), on="pid", how="left")
        .with_columns(pl.coalesce("origin", "pid"))
        .join(snapshot, on=["origin", "fd"])
        .join(closed, on=["pid", "fd"], how="left")
        .filter(pl.col("closed").is_null() | (pl.col("ts") <= pl.col("closed")))
        .sort("ts")
        .join_asof(opened, left_on="ts", right_on="opened", by="identity", check_sortedness=False)
        .filter(pl.col("opened").is_null())
    )
    # Not every way to close is seen as one (exec, dup2, close_range): then the fd is another file.
    same = candidates.filter(pl.col("listed").is_null() | (pl.col("listed") == pl.col("inode")))
    # The file was open under this name since before the recording, whoever used it first.
    start = pl.lit(0, pl.Int64).alias("ts")
    return same.select("identity", start, "name", pl.col("inode").alias("named_inode")).unique("identity")


def _origins(processes: pl.DataFrame, snapshot: pl.DataFrame) -> pl.DataFrame:
    """(pid, origin): the nearest ancestor of a forked process that the snapshot knows."""
    parents = (
        processes.filter(pl.col("event") == "fork")
        .select("pid", pl.col("parent_pid").alias("origin"))
        .unique("pid", keep="last", maintain_order=True)
    )
    known = snapshot.select("origin").unique().with_columns(pl.lit(True).alias("known"))
    for _ in range(GENERATIONS):
        step = parents.join(known, on="origin", how="left").join(
            parents.select(pl.col("pid").alias("origin"), pl.col("origin").alias("above")),
            on="origin",
            how="left",
        )
        climbing = step["known"].is_null() & step["above"].is_not_null()
        if not climbing.any():
            break
        parents = step.select("pid", pl.when(climbing).then("above").otherwise("origin").alias("origin"))
    return parents
