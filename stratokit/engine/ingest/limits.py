"""Steps that the recorder took to stay within its limits, as metadata of the capture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.ingest.survey import Survey


# What is left out with these can change what descriptors and folders are called.
_CALLS = ("busy system calls", "system calls")


def calls_again(found: Survey) -> pl.DataFrame:
    """(again) sorted: when system calls that had been left out were recorded again, UTC ns."""
    times = [
        int(found.clock.utc_ns(row["at_ns"]))
        for row in found.tables.get("limits", {"rows": []})["rows"]
        if row["step"] in _CALLS and row["action"] == "recorded again"
    ]
    return pl.DataFrame({"again": times}, schema={"again": pl.Int64}).sort("again")


def steps(found: Survey) -> list[dict[str, Any]]:
    """In order: ts (ns, UTC), step, action, because (cpu, load, memory, disk), used, allowed, names of calls.

    `used` and `allowed` are shares of one processor, or bytes.
    """
    calls = load.syscalls()
    return [
        {
            "ts": int(found.clock.utc_ns(row["at_ns"])),
            **{name: row[name] for name in ("step", "action", "because", "used", "allowed")},
            "calls": [calls[number].name for number in row["calls"] if number in calls],
        }
        for row in found.tables.get("limits", {"rows": []})["rows"]
    ]
