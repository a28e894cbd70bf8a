"""From files to rows: of which format each is, and how it gives them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import polars as pl

from stratokit.engine.facts import FileFacts, capture_facts
from stratokit.engine.frames import collect, conform, polars_schema
from stratokit.engine.inputs import is_spool
from stratokit.errors import FormatError
from stratokit.formats import registry
from stratokit.schema import load

# Numbers that count in each file, from these: those of a second file shall follow the first's.
NUMBERED = {"frame": 1, "flow_id": 0}
# Columns with numbers of another one.
REFERRING = {"icmp_flow_id": "flow_id"}


class Rows(Protocol):
    """What has rows."""

    def rows(self, kind: str) -> pl.LazyFrame:
        """Rows of one kind, with the columns that schemas/capture.toml gives it."""
        ...


class Source(Rows, Protocol):
    """An open file."""

    @property
    def facts(self) -> FileFacts:
        """What is known of the file without reading its rows."""
        ...


class ParquetSource:
    """capture.parquet, read by polars only as far as a query needs it."""

    def __init__(self, path: Path) -> None:
        from stratokit.formats.parquet import CaptureReader

        self.path = path
        with CaptureReader(path) as reader:
            self.facts = capture_facts(path, reader)

    def rows(self, kind: str) -> pl.LazyFrame:
        """See `Source`."""
        scan = pl.scan_parquet(self.path, glob=False, hive_partitioning=False)
        return conform(scan.filter(pl.col("kind") == kind), load.capture().of_kind(kind))


def open_source(path: Path) -> Source:
    """The source for one file, by its content; raises FormatError where it is none."""
    if is_spool(path):
        raise FormatError(
            f"{path} is a recording in progress or cut short; stratokit convert makes a capture of it"
        )
    form = registry.by_content(path)
    if form.name == "parquet":
        return ParquetSource(path)
    if form.open_reader is None:
        raise FormatError(f"{path} is a {form.name} file, which cannot be read yet")
    if form.name == "scap":
        from stratokit.engine.mixed_files import UndecidedSource

        return UndecidedSource(path, form)
    if form.name == "pcapng":
        from stratokit.formats.mixed import holds_both

        if holds_both(path):
            from stratokit.engine.mixed_files import MixedSource

            return MixedSource(path)
    from stratokit.engine.packet_files import PacketSource

    return PacketSource(path, form)


def joined_rows(sources: Sequence[Source], kind: str) -> pl.LazyFrame:
    """Rows of all sources under one numbering of frames and conversations.

    Packet files, with captures that were made of such, are read as one, and so are segments of one recording:
    what began in one of them goes on in the next. Others come behind each other, with conversations of their
    own.
    """
    schema = polars_schema(load.capture().of_kind(kind))
    found: Sequence[Rows] = _packet_files_as_one(sources) if kind == "packet" else sources
    found = _segments_as_one(found)
    offsets = dict.fromkeys((name for name in NUMBERED if name in schema), 0)
    parts = []
    for number, source in enumerate(found):
        rows = source.rows(kind)
        referring = {name: offsets[of] for name, of in REFERRING.items() if name in schema}
        shifts = (offsets | referring).items()
        parts.append(rows.with_columns(pl.col(name) + offset for name, offset in shifts if offset))
        if offsets and number + 1 < len(found):
            used = _used(source, kind, offsets)
            offsets = {name: offset + used[name] for name, offset in offsets.items()}
    return pl.concat(parts) if len(parts) > 1 else parts[0]


@dataclasses.dataclass(frozen=True, slots=True)
class _AsOne:
    """Packet files as a source of packets."""

    packets: pl.LazyFrame

    def rows(self, kind: str) -> pl.LazyFrame:
        """Their packets."""
        assert kind == "packet"
        return self.packets


def _packet_files_as_one(sources: Sequence[Rows]) -> Sequence[Rows]:
    if len(sources) == 1:
        return sources
    from stratokit.engine.packet_files import ConvertedFile, PacketSource, merged_rows

    files: list[PacketSource | ConvertedFile] = []
    others = []
    for source in sources:
        if isinstance(source, PacketSource):
            files.append(source)
        elif isinstance(source, ParquetSource) and source.facts.is_of_packet_file:
            files.append(ConvertedFile(source.path))
        else:
            others.append(source)
    return sources if len(files) < 2 else [_AsOne(merged_rows(files)), *others]


def _segments_as_one(sources: Sequence[Rows]) -> Sequence[Rows]:
    files = [source for source in sources if isinstance(source, ParquetSource)]
    if len(files) < 2:
        return sources
    from stratokit.engine.segments import as_rows

    others = [source for source in sources if not isinstance(source, ParquetSource)]
    return [*as_rows(files), *others]


def in_turn(sources: Iterable[Source]) -> bool:
    """Whether of the files each ends before the next one begins."""
    facts = (source.facts for source in sources)
    spans = sorted((f.first_ns, f.last_ns) for f in facts if f.first_ns is not None and f.last_ns is not None)
    return all(one[1] < other[0] for one, other in itertools.pairwise(spans))


def _used(source: Rows, kind: str, names: Iterable[str]) -> dict[str, int]:
    """How many numbers of each sequence a file uses."""
    row = collect(source.rows(kind).select(pl.col(list(names)).max()))
    highest = {name: row[name][0] for name in names}
    return {name: 0 if top is None else int(top) + 1 - NUMBERED[name] for name, top in highest.items()}
