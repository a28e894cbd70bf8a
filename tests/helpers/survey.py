"""A survey by hand: what the first pass over a spool would have found."""

import polars as pl

from stratokit.engine.ingest.clock import Clock
from stratokit.engine.ingest.datagrams import Datagrams
from stratokit.engine.ingest.survey import Survey
from stratokit.formats.spool import Damage

# On this clock monotonic, real and boot time are one.
CLOCK = [{"monotonic_ns": 0, "real_ns": 0, "boot_ns": 0, "spread_ns": 0}]
SCHEMAS = {
    "owners": {
        "socket_cookie": pl.UInt64,
        "ts": pl.Int64,
        "pid": pl.UInt32,
        "tid": pl.UInt32,
        "comm": pl.String,
    },
    "files": {
        "identity": pl.UInt64,
        "ts": pl.Int64,
        "pid": pl.UInt32,
        "dirfd": pl.Int32,
        "name": pl.String,
        "inode": pl.UInt64,
        "type": pl.UInt32,
    },
    "users": {"pid": pl.UInt32, "fd": pl.Int32, "ts": pl.Int64, "identity": pl.UInt64, "inode": pl.UInt64},
    "closes": {"pid": pl.UInt32, "fd": pl.Int32, "ts": pl.Int64},
    "folders": {"pid": pl.UInt32, "ts": pl.Int64, "name": pl.String, "identity": pl.UInt64},
    "homes": {"socket_cookie": pl.UInt64, "ts": pl.Int64, "netns": pl.UInt64},
    "ends": {"key": pl.UInt64, "ts": pl.Int64, "socket_cookie": pl.UInt64},
}


def survey(tables=None, **rows):
    """`tables`: name -> rows, as the recorder writes them; `rows`: tuples for the frames of SCHEMAS."""
    frames = {
        name: pl.DataFrame(rows.get(name, []), schema=schema, orient="row")
        for name, schema in SCHEMAS.items()
    }
    found = {name: {"table": name, "monotonic_ns": 0, "rows": made} for name, made in (tables or {}).items()}
    return Survey(
        opening={},
        layouts={},
        clock=Clock(CLOCK),
        clock_pairs=CLOCK,
        tables=found,
        counters=[],
        closing=None,
        damage=Damage(),
        unreadable=0,
        read={},
        processes=[],
        sockets=[],
        datagrams=Datagrams(),
        **frames,
    )
