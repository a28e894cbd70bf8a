"""Rows of kind `socket`: state changes, round trips, retransmissions, and what was there at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.dissect.addresses import address_column, versions_of
from stratokit.engine.ingest.owners import holders
from stratokit.engine.ingest.stacks import with_stacks

if TYPE_CHECKING:
    from stratokit.engine.ingest.survey import Survey

# enum in include/net/tcp_states.h, by number.
STATES = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
)
_WHAT = {1: "state", 2: "rtt", 3: "retransmit"}
_STATE_NAMES = dict(enumerate(STATES))


def sockets(found: Survey) -> pl.DataFrame:
    """All socket rows with UTC times, sorted by ts, without owners. Rows with `lead` are not for the file."""
    frames = [_snapshot(found)]
    numbered = [(True, batch) for batch in found.lead_sockets] + [(False, batch) for batch in found.sockets]
    for lead, batch in numbered:
        fixed = batch.fixed
        rtt = fixed["srtt_us"].astype(np.uint64) * np.uint64(1000)
        frames.append(
            pl.DataFrame(
                {
                    "ts": found.clock.utc_ns(fixed["ts_ns"]),
                    "event": pl.Series(fixed["what"]).replace_strict(
                        _WHAT, default=None, return_dtype=pl.String
                    ),
                    "socket_cookie": pl.Series(fixed["socket_cookie"]).replace(0, None),
                    "netns": fixed["netns_cookie"],
                    "ip_proto": np.full(fixed.size, 6, np.uint8),
                    "src_ip": pl.from_arrow(
                        address_column(fixed["local_ip"], versions_of(fixed["local_ip"]))
                    ),
                    "dst_ip": pl.from_arrow(
                        address_column(fixed["remote_ip"], versions_of(fixed["remote_ip"]))
                    ),
                    "src_port": fixed["local_port"],
                    "dst_port": fixed["remote_port"],
                    "old_state": _names(fixed["old_state"]),
                    "new_state": _names(fixed["new_state"]),
                    "rtt_ns": pl.Series(rtt).replace(0, None),
                    "retransmits": fixed["total_retransmits"],
                    "congestion_window": fixed["congestion_window"],
                    "bytes_acked": fixed["bytes_acked"],
                    "bytes_received": fixed["bytes_received"],
                    "lead": np.full(fixed.size, lead),
                }
            ).with_columns(pl.col("src_ip", "dst_ip").cast(pl.String))
        )
    return with_stacks(pl.concat(frames, how="diagonal_relaxed").sort("ts"), found)


def _names(values: np.ndarray) -> pl.Series:
    return pl.Series(values).replace_strict(_STATE_NAMES, default=None, return_dtype=pl.String)


def _snapshot(found: Survey) -> pl.DataFrame:
    """Sockets that were there at the start: one row each, old and new state alike."""
    table = found.tables.get("sockets", {"monotonic_ns": 0, "rows": []})
    rows = table["rows"]
    state = [STATES[row["state"]] if row["state"] < len(STATES) else None for row in rows]
    now = int(found.clock.utc_ns(table["monotonic_ns"]))
    held = holders(found)
    fds = [held[row["inode"]][1] if row["inode"] in held else None for row in rows]
    return pl.DataFrame(
        {
            "ts": pl.Series([now] * len(rows), dtype=pl.Int64),
            "event": pl.Series(["snapshot"] * len(rows), dtype=pl.String),
            "socket_cookie": pl.Series([row["socket_cookie"] for row in rows], dtype=pl.UInt64),
            "ip_proto": pl.Series([row["protocol"] for row in rows], dtype=pl.UInt8),
            "src_ip": pl.Series([row["local_ip"] for row in rows], dtype=pl.String),
            "dst_ip": pl.Series([row["remote_ip"] for row in rows], dtype=pl.String),
            "src_port": pl.Series([row["local_port"] for row in rows], dtype=pl.UInt16),
            "dst_port": pl.Series([row["remote_port"] for row in rows], dtype=pl.UInt16),
            "netns": pl.Series([row.get("netns_cookie") for row in rows], dtype=pl.UInt64),
            "fd": pl.Series(fds, dtype=pl.Int32),
            "old_state": pl.Series(state, dtype=pl.String),
            "new_state": pl.Series(state, dtype=pl.String),
            "lead": pl.Series([False] * len(rows), dtype=pl.Boolean),
        }
    )
