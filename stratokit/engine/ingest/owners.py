"""Who owned a socket when: from cookies to processes.

Evidence comes from the cgroup hooks (created, connected, sent), from every system call on the socket (where
none are recorded from who sends with the socket locked, closes it, or has it at the end), and for sockets
older than the recording from inet_diag (cookie and inode) with /proc/<pid>/fd (inode and process). An
owner counts from its evidence until the next one; what happened on a socket before its first evidence (a
connection is set up before accept returns) belongs to that first one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from stratokit.engine.ingest.survey import Survey

_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")
TCP_LISTEN = 10
# Of open_calls instead of a start: system calls were left out, so it may have begun at any time.
NOT_WATCHED = 2
OWNER_SCHEMA = {
    "socket_cookie": pl.UInt64,
    "ts": pl.Int64,
    "pid": pl.UInt32,
    "tid": pl.UInt32,
    "comm": pl.String,
}


def owners(found: Survey) -> pl.DataFrame:
    """(socket_cookie, ts, pid, tid, comm) sorted by ts."""
    parts = [_older_sockets(found), _held(found), _waiting(found), found.owners.select(list(OWNER_SCHEMA))]
    return pl.concat(parts).sort("ts")


def _held(found: Survey) -> pl.DataFrame:
    """Who had a socket when the recording ended."""
    table = found.tables.get("holders", {"monotonic_ns": 0, "rows": []})
    now = int(found.clock.utc_ns(table["monotonic_ns"]))
    rows = [(row["socket_cookie"], now, row["pid"], row["pid"], row["comm"]) for row in table["rows"]]
    return pl.DataFrame(rows, schema=OWNER_SCHEMA, orient="row")


def _waiting(found: Survey) -> pl.DataFrame:
    """Who was still waiting on a socket when the recording ended."""
    rows = [
        (row["socket_cookie"], waiting_since_ns(row, found), row["pid"], row["tid"], row["comm"])
        for row in found.tables.get("open_calls", {"rows": []})["rows"]
        if row["socket_cookie"]
    ]
    frame = pl.DataFrame(rows, schema=OWNER_SCHEMA, orient="row")
    return frame.with_columns(pl.Series("ts", found.clock.utc_ns(frame["ts"].to_numpy()), pl.Int64))


def waiting_since_ns(row: dict[str, Any], found: Survey) -> int:
    """Since when, CLOCK_MONOTONIC, a thread was known to wait in the call of a row of open_calls."""
    if row["start_ns"] == NOT_WATCHED:
        return int(row["at_ns"])
    # A call older than the recording has no start: it was there from the first moment.
    return int(row["start_ns"] or found.clock_pairs[0]["monotonic_ns"])


def holders(found: Survey) -> dict[int, tuple[int, int]]:
    """By inode of a socket that was there at the start: a process that has it, and its descriptor there."""
    result: dict[int, tuple[int, int]] = {}
    for pid, fd, link, *_ in found.tables.get("descriptors", {"rows": []})["rows"]:
        if match := _SOCKET_LINK.fullmatch(link):
            # A socket shared by parent and children is reported for the one that got it last.
            inode = int(match[1])
            result[inode] = max(result.get(inode, (0, 0)), (pid, fd))
    return result


def _older_sockets(found: Survey) -> pl.DataFrame:
    sockets = found.tables.get("sockets", {"monotonic_ns": 0, "rows": []})
    names = {row["pid"]: row["comm"] for row in found.tables.get("processes", {"rows": []})["rows"]}
    by_inode = {inode: pid for inode, (pid, _) in holders(found).items()}
    now = int(found.clock.utc_ns(sockets["monotonic_ns"]))
    rows = [
        (
            row["socket_cookie"],
            now,
            by_inode[row["inode"]],
            by_inode[row["inode"]],
            names.get(by_inode[row["inode"]]),
        )
        for row in sockets["rows"]
        if row["inode"] in by_inode
    ]
    return pl.DataFrame(rows, schema=OWNER_SCHEMA, orient="row")


def with_owner(frame: pl.DataFrame, evidence: pl.DataFrame) -> pl.DataFrame:
    """`frame` (socket_cookie, ts) with pid, tid, comm of the socket's owner at that time, null where none is
    known, and `owner_ts`, when that thread was seen: the pid may mean another process by `ts`.
    """
    wanted = frame.with_row_index("row").sort("ts")
    keys = ["pid", "tid", "comm", "owner_ts"]
    evidence = evidence.with_columns(pl.col("ts").alias("owner_ts"))
    before = wanted.join_asof(
        evidence, on="ts", by="socket_cookie", strategy="backward", check_sortedness=False
    )
    after = wanted.select("row", "ts", "socket_cookie").join_asof(
        evidence, on="ts", by="socket_cookie", strategy="forward", check_sortedness=False
    )
    known = pl.col("pid").is_not_null()
    joined = before.join(
        after.select("row", *(pl.col(key).alias(f"{key}_after") for key in keys)), on="row", how="left"
    )
    return (
        joined.with_columns(
            pl.when(known).then(pl.col(key)).otherwise(pl.col(f"{key}_after")).alias(key) for key in keys
        )
        .sort("row")
        .drop("row", *(f"{key}_after" for key in keys))
    )


def listeners(found: Survey, sockets: pl.DataFrame) -> pl.DataFrame:
    """Cookies of listening sockets: those there at the start, and those that were seen to begin."""
    older = [
        row["socket_cookie"]
        for row in found.tables.get("sockets", {"rows": []})["rows"]
        if row["state"] == TCP_LISTEN and row["protocol"] == 6
    ]
    newer = sockets.filter(pl.col("new_state") == "LISTEN")["socket_cookie"]
    return pl.DataFrame({"socket_cookie": pl.concat([pl.Series(older, dtype=pl.UInt64), newer]).unique()})
