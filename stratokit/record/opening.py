"""What a spool begins with: what made it, how its events lie in memory, and what is true of the host."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from stratokit.record import btf, host
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.record.loader import Kernel
    from stratokit.record.options import RecordOptions


def layouts() -> dict[str, Any]:
    """How the events of this version lie in memory, so that a later version reads them by what the file
    says.
    """
    return {
        event.name: {
            "id": event.id,
            "size": event.size,
            "fields": [[f.name, f.type, f.offset] for f in event.fields],
            "sections": [[s.name, s.length] for s in event.sections],
        }
        for event in load.events().values()
    }


def facts(options: RecordOptions, kernel: Kernel) -> dict[str, Any]:
    """The opening chunk of a recording."""
    return {
        "tool": "stratokit",
        "host": host.facts(),
        "options": dataclasses.asdict(options) | {"output": None, "spool": None},
        "programs": kernel.names,
        "syscalls": sorted(kernel.syscalls),
        "events": layouts(),
        "has_btf": bool(kernel.offsets),
        "drop_reasons": btf.drop_reasons() if "drops" in kernel.names else {},
        "self_pid": kernel.pid,
    }
