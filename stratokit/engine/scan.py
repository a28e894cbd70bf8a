"""From what the user named to rows: which files, of which format, and how each gives its rows."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeAlias

import polars as pl

from stratokit.engine.facts import FileFacts, capture_facts
from stratokit.engine.frames import collect, conform, polars_schema
from stratokit.errors import FormatError, UsageError
from stratokit.formats import registry, spool
from stratokit.formats.source import read_head
from stratokit.schema import load

PathLike: TypeAlias = str | os.PathLike[str]
# Numbers that count in each file, from these: those of a second file shall follow the first's.
NUMBERED = {"frame": 1, "flow_id": 0}


class Source(Protocol):
    """An open file."""

    @property
    def facts(self) -> FileFacts:
        """What is known of the file without reading its rows."""
        ...

    def rows(self, kind: str) -> pl.LazyFrame:
        """Rows of one kind, with the columns that schemas/capture.toml gives it."""
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


def resolve(source: PathLike | Iterable[PathLike]) -> list[Path]:
    """The files that a path, a folder, a pattern or a list of these names, in order of their names."""
    if not isinstance(source, str | os.PathLike):
        found = [path for part in source for path in resolve(part)]
        if not found:
            raise UsageError("no input was named")
        return list(dict.fromkeys(found))
    path = Path(source)
    if path.is_dir():
        return _captures_in(path)
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    files = [match for match in matches if match.is_file()]
    if not files:
        raise FormatError(f"no file matches {path}")
    return files


def _captures_in(folder: Path) -> list[Path]:
    """Files of a folder that are captures by their content; others may lie beside them."""
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        found = [file for file in files if _is_capture(file)]
    except OSError as error:
        raise FormatError(f"cannot read {folder}: {error.strerror}") from error
    if not found:
        raise FormatError(f"there is no capture file in {folder}")
    return found


def _is_capture(file: Path) -> bool:
    form = registry.by_head(read_head(file, registry.HEAD_BYTES))
    return form is not None and form.open_reader is not None


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
    from stratokit.engine.packet_files import PacketSource

    return PacketSource(path, form)


def is_spool(path: Path) -> bool:
    """Whether the file is what a recorder writes while it runs."""
    try:
        with path.open("rb") as file:
            return spool.sniff(file.read(registry.HEAD_BYTES))
    except OSError:
        return False


def joined_rows(sources: tuple[Source, ...], kind: str) -> pl.LazyFrame:
    """Rows of all sources under one numbering of frames and conversations."""
    schema = polars_schema(load.capture().of_kind(kind))
    offsets = dict.fromkeys((name for name in NUMBERED if name in schema), 0)
    parts = []
    for number, source in enumerate(sources):
        rows = source.rows(kind)
        parts.append(rows.with_columns(pl.col(name) + offset for name, offset in offsets.items() if offset))
        if offsets and number + 1 < len(sources):
            used = _used(source, kind, offsets)
            offsets = {name: offset + used[name] for name, offset in offsets.items()}
    return pl.concat(parts) if len(parts) > 1 else parts[0]


def _used(source: Source, kind: str, names: Iterable[str]) -> dict[str, int]:
    """How many numbers of each sequence a file uses."""
    row = collect(source.rows(kind).select(pl.col(list(names)).max()))
    highest = {name: row[name][0] for name in names}
    return {name: 0 if top is None else int(top) + 1 - NUMBERED[name] for name, top in highest.items()}
