"""What is known of a capture without reading its rows: from metadata and the statistics of row groups."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stratokit.formats.parquet import CaptureReader

# As formats.pcapng.cold, formats.pcapng.blocks and engine.scap.carried name them; not imported, because few
# captures need what comes with them.
_CARRIED = frozenset(("pcapng", "scap", "keylog"))
# Kinds whose times say when the capture took place. Processes and sockets found at the start may be older.
_SPAN_KINDS = frozenset(("packet", "syscall", "clock"))


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """Facts of one file. `losses` are totals by counter, `extra` what else its metadata say."""

    path: Path
    format: str
    size_bytes: int
    rows: dict[str, int]
    first_ns: int | None = None
    last_ns: int | None = None
    losses: dict[str, int] = dataclasses.field(default_factory=dict)
    schema_version: int | None = None
    version: str | None = None
    host: dict[str, Any] = dataclasses.field(default_factory=dict)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    # Metadata that are of no interest but to a writer of the format that the packets came from.
    carried: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_recording(self) -> bool:
        """True for a recording of stratokit, which counts its losses; other files may not."""
        return "options" in self.extra

    @property
    def is_of_packet_file(self) -> bool:
        """True for a capture that was made of a packet file of another program."""
        kinds = {kind for kind, count in self.rows.items() if count}
        return not self.is_recording and "packet" in kinds and kinds <= {"packet", "interface", "loss"}

    @property
    def asked(self) -> frozenset[str]:
        """Kinds of rows that the recording was asked for: their absence means that nothing happened."""
        if not self.is_recording:
            return frozenset()
        options = dict(self.extra["options"] or {})
        wanted = {
            "packet": options.get("packets", False),
            "socket": options.get("sockets", False),
            "syscall": options.get("syscalls", "none") != "none",
            "plaintext": options.get("tls", False),
            "drop": options.get("drops", False),
            "process": True,
            "container": True,
            "interface": True,
            "loss": True,
        }
        return frozenset(kind for kind, asked in wanted.items() if asked)


def capture_facts(path: Path, reader: CaptureReader) -> FileFacts:
    """Facts of a capture.parquet."""
    carried = {key: text for key, text in reader.metadata.items() if key in _CARRIED}
    values = {key: _value(text) for key, text in reader.metadata.items() if key not in carried}
    rows: dict[str, int] = dict(values.pop("rows", None) or {})
    if all(group.kind is not None for group in reader.row_groups):
        rows = {}
        for group in reader.row_groups:
            rows[str(group.kind)] = rows.get(str(group.kind), 0) + group.rows
    spans = [g for g in reader.row_groups if g.kind in _SPAN_KINDS] or reader.row_groups
    values.pop("schema_version", None)
    return FileFacts(
        path=path,
        format="parquet",
        size_bytes=path.stat().st_size,
        rows=rows,
        first_ns=min((g.first_ns for g in spans), default=None),
        last_ns=max((g.last_ns for g in spans), default=None),
        losses=dict(values.pop("losses", None) or {}),
        schema_version=reader.schema_version,
        version=values.pop("version", None),
        host=dict(values.pop("host", None) or {}),
        extra=values,
        carried=carried,
    )


def _value(text: str) -> Any:
    """Metadata are JSON where they are more than a word."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def merged(files: Iterable[FileFacts]) -> dict[str, Any]:
    """Facts of all files as one object, as `info --json` and the report give them."""
    files = list(files)
    rows: dict[str, int] = {}
    losses: dict[str, int] = {}
    for file in files:
        for total, part in ((rows, file.rows), (losses, file.losses)):
            for name, amount in part.items():
                total[name] = total.get(name, 0) + amount
    first = min((f.first_ns for f in files if f.first_ns is not None), default=None)
    last = max((f.last_ns for f in files if f.last_ns is not None), default=None)
    host = files[0].host if files and all(f.host == files[0].host for f in files) else {}
    return {
        "files": [
            {
                "path": str(file.path),
                "format": file.format,
                "size_bytes": file.size_bytes,
                "schema_version": file.schema_version,
                "version": file.version,
            }
            for file in files
        ],
        "host": host,
        "first_ts": first,
        "last_ts": last,
        "duration_ns": last - first if first is not None and last is not None else None,
        "rows": dict(sorted(rows.items())),
        "losses": dict(sorted(losses.items())),
        **(files[0].extra if len(files) == 1 else _limits(files) | _redacted(files)),
    }


def _redacted(files: list[FileFacts]) -> dict[str, Any]:
    """What was taken away from any of the files."""
    found = dict.fromkeys(profile for file in files for profile in file.extra.get("redacted") or ())
    return {"redacted": list(found)} if found else {}


def _limits(files: list[FileFacts]) -> dict[str, Any]:
    """Steps taken to stay within the limits of the recordings, of all files."""
    steps = [step for file in files for step in file.extra.get("limits") or ()]
    return {"limits": sorted(steps, key=lambda step: int(step["ts"]))} if steps else {}
