"""A scap file as a source of capture rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Generator, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa

from stratokit.engine.facts import FileFacts
from stratokit.engine.frames import conform
from stratokit.engine.io_source import Piece, lazy_rows
from stratokit.engine.scap import carried, layout, rows, stream
from stratokit.engine.scap.follower import Follower, all_rows
from stratokit.engine.scap.survey import Survey, Tables
from stratokit.errors import FormatError
from stratokit.formats.mixed import holds_both
from stratokit.formats.registry import Format
from stratokit.formats.scap.reader import Events, Listed
from stratokit.schema import load

Progress = Callable[[int, int], None]
_BULK = {"syscall": layout.SYSCALL, "event": layout.OTHER}


class ScapSource:
    """A scap file; calls and events are read anew for each query, window by window."""

    def __init__(self, path: Path, form: Format, beside_packets: bool = False) -> None:
        self.path = path
        self._beside_packets = beside_packets
        self.form = form

    @functools.cached_property
    def survey(self) -> Survey:
        """One pass over the file."""
        found = Survey(beside_packets=self._beside_packets)
        for _ in self._pass(found):
            pass
        return found

    def _tables_alone(self, kind: str, names: set[str]) -> Iterator[pa.Table]:
        """Rows of one kind with these columns, for who needs no survey."""
        assert self.form.open_reader is not None
        with self.form.open_reader(self.path) as reader:
            found = stream.Streamed(reader, _BULK[kind], names | {"ts"})
            yield from found.tables()
            try:
                Survey().end(reader, found.follower, self.path)
            except FormatError:
                if not holds_both(self.path):  # there are packets, then
                    raise

    def _pass(self, survey: Survey, tell: Progress | None = None) -> Iterator[tuple[Follower, layout.Out]]:
        """Events as rows, everything taken in by `survey`."""
        assert self.form.open_reader is not None
        size = self.path.stat().st_size
        with self.form.open_reader(self.path) as reader:
            batches: list[Events] = []

            def remembered() -> Iterator[Events | Listed]:
                for item in reader.items():
                    if isinstance(item, Events):
                        batches.append(item)
                    yield item

            for follower, item in all_rows(remembered()):
                if isinstance(item, Listed):
                    survey.listed(item, follower)
                    continue
                if batches:
                    survey.events(batches.pop(), item, follower)
                else:
                    survey.made(item, follower)
                    survey.end(reader, follower, self.path)
                yield follower, item
                if tell:
                    tell(reader.position(), size)

    def tables(self, survey: Survey, progress: Progress | None = None) -> Tables:
        """(kind, rows) of the file in one pass; `survey` is complete when the iteration ends."""
        names = {kind: {column.name for column in load.capture().of_kind(kind)} for kind in _BULK}
        for follower, out in self._pass(survey, progress):
            for kind, code in _BULK.items():
                yield kind, rows.syscalls(follower, out, code, names[kind])
        yield from survey.tables()

    @functools.cached_property
    def facts(self) -> FileFacts:
        """See `Source`."""
        survey = self.survey
        counts = dict(survey.counts)
        for kind, table in survey.tables():
            counts[kind] = table.num_rows
        return FileFacts(
            path=self.path,
            format=self.form.name,
            size_bytes=self.path.stat().st_size,
            rows=counts,
            first_ns=survey.first_ns,
            last_ns=survey.last_ns,
            losses=survey.totals,
            host=survey.host,
            extra={"damage": dataclasses.asdict(survey.damage)} if survey.damage else {},
            carried={carried.METADATA_KEY: carried.to_text(survey.blocks)},
        )

    def rows(self, kind: str) -> pl.LazyFrame:
        """See `Source`."""
        columns = load.capture().of_kind(kind)
        if kind in _BULK:
            return lazy_rows(kind, functools.partial(self._pieces, kind))
        found = [pl.DataFrame(pl.from_arrow(table)) for name, table in self.survey.tables() if name == kind]
        return conform(found[0].lazy() if found else pl.LazyFrame(), columns)

    def _pieces(self, kind: str, names: Collection[str]) -> Generator[Piece]:
        for table in self._tables_alone(kind, {*names}):
            yield table.num_rows, {name: table[name].combine_chunks() for name in table.schema.names}
