"""Packet files of other programs as a source of rows: read anew for each query, no more than is asked for.

A file goes through in windows, so memory does not grow with it. What takes no look into frames (how many,
from when to when, which interfaces, where reading had to end) comes from a walk over the records alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from stratokit.engine.facts import FileFacts
from stratokit.engine.frames import conform, polars_schema
from stratokit.engine.packet_windows import SIMPLE_PACKET, Columns, columns_of
from stratokit.engine.progress import reading
from stratokit.errors import FormatError
from stratokit.formats.frames import Damage, FrameBatch, Interface
from stratokit.formats.pcapng import cold
from stratokit.formats.registry import Format
from stratokit.formats.source import MappedSource, open_source
from stratokit.formats.views import spread
from stratokit.schema import load

Tables = Iterator[tuple[str, pa.Table]]
Progress = Callable[[int, int], None]
TIME = pa.timestamp("ns", "UTC")


@dataclasses.dataclass(slots=True)
class Survey:
    """What is known of a packet file when all of it was walked over."""

    packets: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    interfaces: list[Interface] = dataclasses.field(default_factory=list)
    damage: Damage | None = None
    skipped_blocks: int = 0
    # Metadata that let a writer of the same format write the file again.
    carried: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, batch: FrameBatch) -> None:
        """Count a batch."""
        self.packets += len(batch.offsets)
        times = batch.ts_ns[batch.blocks != SIMPLE_PACKET] if batch.blocks.any() else batch.ts_ns
        if len(times):
            first, last = int(times.min()), int(times.max())
            self.first_ns = first if self.first_ns is None else min(self.first_ns, first)
            self.last_ns = last if self.last_ns is None else max(self.last_ns, last)

    def end(self, reader: Any, path: Path) -> Survey:
        """Take what the reader knows at its end.

        Raises:
            FormatError: it could read nothing at all.
        """
        self.interfaces, self.damage = reader.interfaces, reader.damage
        self.skipped_blocks = reader.skipped_blocks
        if self.damage is not None and not self.packets:
            raise _nothing(path, self.damage)
        if reader.cold:
            self.carried = {cold.METADATA_KEY: cold.to_text(reader.cold)}
        return self

    @property
    def losses(self) -> dict[str, int]:
        """What was lost or passed over, by counter."""
        skipped = {"block_skipped": self.skipped_blocks} if self.skipped_blocks else {}
        return ({self.damage.counter: 1} if self.damage else {}) | skipped

    def tables(self) -> Tables:
        """Rows of the kinds interface and loss."""
        if self.interfaces:
            yield "interface", _interface_rows(self.interfaces, self.last_ns)
        if self.losses:
            yield "loss", self._loss_rows()

    def _loss_rows(self) -> pa.Table:
        """Damage stands where it is; blocks that were passed over stand anywhere in the file."""
        count, damage = len(self.losses), self.damage
        span = self.last_ns - self.first_ns if self.last_ns is not None and self.first_ns is not None else 0
        places: list[tuple[int | None, str | None, int]] = []
        if damage:
            places.append((damage.offset, damage.reason, 0))
        places += [(None, None, span)] * (count - len(places))
        return pa.table(
            {
                "ts": pa.array([self.last_ns] * count, TIME),
                "counter": list(self.losses),
                "amount": list(self.losses.values()),
                "span_ns": pa.array([span for _, _, span in places], pa.int64()),
                "file_offset": pa.array([offset for offset, _, _ in places], pa.uint64()),
                "reason": pa.array([reason for _, reason, _ in places], pa.string()),
            }
        )


def _nothing(path: Path, damage: Damage) -> FormatError:
    return FormatError(f"{path}: nothing could be read: {damage.reason} (byte {damage.offset})")


def capture_tables(
    path: Path,
    form: Format,
    survey: Survey,
    progress: Progress | None = None,
    names: Collection[str] | None = None,
) -> Tables:
    """(kind, rows) of a packet file in one pass: packets, then interfaces and what was lost.

    `survey` is complete when the iteration ends. `names`: columns of packets that are wanted, if not all.
    """
    assert form.open_reader is not None
    size = path.stat().st_size
    names = names or [column.name for column in load.capture().of_kind("packet")]
    with form.open_reader(path) as reader:
        tell = (lambda: progress(reader.position(), size)) if progress else None
        for columns in columns_of(_Surveyed(reader, survey), names, progress=tell):
            yield "packet", pa.table(columns)
        survey.end(reader, path)
        yield from survey.tables()
        if progress:
            progress(size, size)


class _Surveyed:
    """A reader whose batches are counted on their way."""

    def __init__(self, reader: Any, survey: Survey) -> None:
        self._reader, self._survey = reader, survey

    def batches(self) -> Iterator[FrameBatch]:
        for batch in self._reader.batches():
            self._survey.add(batch)
            yield batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def _interface_rows(interfaces: list[Interface], last_ns: int | None) -> pa.Table:
    return pa.table(
        {
            "ts": pa.array([last_ns] * len(interfaces), TIME),
            "interface": pa.array([i.name or None for i in interfaces], pa.string()),
            "ifindex": pa.array([i.ifindex for i in interfaces], pa.uint32()),
            "link_type": pa.array([i.link_type for i in interfaces], pa.uint16()),
            "mac": pa.array([i.mac or None for i in interfaces], pa.string()),
            "addresses": pa.array([list(i.addresses) for i in interfaces], pa.list_(pa.string())),
            "interface_info": pa.array([_info(i) for i in interfaces], pa.string()),
        }
    )


def _info(interface: Interface) -> str:
    options = [{"code": code, "hex": value.hex()} for code, value in interface.options]
    return json.dumps({"snaplen": interface.snaplen, "options": options})


class PacketSource:
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
        with self.form.open_reader(self.path) as reader, reading(self.path, reader) as tell:
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
            scan: pl.LazyFrame = register_io_source(
                self._scan, schema=polars_schema(columns), is_pure=True, validate_schema=False
            )
            return scan
        if kind not in ("interface", "loss"):
            return conform(pl.LazyFrame(), columns)
        found = [pl.DataFrame(pl.from_arrow(table)) for name, table in self.survey.tables() if name == kind]
        return conform(found[0].lazy() if found else pl.LazyFrame(), columns)

    def _scan(
        self,
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG002
    ) -> Iterator[pl.DataFrame]:
        """What polars calls: rows with the columns that a query needs, until it has enough of them.

        Only Arrow and numba run in threads of our own. polars waits for this generator in one of its
        threads, and would wait for ever if it needed that thread to filter what another one made.
        """
        assert self.form.open_reader is not None
        schema = polars_schema(load.capture().of_kind("packet"))
        shown = list(schema.names()) if with_columns is None else with_columns
        names = {*shown, *(predicate.meta.root_names() if predicate is not None else ())}
        read = names if names != {"kind"} else {"kind", "cap_len"}
        with self.form.open_reader(self.path) as reader, reading(self.path, reader) as tell:
            given = 0
            found = 0
            for columns in columns_of(reader, read, progress=tell):
                found += len(next(iter(columns.values())))
                frame = _frame(columns, names, schema)
                if predicate is not None:
                    frame = frame.filter(predicate)
                if n_rows is not None:
                    frame = frame.head(n_rows - given)
                given += frame.height
                yield frame.select(shown)
                if n_rows is not None and given >= n_rows:
                    return
            self.damage = reader.damage
            if self.damage is not None and not found:
                raise _nothing(self.path, self.damage)
            if not given:
                yield pl.DataFrame(schema={name: schema[name] for name in shown})


def _frame(columns: Columns, names: Collection[str], schema: pl.Schema) -> pl.DataFrame:
    """Arrow columns as polars has them: names as text, absent ones null."""
    height = len(next(iter(columns.values())))
    found = {}
    for name in names:
        column = columns.get(name)
        if column is None or column.null_count == height:
            found[name] = _filled("packet" if name == "kind" else None, schema[name], height).alias(name)
        else:
            text = isinstance(column, pa.DictionaryArray)
            series = pl.Series(name, spread(column) if text else column)
            found[name] = series if series.dtype == schema[name] else series.cast(schema[name])
    return pl.DataFrame(found)


# Windows are of a few sizes, and many columns of all of them are null: made once, shared by all.
_FILLED_MAX = 64


@functools.lru_cache(_FILLED_MAX)
def _longest(value: str | None, dtype: pl.DataType, height: int) -> pl.Series:
    return pl.repeat(value, height, dtype=dtype, eager=True)


def _filled(value: str | None, dtype: pl.DataType, height: int) -> pl.Series:
    """`value` as often as wanted."""
    return _longest(value, dtype, 1 << max(height - 1, 0).bit_length()).head(height)
