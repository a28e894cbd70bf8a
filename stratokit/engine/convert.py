"""From one format to another; which one to write follows from the name of the output."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stratokit.engine.inputs import is_spool, resolve, seekable
from stratokit.errors import UsageError
from stratokit.formats import registry

if TYPE_CHECKING:
    import pyarrow as pa

    from stratokit.engine.capture import Capture
    from stratokit.engine.packet_files import PacketSource
    from stratokit.engine.redact import Redaction
    from stratokit.engine.scap.source import ScapSource
    from stratokit.formats.spool import SpoolChain

Progress = Callable[[int, int], None]
_BATCH_ROWS = 1 << 17
SCAP_PROFILES = ("universal", "modern")


def check_output(output: Path) -> None:
    """Refuse a name that tells no format that can be written."""
    registry.by_suffix(output)


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


def convert_files(
    inputs: Sequence[Path],
    output: Path,
    progress: Progress | None = None,
    choices: Choices = Choices(),
) -> dict[str, int]:
    """Convert what `inputs` name to `output`; returns what was lost or passed over, by counter."""
    inputs = [seekable(path) for path in inputs]
    spools = [path for path in inputs if is_spool(path)]
    form = registry.by_suffix(output)
    if choices.embed_keys is not None and (spools or form.name not in ("parquet", "pcapng")):
        what = f"{spools[0]} is a spool" if spools else f"{output} cannot carry keys"
        raise UsageError(f"{what}: --embed-keys is for captures that become .parquet or .pcapng")
    choices.carried({})  # which says what is wrong with a key log, before anything is written
    if choices.where is not None:
        return _kept(inputs, output, progress, choices)
    if choices.redaction is not None:
        if choices.embed_keys is not None:
            raise UsageError("--redact takes secrets away, and --embed-keys adds some: choose one")
        return _redacted(inputs, output, progress, choices)
    if not spools:
        paths = resolve(inputs)
        if len(paths) == 1 and form.name == "parquet" and not choices.with_events:
            read = _packet_format(paths[0])
            if read is not None:  # what a Capture is made with would take longer to load than most files
                return _stream(paths[0], read, form, output, progress, choices)
        from stratokit.engine.capture import Capture

        return convert(Capture.open(paths), output, progress, choices)
    chain = _chain(inputs, spools, choices.since_ns)
    if form.name == "scap":
        return _by_parquet(chain, output, progress, choices)
    if form.name != "parquet":
        raise UsageError(f"{spools[0]} is a spool: make a .parquet file of it first")
    return _ingest(chain, output, progress)


def _chain(inputs: Sequence[Path], spools: list[Path], since_ns: int | None) -> SpoolChain:
    """Segments of one recording, which are converted together."""
    from stratokit.formats.spool import SpoolChain, SpoolReader, segment_of

    if len(spools) < len(inputs):
        raise UsageError(f"{spools[0]} is a spool: convert it without files of other kinds")
    recordings = {segment_of(SpoolReader(path))[0] for path in spools} if len(spools) > 1 else {""}
    if len(spools) > 1 and (len(recordings) > 1 or "" in recordings):
        raise UsageError(f"{spools[0]} and {spools[1]} are not segments of one recording: convert each alone")
    return SpoolChain(spools, since_ns)


def _ingest(chain: SpoolChain, output: Path, progress: Progress | None) -> dict[str, int]:
    """A spool to a capture; what the filter of the recording leaves out is taken out again."""
    from stratokit.engine import redact
    from stratokit.engine.ingest.survey import recording_redaction

    if asked := recording_redaction(chain):
        return _redacted_recording(chain, output, progress, redact.redaction(asked))
    return _ingest_whole(chain, output, progress)


def _ingest_whole(chain: SpoolChain, output: Path, progress: Progress | None) -> dict[str, int]:
    from stratokit.engine.ingest import ingest
    from stratokit.engine.ingest.survey import recording_filter

    text, errors_only = recording_filter(chain)
    if not text:
        return ingest(chain, output, progress)
    from stratokit.engine.capture import Capture
    from stratokit.engine.kept import write_kept

    with tempfile.TemporaryDirectory(prefix=".stratokit-", dir=output.parent) as folder:
        whole = Path(folder) / "capture.parquet"
        lost = ingest(chain, whole, progress)
        write_kept(Capture.open(whole), text, output, errors_only)
    return lost


def _redacted_recording(
    chain: SpoolChain, output: Path, progress: Progress | None, how: Redaction
) -> dict[str, int]:
    """A spool to a capture that does not tell what the recording was asked to keep secret."""
    from stratokit.engine.capture import Capture
    from stratokit.engine.redact.rows import write_redacted

    with tempfile.TemporaryDirectory(prefix=".stratokit-", dir=output.parent) as folder:
        whole = Path(folder) / "capture.parquet"
        lost = _ingest_whole(chain, whole, progress)
        write_redacted(Capture.open(whole), output, how)
    return lost


def _redacted(
    inputs: Sequence[Path], output: Path, progress: Progress | None, choices: Choices
) -> dict[str, int]:
    """By way of a capture that nobody keeps to a redacted one, and from there to the format of `output`."""
    from stratokit.engine.capture import Capture
    from stratokit.engine.redact.rows import write_redacted

    assert choices.redaction is not None
    with tempfile.TemporaryDirectory(prefix=".stratokit-", dir=output.parent) as folder:
        whole, told = Path(folder) / "whole.parquet", Path(folder) / "told.parquet"
        reading = Choices(strip_keys=True, since_ns=choices.since_ns)
        lost = convert_files(inputs, whole, progress, reading)
        form = registry.by_suffix(output)
        last = output if form.name == "parquet" else told
        write_redacted(Capture.open(whole), last, choices.redaction)
        if last is told:
            convert(Capture.open(told), output, None, dataclasses.replace(choices, redaction=None))
    return lost


def _kept(
    inputs: Sequence[Path], output: Path, progress: Progress | None, choices: Choices
) -> dict[str, int]:
    """What matches, by way of a capture that nobody keeps where `output` is to be anything else."""
    from stratokit.engine.capture import Capture
    from stratokit.engine.kept import write_kept

    assert choices.where is not None
    after = dataclasses.replace(choices, where=None)
    with tempfile.TemporaryDirectory(prefix=".stratokit-", dir=output.parent) as folder:
        kept = Path(folder) / "kept.parquet"
        if any(is_spool(path) for path in inputs):
            convert_files(inputs, whole := Path(folder) / "whole.parquet", progress)
            inputs = [whole]
        capture = Capture.open(inputs)
        if registry.by_suffix(output).name == "parquet" and after == Choices():
            write_kept(capture, choices.where, output, later=True, progress=progress)
        else:
            write_kept(capture, choices.where, kept, later=True, progress=progress)
            convert_files([kept], output, None, after)
    losses: dict[str, int] = capture.info()["losses"]
    return losses


def _packet_format(path: Path) -> registry.Format | None:
    """The format of a file that holds packets and nothing else."""
    if is_spool(path):
        return None
    form = registry.by_content(path)
    if form.name == "pcapng":
        from stratokit.formats.mixed import holds_both

        return None if holds_both(path) else form
    return form if form.name == "pcap" else None


def _by_parquet(
    chain: SpoolChain, output: Path, progress: Progress | None, choices: Choices
) -> dict[str, int]:
    """A spool to another format, by way of a capture that nobody keeps."""
    from stratokit.engine.capture import Capture

    with tempfile.TemporaryDirectory(prefix=".stratokit-", dir=output.parent) as folder:
        between = Path(folder) / "capture.parquet"
        lost = _ingest(chain, between, progress)
        convert(Capture.open(between), output, progress, choices)
    return lost


def convert(
    capture: Capture, output: Path, progress: Progress | None = None, choices: Choices = Choices()
) -> dict[str, int]:
    """Write a capture, as far as its filter selects it, in the format that the name of `output` tells.

    Returns what was lost or passed over in it, by counter.
    """
    form = registry.by_suffix(output)
    if choices.with_events and form.name != "pcapng":
        raise UsageError(f"--with-events is for .pcapng, which {output} is not")
    if (scap := capture.scap_file) is not None and form.name == "parquet" and capture.filter_text is None:
        return _stream_scap(scap, output, progress, choices)
    source = capture.packet_file
    if source is not None and form.name != "scap" and capture.filter_text is None and not choices.with_events:
        if form.name == "parquet":
            return _stream(source.path, source.form, form, output, progress, choices)
        return _copy(source, form, output, progress, choices)
    if form.name == "parquet":
        _to_parquet(capture, output, progress, choices)
    elif form.name == "scap":
        _to_scap(capture, output, choices, progress)
    else:
        _to_packets(capture, form, output, progress, choices)
    losses: dict[str, int] = capture.info()["losses"]
    return losses


def _to_scap(capture: Capture, output: Path, choices: Choices, progress: Progress | None) -> None:
    from stratokit.engine.scap.as_it_was import came_from_scap, write_again
    from stratokit.engine.scap.export import export

    if not came_from_scap(capture):
        export(capture, output, choices.scap_profile or SCAP_PROFILES[0], progress)
    elif choices.scap_profile is None:
        write_again(capture, output, progress)
    else:
        raise UsageError("what came from a scap file is written as it was; --scap-profile is for recordings")


def _stream(
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


def _stream_scap(
    source: ScapSource, output: Path, progress: Progress | None, choices: Choices
) -> dict[str, int]:
    """A scap file to a capture in one pass, whatever its size."""
    from stratokit.engine.scap import carried
    from stratokit.engine.scap.source import Survey
    from stratokit.formats.parquet import CaptureWriter

    survey = Survey()
    with CaptureWriter(output, choices.carried({})) as writer:
        for kind, table in source.tables(survey, progress):
            writer.write(kind, table)
        writer.metadata |= {"host": json.dumps(survey.host)}
        writer.metadata |= {carried.METADATA_KEY: carried.to_text(survey.blocks)}
    return survey.totals


def _copy(
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


def metadata_of(capture: Capture, choices: Choices = Choices()) -> dict[str, str]:
    """Metadata for the new file: those of the first input, which say where it was recorded."""
    from stratokit.engine import key_logs

    facts = capture.files[0]
    found = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.extra.items()
    }
    # What else is carried names packets by their number in their file.
    carried = facts.carried if len(capture.files) == 1 else key_logs.joined(f.carried for f in capture.files)
    return choices.carried(found | {"host": json.dumps(facts.host)} | carried)


def _to_parquet(capture: Capture, output: Path, progress: Progress | None, choices: Choices) -> None:
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


def _to_packets(
    capture: Capture, form: registry.Format, output: Path, progress: Progress | None, choices: Choices
) -> None:
    from stratokit.engine.frames import collect
    from stratokit.formats.frames import Interface

    assert form.open_writer is not None
    # Without times: Python's have no nanoseconds.
    interfaces = collect(capture.rows("interface").drop("ts")).iter_rows(named=True)
    known = [Interface.from_row(row) for row in interfaces]
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
