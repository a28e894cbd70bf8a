"""Writes a capture in one format: whole, as far as its filter selects it, or a file in one pass."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stratokit.errors import UsageError
from stratokit.formats import registry

if TYPE_CHECKING:
    import pyarrow as pa

    from stratokit.engine.capture import Capture
    from stratokit.engine.packet_files import PacketSource
    from stratokit.engine.redact import Redaction
    from stratokit.engine.scap.source import ScapSource

Progress = Callable[[int, int], None]
_BATCH_ROWS = 1 << 17
SCAP_PROFILES = ("universal", "modern")


@dataclasses.dataclass(frozen=True, slots=True)
class Choices:
    """How to write where a format leaves a choice.

    `scap_profile`: which readers a scap file is for; None is the one it came with, or "universal".
    `with_events`: system-call and socket events among the packets of a pcapng file.
    `embed_keys`: a key log whose secrets the new file shall carry.
    `strip_keys`: it shall carry no others.
    `redaction`: what the new file shall not tell; without one, what the recording was asked for.
    `where`: a filter; only what a recording with it would have kept is written.
    `since_ns`: of a spool only the rows since then (CLOCK_MONOTONIC).
    """

    scap_profile: str | None = None
    with_events: bool = False
    embed_keys: Path | None = None
    strip_keys: bool = False
    since_ns: int | None = None
    redaction: Redaction | None = None
    where: str | None = None

    def carried(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """Metadata of the input as the output shall have them."""
        found = dict(metadata)
        if self.strip_keys or self.embed_keys is not None:
            from stratokit.engine import key_logs

            found = key_logs.stripped(found) if self.strip_keys else found
            found = key_logs.embedded(found, self.embed_keys) if self.embed_keys is not None else found
        return found


AS_IT_COMES = Choices()


def to_scap(capture: Capture, output: Path, choices: Choices, progress: Progress | None) -> None:
    """A recording as events of sysdig; what came from a scap file as it was."""
    from stratokit.engine.scap.as_it_was import came_from_scap, write_again
    from stratokit.engine.scap.export import export

    if not came_from_scap(capture):
        export(capture, output, choices.scap_profile or SCAP_PROFILES[0], progress)
    elif choices.scap_profile is None:
        write_again(capture, output, progress)
    else:
        raise UsageError("what came from a scap file is written as it was; --scap-profile is for recordings")


def stream(
    path: Path,
    read: registry.Format,
    form: registry.Format,
    output: Path,
    progress: Progress | None,
    choices: Choices,
) -> dict[str, int]:
    """A packet file to a capture in one pass, whatever its size."""
    from stratokit.engine.packet_survey import Survey, capture_tables

    assert form.open_writer is not None
    survey = Survey()
    with form.open_writer(output, {}) as writer:
        for kind, table in capture_tables(path, read, survey, progress):
            writer.write(kind, table)
        writer.metadata |= choices.carried(survey.carried) | {"host": "{}"}
    return survey.losses


def stream_scap(
    source: ScapSource, output: Path, progress: Progress | None, choices: Choices
) -> dict[str, int]:
    """A scap file to a capture in one pass, whatever its size."""
    from stratokit.engine.scap import carried
    from stratokit.engine.scap.survey import Survey
    from stratokit.formats.parquet import CaptureWriter

    survey = Survey()
    with CaptureWriter(output, choices.carried({})) as writer:
        for kind, table in source.tables(survey, progress):
            writer.write(kind, table)
        writer.metadata |= {"host": json.dumps(survey.host)}
        writer.metadata |= {carried.METADATA_KEY: carried.to_text(survey.blocks)}
    return survey.totals


def copy(
    source: PacketSource,
    form: registry.Format,
    output: Path,
    progress: Progress | None,
    choices: Choices,
) -> dict[str, int]:
    """A packet file to another one; frames are not looked into."""
    from stratokit.engine.packet_survey import Survey, capture_tables
    from stratokit.engine.packet_windows import OF_FILE

    assert form.open_writer is not None
    survey = source.survey
    with form.open_writer(output, choices.carried(survey.carried), survey.interfaces) as writer:
        for kind, table in capture_tables(source.path, source.form, Survey(), progress, OF_FILE):
            if kind == "packet":
                writer.write(table)
    return survey.losses


def metadata_of(capture: Capture, choices: Choices = AS_IT_COMES) -> dict[str, str]:
    """Metadata for the new file: those of the first input, which say where it was recorded."""
    from stratokit.engine import key_logs

    facts = capture.files[0]
    found = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.extra.items()
    }
    # What else is carried names packets by their number in their file.
    carried = facts.carried if len(capture.files) == 1 else key_logs.joined(f.carried for f in capture.files)
    return choices.carried(found | {"host": json.dumps(facts.host)} | carried)


def to_parquet(capture: Capture, output: Path, progress: Progress | None, choices: Choices) -> None:
    """All kinds of rows, of packets those that the filter selects."""
    from stratokit.formats.parquet import CaptureWriter

    kinds = sorted({kind for file in capture.files for kind in file.rows})
    total = sum(sum(file.rows.values()) for file in capture.files)
    done = 0
    with CaptureWriter(output, metadata_of(capture, choices)) as writer:
        for kind in kinds:
            for batch in _batches(capture, kind):
                writer.write(kind, batch)
                done += batch.num_rows
                if progress:
                    progress(*_share(capture, done, total))


def _share(capture: Capture, rows: int, all_rows: int) -> tuple[int, int]:
    """Rows that are done as bytes of the input."""
    size = sum(file.size_bytes for file in capture.files)
    return size * rows // max(all_rows, 1), size


def _batches(capture: Capture, kind: str) -> Iterator[pa.Table]:
    rows = capture.selected_rows(kind).drop("kind", strict=False)
    for frame in rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True):
        yield frame.to_arrow()


def _packets(capture: Capture) -> Iterator[pa.Table]:
    """Packets by number: a packet file keeps the order in which they were recorded."""
    if len(capture.files) == 1 and capture.files[0].format == "parquet" and capture.filter_text is None:
        from stratokit.formats.parquet import CaptureReader
        from stratokit.formats.tables import kind_columns

        names = [name for name in kind_columns("packet") if name != "kind"]
        with CaptureReader(capture.paths[0]) as reader:
            yield from reader.iter_packets(names)
        return
    # With a filter, or several files, they come as they stand there: at most sorted by time in a row group.
    for batch in _batches(capture, "packet"):
        yield batch.sort_by("frame")


def to_packets(
    capture: Capture, form: registry.Format, output: Path, progress: Progress | None, choices: Choices
) -> None:
    """Packets, with interfaces and, in pcapng, losses; with events where `choices` says so."""
    from stratokit.engine.frames import collect
    from stratokit.formats.frames import Interface

    assert form.open_writer is not None
    # Without times: Python's have no nanoseconds.
    interfaces = collect(capture.rows("interface").drop("ts")).iter_rows(named=True)
    known = [Interface.from_row(row) for row in interfaces]
    if len({interface.netns for interface in known}) > 1:  # of which each has a "lo"
        known = [dataclasses.replace(i, description=f"network namespace {i.netns}") for i in known]
    if choices.with_events:
        from stratokit.engine.mixed_files import with_events

        losses = collect(capture.rows("loss")).to_arrow()
        with_events(capture, output, metadata_of(capture, choices), _told(capture, progress), known, losses)
        return
    # pcapng has a place for what was lost, pcap has none.
    more = {"losses": collect(capture.rows("loss")).to_arrow()} if form.name == "pcapng" else {}
    with form.open_writer(output, metadata_of(capture, choices), known, **more) as writer:
        for batch in _told(capture, progress):
            writer.write(batch)


def _told(capture: Capture, progress: Progress | None) -> Iterator[pa.Table]:
    """Packets, with progress."""
    total = sum(file.rows.get("packet", 0) for file in capture.files)
    done = 0
    for batch in _packets(capture):
        yield batch
        done += batch.num_rows
        if progress:
            progress(*_share(capture, done, total))
