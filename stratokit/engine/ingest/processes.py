"""Processes: rows for the file, and the spans of time in which a pid meant one process in one cgroup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.engine.ingest.call_records import AT_FDCWD
from stratokit.engine.ingest.texts import binary, text
from stratokit.formats import events

if TYPE_CHECKING:
    from stratokit.engine.ingest.folders import Folders
    from stratokit.engine.ingest.survey import Survey

_WHAT = {1: "fork", 2: "exec", 3: "exit"}
# A start time from /proc is a clock tick (10 ms) at best; times closer than this are one start.
TICK_NS = 10_000_000


def _snapshot(found: Survey) -> pl.DataFrame:
    table = found.tables.get("processes", {"monotonic_ns": 0, "rows": []})
    names = (
        "pid",
        "parent_pid",
        "start_ns",
        "uid",
        "gid",
        "netns_inode",
        "comm",
        "path",
        "cmdline",
        "cgroup",
        "cwd",
    )
    frame = pl.DataFrame(
        {name: [row.get(name) for row in table["rows"]] for name in names},
        schema={
            **dict.fromkeys(("pid", "parent_pid"), pl.UInt32),
            "start_ns": pl.UInt64,
            **dict.fromkeys(("uid", "gid"), pl.UInt32),
            "netns_inode": pl.UInt64,
            **dict.fromkeys(("comm", "path", "cmdline", "cgroup", "cwd"), pl.String),
        },
    )
    # Processes of a container that was chosen while recording were there when they were looked at.
    at = np.array([row.get("at_ns", table["monotonic_ns"]) for row in table["rows"]], np.int64)
    return frame.select(
        pl.Series("ts", found.clock.utc_ns(at), pl.Int64),
        pl.lit("snapshot").alias("event"),
        pl.all(),
        pl.col("pid").alias("tid"),
    )


def _events(found: Survey, paths: dict[int, str]) -> pl.DataFrame:
    parts = []
    lead = len(found.lead_processes)
    for number, batch in enumerate([*found.lead_processes, *found.processes]):
        fixed = batch.fixed
        texts = {}
        for name in ("path", "cmdline"):
            data, offsets = events.gather(batch.data, *batch.sections[name])
            texts[name] = text(binary(data, offsets))
        ids = [paths.get(value) for value in fixed["cgroup_id"].tolist()]
        parts.append(
            pl.DataFrame(
                {
                    "ts": found.clock.utc_ns(fixed["ts_ns"]),
                    "event": [_WHAT.get(what) for what in fixed["what"].tolist()],
                    **{
                        n: fixed[n]
                        for n in ("pid", "tid", "parent_pid", "start_ns", "uid", "gid", "exit_code")
                    },
                    "netns_inode": fixed["netns_inode"].astype(np.uint64),
                    "comm": text(pl.Series(fixed["comm"].tolist(), dtype=pl.Binary)),
                    "path": texts["path"].str.strip_chars_end("\0"),
                    "cmdline": texts["cmdline"],
                    "cgroup": pl.Series(ids, dtype=pl.String),
                    "lead": np.full(fixed.size, number < lead),
                },
                schema_overrides={"start_ns": pl.UInt64, "exit_code": pl.UInt32},
            )
        )
    return pl.concat(parts) if parts else pl.DataFrame(schema={"ts": pl.Int64, "event": pl.String})


def processes(found: Survey, paths: dict[int, str]) -> pl.DataFrame:
    """Rows of kind `process` without container columns; `process_start` is UTC nanoseconds.

    Only a snapshot row knows its `cwd`; a fork row has the parent's program until an exec row says
    another. Rows with `lead` say what there was before a segment began: see `from_begin`.
    """
    frame = pl.concat([_snapshot(found), _events(found, paths)], how="diagonal_relaxed").sort("ts")
    missing = {
        name: kind
        for name, kind in (("exit_code", pl.UInt32), ("lead", pl.Boolean))
        if name not in frame.columns
    }
    frame = frame.with_columns(pl.lit(None, kind).alias(name) for name, kind in missing.items())
    start_ns = frame["start_ns"].fill_null(0)
    if found.opening.get("segment"):
        # A process that one segment saw begin is in the snapshot of the next, and is to have one start.
        start_ns = start_ns // TICK_NS * TICK_NS
    start = found.clock.boot_to_utc_ns(start_ns.to_numpy())
    code = pl.col("exit_code")
    signal = code & 0x7F
    exit_code = (
        pl.when(signal != 0).then(signal.cast(pl.Int32) + 128).otherwise((code // 256 & 0xFF).cast(pl.Int32))
    )
    frame = frame.with_columns(
        pl.when(pl.col("start_ns").fill_null(0) > 0).then(pl.Series(start)).alias("process_start"),
        pl.when(pl.col("event") == "exit").then(exit_code).alias("exit_code"),
        pl.col("path").replace("", None),
        _shell_words(pl.col("cmdline")).alias("cmdline"),
        pl.col("lead").fill_null(False),
    )
    return _one_start(frame).drop("start_ns")


def from_begin(frame: pl.DataFrame, begin_ns: int | None) -> pl.DataFrame:
    """The rows that a segment has which begins at `begin_ns`: of what came before one row of event `snapshot`
    for every process that was still there. None: the recording begins where its rows do.
    """
    if begin_ns is None:
        return frame.drop("lead")
    # Processes of a container that came later are noted later.
    first = (pl.col("event") == "snapshot") & (pl.col("ts") <= begin_ns)
    before = frame.filter(pl.col("lead") | first)
    # A process may be in the snapshot and have executed another program since; a fork says less than either.
    known = before.sort(pl.col("event") == "fork", "ts", descending=[True, False], maintain_order=True)
    known = known.unique(["pid", "process_start"], keep="last", maintain_order=True)
    ended = before.filter(pl.col("event") == "exit").select("pid", "process_start").unique()
    known = known.join(ended, on=["pid", "process_start"], how="anti", nulls_equal=True)
    known = known.with_columns(pl.lit("snapshot").alias("event"))
    return pl.concat([known, frame.filter(~pl.col("lead") & ~first)]).sort("ts").drop("lead")


def with_full_paths(frame: pl.DataFrame, folders: Folders) -> pl.DataFrame:
    """`frame` with relative programs completed."""
    named = frame.select("pid", "ts", pl.lit(AT_FDCWD, pl.Int32).alias("dirfd"), pl.col("path").alias("name"))
    return frame.with_columns(folders.complete(named).alias("path"))


def _shell_words(column: pl.Expr) -> pl.Expr:
    """NUL-terminated arguments as one line: arguments that a shell would split are quoted."""
    words = column.str.strip_chars_end("\0").str.split("\0")
    element = pl.element()
    plain = element.str.contains(r"^[A-Za-z0-9_@%+=:,./-]+$")
    quoted = pl.concat_str(pl.lit("'"), element.str.replace_all("'", "'\"'\"'", literal=True), pl.lit("'"))
    line = words.list.eval(pl.when(plain).then(element).otherwise(quoted)).list.join(" ")
    return pl.when(column.fill_null("") == "").then(None).otherwise(line)


def _one_start(frame: pl.DataFrame) -> pl.DataFrame:
    """Events and the snapshot give one process the same start: the kernel's exact one replaces the tick of
    /proc.
    """
    exact = frame.filter(pl.col("event") != "snapshot", pl.col("process_start").is_not_null())
    exact = exact.select("pid", pl.col("process_start").alias("exact")).unique().sort("exact")
    rows = frame.with_row_index("row").with_columns(pl.col("process_start").alias("tick_start"))
    known = rows.filter(pl.col("tick_start").is_not_null()).sort("tick_start")
    if exact.is_empty() or known.is_empty():
        return frame
    matched = known.join_asof(
        exact,
        left_on="tick_start",
        right_on="exact",
        by="pid",
        strategy="forward",
        tolerance=TICK_NS,
        coalesce=False,
        check_sortedness=False,
    ).select("row", "exact")
    rows = rows.join(matched, on="row", how="left").sort("row")
    return rows.with_columns(
        pl.when(pl.col("event") == "snapshot")
        .then(pl.coalesce("exact", "process_start"))
        .otherwise(pl.col("process_start"))
        .alias("process_start")
    ).drop("row", "exact", "tick_start")


def spans(frame: pl.DataFrame) -> pl.DataFrame:
    """(pid, since, process_start, cgroup) for `join_asof`: what a pid meant from `since` on.

    A process of the snapshot counts from its own start; a forked one has its parent's cgroup until it says
    another.
    """
    since = (
        pl.when(pl.col("event") == "snapshot")
        .then(pl.coalesce("process_start", "ts"))
        .otherwise(pl.col("ts"))
    )
    return (
        frame.filter(pl.col("event") != "exit")
        .select("pid", since.alias("since"), "process_start", "cgroup")
        .sort("since")
    )


def with_process(frame: pl.DataFrame, known: pl.DataFrame, at: str = "ts") -> pl.DataFrame:
    """`frame` with process_start and cgroup of the process that `pid` meant at the time in column `at`."""
    wanted = frame.with_row_index("row").sort(at)
    joined = wanted.with_columns(pl.col(at).fill_null(0)).join_asof(
        known, left_on=at, right_on="since", by="pid", strategy="backward", check_sortedness=False
    )
    return joined.sort("row").drop("row", "since", strict=False)


def pid_list(values: Any) -> list[int]:
    """Distinct pids of a numpy array."""
    return sorted(set(np.unique(values).tolist()))
