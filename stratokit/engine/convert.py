"""From one format to another; which one to write follows from the name of the output."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stratokit.engine.inputs import is_spool, resolve, seekable
from stratokit.engine.writing import (
    AS_IT_COMES,
    SCAP_PROFILES,
    Choices,
    copy,
    stream,
    stream_scap,
    to_packets,
    to_parquet,
    to_scap,
)
from stratokit.errors import UsageError
from stratokit.formats import registry

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture
    from stratokit.engine.redact import Redaction
    from stratokit.engine.writing import Progress
    from stratokit.formats.spool import SpoolChain

__all__ = ["SCAP_PROFILES", "Choices", "check_output", "convert", "convert_files"]


def check_output(output: Path) -> None:
    """Refuse a name that tells no format that can be written."""
    registry.by_suffix(output)


def convert_files(
    inputs: Sequence[Path],
    output: Path,
    progress: Progress | None = None,
    choices: Choices = AS_IT_COMES,
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
                return stream(paths[0], read, form, output, progress, choices)
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
        if registry.by_suffix(output).name == "parquet" and after == AS_IT_COMES:
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
    capture: Capture, output: Path, progress: Progress | None = None, choices: Choices = AS_IT_COMES
) -> dict[str, int]:
    """Write a capture, as far as its filter selects it, in the format that the name of `output` tells.

    Returns what was lost or passed over in it, by counter.
    """
    form = registry.by_suffix(output)
    if choices.with_events and form.name != "pcapng":
        raise UsageError(f"--with-events is for .pcapng, which {output} is not")
    if (scap := capture.scap_file) is not None and form.name == "parquet" and capture.filter_text is None:
        return stream_scap(scap, output, progress, choices)
    source = capture.packet_file
    if source is not None and form.name != "scap" and capture.filter_text is None and not choices.with_events:
        if form.name == "parquet":
            return stream(source.path, source.form, form, output, progress, choices)
        return copy(source, form, output, progress, choices)
    if form.name == "parquet":
        to_parquet(capture, output, progress, choices)
    elif form.name == "scap":
        to_scap(capture, output, choices, progress)
    else:
        to_packets(capture, form, output, progress, choices)
    losses: dict[str, int] = capture.info()["losses"]
    return losses
