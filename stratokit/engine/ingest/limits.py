"""Steps that the recorder took to stay within its limits, as metadata of the capture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.ingest.survey import Survey


def steps(found: Survey) -> list[dict[str, Any]]:
    """In order: ts (ns, UTC), step, action, because (cpu, memory, disk), used, allowed, names of calls.

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
