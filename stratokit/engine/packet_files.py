"""Packet files of other programs as a source of rows: read anew for each query, no more than is asked for.

A file goes through in windows, so memory does not grow with it. What takes no look into frames (how many,
from when to when, which interfaces, where reading had to end) comes from a walk over the records alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Generator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from stratokit.engine.facts import FileFacts
from stratokit.engine.frames import conform
from stratokit.engine.io_source import Piece, lazy_rows
from stratokit.engine.packet_survey import Survey, nothing_read
from stratokit.engine.packet_windows import OF_FILE, STORED, Columns, windows_of
from stratokit.engine.progress import reading
from stratokit.formats.frames import Damage
from stratokit.formats.merge import MergedReader, Part
from stratokit.formats.registry import Format
from stratokit.formats.source import MappedSource, open_source
from stratokit.schema import load


class _Frames:
    """A file whose frames can be read together with those of others."""

    def frames(self, names: Collection[str]) -> Any:
        """A reader of what columns `names` of packets are made of."""
        raise NotImplementedError

    def ended(self, reader: Any, packets: int) -> None:
        """Take note of where a reader that found so many packets had to end.

        Raises:
            FormatError: before it found any.
        """
        raise NotImplementedError

    @functools.cached_property
    def begins_ns(self) -> int | None:
        """The time of the first packet, 0 where it has none; None without packets.

        Raises:
            FormatError: nothing can be read.
        """
        with self.frames(()) as reader:
            first = next(reader.batches(), None)
            if first is None:
                self.ended(reader, 0)
                return None
            return int(first.ts_ns[0])


class PacketSource(_Frames):
    """A packet file as a source of rows."""

    def __init__(self, path: Path, form: Format) -> None:
        self.path = path
        self.form = form
        # Where reading had to end, when a pass came that far.
        self.damage: Damage | None = None

    @functools.cached_property
    def is_mapped(self) -> bool:
        """Whether its bytes are mapped; what is compressed has to be unpacked into memory."""
        with contextlib.closing(open_source(self.path)) as source:
            return isinstance(source, MappedSource)

    @functools.cached_property
    def survey(self) -> Survey:
        """One walk over the records."""
        assert self.form.open_reader is not None
        survey = Survey()
        with self.form.open_reader(self.path) as reader, reading([self.path], reader) as tell:
            for batch in reader.batches():
                survey.add(batch)
                if tell:
                    tell()
            self.damage = reader.damage
            return survey.end(reader, self.path)

    @functools.cached_property
    def facts(self) -> FileFacts:
        """See `Source`."""
        survey = self.survey
        found = {
            "packet": survey.packets,
            "interface": len(survey.interfaces),
            "loss": len(survey.losses),
        }
        damage = survey.damage
        return FileFacts(
            path=self.path,
            format=self.form.name,
            size_bytes=self.path.stat().st_size,
            rows={kind: count for kind, count in found.items() if count},
            first_ns=survey.first_ns,
            last_ns=survey.last_ns,
            losses=survey.losses,
            extra={"damage": dataclasses.asdict(damage)} if damage else {},
            carried=survey.carried,
        )

    def rows(self, kind: str) -> pl.LazyFrame:
        """See `Source`."""
        columns = load.capture().of_kind(kind)
        if kind == "packet":
            return _scan_of(self._windows)
        if kind not in ("interface", "loss"):
            return conform(pl.LazyFrame(), columns)
        found = [pl.DataFrame(pl.from_arrow(table)) for name, table in self.survey.tables() if name == kind]
        return conform(found[0].lazy() if found else pl.LazyFrame(), columns)

    def _windows(self, names: Collection[str]) -> Generator[Columns]:
        with contextlib.closing(self.windows(names)) as windows:
            for columns, _ in windows:
                yield columns

    def windows(self, names: Collection[str]) -> Generator[tuple[Columns, Any]]:
        """Columns of packets, window by window, and what keeps their memory; see `packet_windows`."""
        with self.frames(names) as reader, reading([self.path], reader) as tell:
            found = 0
            with contextlib.closing(windows_of(reader, names, progress=tell)) as parts:
                for columns, memory in parts:
                    found += len(next(iter(columns.values())))
                    yield columns, memory
            self.ended(reader, found)

    def frames(self, names: Collection[str]) -> Any:  # noqa: ARG002 - of a packet file they come all together
        """See `_Frames`."""
        assert self.form.open_reader is not None
        return self.form.open_reader(self.path)

    def ended(self, reader: Any, packets: int) -> None:
        """See `_Frames`."""
        self.damage = reader.damage
        if self.damage is not None and not packets:
            raise nothing_read(self.path, self.damage)


class ConvertedFile(_Frames):
    """A capture.parquet that was made of a packet file: beside others it is read as that file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def frames(self, names: Collection[str]) -> Any:
        """See `_Frames`."""
        from stratokit.formats.capture_frames import CaptureFrames

        with_bytes = "data" in names or not OF_FILE.issuperset(names)
        return CaptureFrames(self.path, STORED & set(names), with_bytes)

    def ended(self, reader: Any, packets: int) -> None:
        """See `_Frames`; a capture that was cut is not opened."""


def merged_rows(files: Sequence[PacketSource | ConvertedFile]) -> pl.LazyFrame:
    """Packets of several files as if one had recorded them: in order of time, numbered as one."""
    return _scan_of(functools.partial(_merged_windows, files))


def _merged_windows(
    files: Sequence[PacketSource | ConvertedFile], names: Collection[str]
) -> Generator[Columns]:
    with contextlib.closing(merged_windows(files, names)) as windows:
        for columns, _ in windows:
            yield columns


def merged_windows(
    files: Sequence[PacketSource | ConvertedFile], names: Collection[str]
) -> Generator[tuple[Columns, Any]]:
    """As `PacketSource.windows`, of several files as if one had recorded them."""
    parts = [
        Part(file.begins_ns, functools.partial(file.frames, names), file.ended)
        for file in files
        if file.begins_ns is not None
    ]
    with MergedReader(parts) as reader, reading([file.path for file in files], reader) as tell:
        yield from windows_of(reader, names, progress=tell)


def _scan_of(windows: Callable[[Collection[str]], Generator[Columns]]) -> pl.LazyFrame:
    """Packets as a LazyFrame; `windows` gives columns of these names, window by window."""

    def pieces(names: Collection[str]) -> Generator[Piece]:
        # A window without any column would not tell how many packets it has.
        with contextlib.closing(windows(names if set(names) != {"kind"} else {"kind", "cap_len"})) as found:
            for columns in found:
                yield len(next(iter(columns.values()))), columns

    return lazy_rows("packet", pieces)
