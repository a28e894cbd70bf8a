"""The line that shows how a recording is going. Light: the recorder runs in the same process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from stratokit.render import units

if TYPE_CHECKING:
    from stratokit.record.options import Status

_SHOWN = ("packet", "syscall", "socket", "process")


class StatusLine:
    """Says that the recording began; then rewrites one line on a terminal, and is silent anywhere else."""

    def __init__(self, stream: TextIO, quiet: bool, began: str) -> None:
        """`began` is the line for the moment when everything is watched."""
        self._stream = stream
        self._quiet = quiet
        self._live = stream.isatty() and not quiet
        self._began = began
        self._before: Status | None = None

    def __enter__(self) -> StatusLine:
        if self._live:
            self._write("starting ...")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def update(self, status: Status) -> None:
        """Called when the recording begins, and then about once a second."""
        if self._before is None and not self._quiet:
            self._stream.write(f"\r\x1b[K{self._began}\n" if self._live else f"{self._began}\n")
            self._stream.flush()
        if self._live:
            self._write(line(status, self._before))
        self._before = status

    def _write(self, text: str) -> None:
        import shutil

        width = shutil.get_terminal_size().columns
        self._stream.write(f"\r\x1b[K{text[: width - 1]}")
        self._stream.flush()

    def say(self, text: str) -> None:
        """A line that stays, and can come while the other one is rewritten."""
        if not self._quiet:
            self._stream.write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
            self._stream.flush()

    def rolled(self, status: Status, outputs: Sequence[Path]) -> None:
        """As `summary`, of a recording in several files, or in none."""
        events = sum(status.counts.values())
        files = f"{outputs[0]} and {len(outputs) - 1} more" if outputs[1:] else f"{(*outputs, 'no file')[0]}"
        self.say(f"{units.number(events)} events in {units.duration(status.elapsed_ns)}: {files}")
        self._lost(status)
        if outputs:
            self.say(f"Next: stratokit report {' '.join(map(str, outputs[:1]))}")

    def _lost(self, status: Status) -> None:
        for name, amount in status.lost.items():
            self.say(f"lost: {units.number(amount)} {_sentence(name)}")

    def summary(self, status: Status, output: Path) -> None:
        """What was recorded, what was lost, and what to do next."""
        events = sum(status.counts.values())
        self.say(f"{units.number(events)} events in {units.duration(status.elapsed_ns)}: {output}")
        self._lost(status)
        self.say(f"Next: stratokit report {output}")


def line(status: Status, before: Status | None) -> str:
    """Elapsed time, losses, bytes, then events by kind and second: a narrow terminal cuts the end."""
    lost = sum(status.lost.values())
    parts = [
        units.duration(status.elapsed_ns),
        f"lost {units.number(lost)}" if lost else "nothing lost",
        units.size(status.bytes_written),
    ]
    span_ns = status.elapsed_ns - (before.elapsed_ns if before else 0)
    for kind in [kind for kind in _SHOWN if kind in status.counts]:
        total = status.counts[kind]
        grown = total - (before.counts.get(kind, 0) if before else 0)
        parts.append(f"{kind} {units.number(round(grown * 1_000_000_000 / max(span_ns, 1)))}/s")
    return "  ".join([*parts, "Ctrl-C stops"])


def _sentence(counter: str) -> str:
    from stratokit.schema import load

    known = load.counters().get(counter)
    return known.doc if known else counter
