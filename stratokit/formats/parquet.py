"""capture.parquet: every event a row, one flat schema, row groups of one kind sorted by time.

The file holds no Arrow schema of its own: names are dictionary-coded in the file and plain text to every
reader, and times are timestamps in UTC. What is known of the capture as a whole is in the key-value metadata
under `stratokit.`.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stratokit.errors import FormatError
from stratokit.formats.output import FileWriter, tool_version
from stratokit.formats.parquet_footer import shifted
from stratokit.formats.registry import Format
from stratokit.formats.tables import conform, kind_columns, view_schema
from stratokit.formats.views import take_views, view_lengths
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

PREFIX = "stratokit."
MAGIC = b"PAR1"
GROUP_ROWS = 1 << 18
GROUP_BYTES = 128 << 20
# Rows that are encoded at a time, after which a page may end. By 1024, Arrow's own choice, dictionaries take
# twice as long.
ENCODED_ROWS = 1 << 13
# Bytes that a row takes in memory beside its data: about seventy narrow columns, most of them null.
ROW_BYTES = 200
# More find nothing to do while one thread gathers; each takes a row group's memory.
_ENCODERS = min(len(os.sched_getaffinity(0)), 2)
_TAIL_BYTES = 8  # length of the footer 4, magic 4


def _sorted_by_time(table: pa.Table) -> pa.Table:
    times = table["ts"].cast(pa.int64()).fill_null(0).to_numpy()
    if np.all(times[1:] >= times[:-1]):
        return table
    order = np.argsort(times, kind="stable")
    rows = pa.array(order)
    columns = [
        take_views(column, order) if pa.types.is_binary_view(column.type) else column.take(rows)
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _cuts(table: pa.Table) -> np.ndarray:
    """Row numbers that divide `table` into row groups within GROUP_ROWS and, if it can be, GROUP_BYTES."""
    size = np.full(table.num_rows, ROW_BYTES, np.int64)
    if "data" in table.schema.names:
        size += view_lengths(table["data"])
    end = np.cumsum(size)
    pieces = max(-(-table.num_rows // GROUP_ROWS), -(-int(end[-1]) // GROUP_BYTES))
    # Equal shares of the bytes; a share of many small rows is divided once more.
    cuts = np.searchsorted(end, np.arange(1, pieces) * (end[-1] / pieces))
    cuts = np.unique(np.concatenate([[0], cuts, [table.num_rows]]))
    parts = [np.arange(a, b, GROUP_ROWS) for a, b in itertools.pairwise(cuts)]
    return np.concatenate([*parts, [table.num_rows]])


class CaptureWriter(FileWriter):
    """Writes capture.parquet. Small writes of one kind are gathered into full row groups.

    `metadata` may still be changed until `close`; totals of the loss rows are added to it.
    """

    def __init__(self, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
        super().__init__(path)
        self.metadata = dict(metadata)
        self.rows_by_kind: dict[str, int] = {}
        self._pending: dict[str, list[pa.Table]] = {}
        self._losses: dict[str, int] = {}
        self._written_bytes = 0
        with self._output.errors():
            self._output.file.write(MAGIC)
        self._groups: list[pq.FileMetaData] = []
        # Row groups are encoded in threads while further rows are gathered, and written in order.
        self._encoder = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="stratokit-parquet")
        self._encoding: collections.deque[Future[list[pa.Buffer]]] = collections.deque()

    def write(self, kind: str, table: pa.Table) -> None:
        """Add rows of `kind`; columns may come in any order, those that are missing become null."""
        names = kind_columns(kind)
        unknown = set(table.schema.names) - set(names)
        if unknown or kind not in load.capture().kinds:
            raise ValueError(f"no such columns for kind {kind!r}: {sorted(unknown)}")
        if table.num_rows == 0:
            return
        names = [name for name in names if name in table.schema.names and name != "kind"]
        table = conform(table, names, view_schema())
        self.rows_by_kind[kind] = self.rows_by_kind.get(kind, 0) + table.num_rows
        if kind == "loss":
            self._count_losses(table)
        pending = self._pending.setdefault(kind, [])
        pending.append(table)
        rows = sum(part.num_rows for part in pending)
        if rows >= GROUP_ROWS or sum(part.nbytes for part in pending) >= GROUP_BYTES:
            self._flush(kind)

    def _count_losses(self, table: pa.Table) -> None:
        for total in table.group_by("counter").aggregate([("amount", "sum")]).to_pylist():
            self._losses[total["counter"]] = self._losses.get(total["counter"], 0) + total["amount_sum"]

    def _flush(self, kind: str) -> None:
        if len(self._encoding) == _ENCODERS:
            self._append()
        self._encoding.append(self._encoder.submit(_encode, kind, self._pending.pop(kind)))

    def _append(self) -> None:
        """Write what was encoded first; its failure is told here."""
        for encoded in self._encoding.popleft().result():
            file, chunks = self._output.file, memoryview(encoded)[len(MAGIC) :]
            size = int.from_bytes(chunks[-_TAIL_BYTES : -len(MAGIC)], "little")
            chunks, footer = chunks[: -_TAIL_BYTES - size], chunks[-_TAIL_BYTES - size : -_TAIL_BYTES]
            self._groups.append(_metadata(shifted(bytes(footer), self._written_bytes)))
            with self._output.errors():
                file.write(chunks)
            self._written_bytes += len(chunks)

    def _finish(self) -> None:
        for kind in list(self._pending):
            self._flush(kind)
        while self._encoding:
            self._append()
        self._encoder.shutdown()
        facts = {
            **self.metadata,
            "schema_version": str(load.capture().version),
            "version": tool_version(),
            "rows": json.dumps(self.rows_by_kind),
            "losses": json.dumps(self._losses),
        }
        whole = _footer_with({PREFIX + key: value for key, value in facts.items()})
        for group in self._groups:
            whole.append_row_groups(group)
        sink = pa.BufferOutputStream()
        whole.write_metadata_file(sink)
        self._output.file.write(memoryview(sink.getvalue())[len(MAGIC) :])

    def discard(self) -> None:
        """Give up: nothing stays behind."""
        self._pending.clear()
        self._encoder.shutdown(cancel_futures=True)
        super().discard()


def _encoded_in(sink: pa.BufferOutputStream) -> pq.ParquetWriter:
    names = [c.name for c in load.capture().columns if c.type == "name"]
    return pq.ParquetWriter(
        sink,
        view_schema(),
        compression="zstd",
        use_dictionary=names,
        # Statistics let readers skip row groups; those of payload would only take space.
        write_statistics=[c.name for c in load.capture().columns if c.type not in ("bytes", "text")],
        column_encoding={"ts": "DELTA_BINARY_PACKED", "frame": "DELTA_BINARY_PACKED"},
        write_batch_size=ENCODED_ROWS,
        store_schema=False,
    )


def _encode(kind: str, parts: list[pa.Table]) -> list[pa.Buffer]:
    """Row groups of one kind, each a Parquet file of its own."""
    table = pa.concat_tables(parts, promote_options="default").unify_dictionaries()
    parts.clear()
    table = _sorted_by_time(table)
    schema = view_schema()
    kind_type = schema.field("kind").type
    found = []
    for start, end in itertools.pairwise(_cuts(table)):
        part = table.slice(start, end - start)
        codes = pa.array(np.zeros(part.num_rows, np.int32))
        part = part.append_column("kind", pa.DictionaryArray.from_arrays(codes, [kind]).cast(kind_type))
        sink = pa.BufferOutputStream()
        with _encoded_in(sink) as writer:
            writer.write_table(conform(part, schema.names, schema), row_group_size=GROUP_ROWS)
        found.append(sink.getvalue())
    return found


def _footer_with(facts: dict[str, str]) -> pq.FileMetaData:
    """The footer of a file without rows."""
    sink = pa.BufferOutputStream()
    with _encoded_in(sink) as writer:
        writer.add_key_value_metadata(facts)
    return pq.read_metadata(pa.BufferReader(sink.getvalue()))


def _metadata(footer: bytes) -> pq.FileMetaData:
    size = len(footer).to_bytes(4, "little")
    return pq.read_metadata(pa.BufferReader(MAGIC + footer + size + MAGIC))


@dataclasses.dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group by its statistics; `kind` is None where another program mixed kinds in one group."""

    index: int
    kind: str | None
    rows: int
    first_ns: int
    last_ns: int
    first_frame: int = 0


class CaptureReader:
    """Reads capture.parquet of this and every earlier schema version."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        names = {c.name for c in load.capture().columns if c.type == "name"}
        try:
            footer = pq.read_metadata(path)
            names &= set(footer.schema.names)
            self._parquet = pq.ParquetFile(
                path, metadata=footer, memory_map=True, read_dictionary=sorted(names)
            )
        except pa.ArrowInvalid as error:
            raise FormatError(
                f"{os.fspath(path)} is no complete Parquet file: it was cut or never finished"
            ) from error
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "it is damaged"
            raise FormatError(f"cannot read {os.fspath(path)}: {reason}") from error
        self.path = path
        pairs = (self._parquet.metadata.metadata or {}).items()
        facts = {key.decode(): value.decode("utf-8", "replace") for key, value in pairs}
        self.metadata = {k.removeprefix(PREFIX): v for k, v in facts.items() if k.startswith(PREFIX)}
        if not self.metadata.get("schema_version", "").isdecimal():
            raise FormatError(f"{os.fspath(path)} is a Parquet file, but no stratokit capture")
        self.schema_version = int(self.metadata["schema_version"])
        self.schema: pa.Schema = self._parquet.schema_arrow
        self.row_groups = [self._describe(index) for index in range(self._parquet.num_row_groups)]

    def _describe(self, index: int) -> RowGroup:
        group = self._parquet.metadata.row_group(index)
        kind: str | None = None
        first, last, frame = 0, 0, 0
        for number in range(group.num_columns):
            column = group.column(number)
            statistics = column.statistics
            if statistics is None or not statistics.has_min_max:
                continue
            if column.path_in_schema == "kind" and statistics.min == statistics.max:
                kind = str(statistics.min)
            elif column.path_in_schema == "ts":
                first, last = statistics.min_raw, statistics.max_raw
            elif column.path_in_schema == "frame":
                frame = statistics.min
        return RowGroup(index, kind, group.num_rows, first, last, frame)

    def groups_of(self, kind: str) -> list[RowGroup]:
        """Row groups that may hold rows of `kind`, in order of their first time."""
        found = [group for group in self.row_groups if group.kind in (kind, None)]
        return sorted(found, key=lambda group: (group.first_ns, group.index))

    def iter_tables(self, kind: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """A table a row group, with `columns` (default: all of the kind); those the file lacks are null."""
        wanted = kind_columns(kind) if columns is None else list(columns)
        for group in self.groups_of(kind):
            yield self._read(group, kind, wanted)

    def _read(self, group: RowGroup, kind: str, wanted: Sequence[str]) -> pa.Table:
        present = {name for name in wanted if name in self.schema.names} | {"kind"}
        try:
            table = self._parquet.read_row_group(group.index, columns=sorted(present))
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())  # Arrow's takes several lines
            raise FormatError(
                f"{os.fspath(self.path)} is damaged in row group {group.index}: {reason}"
            ) from error
        if group.kind is None:
            import pyarrow.compute as pc  # takes long to load

            table = table.filter(pc.equal(table["kind"].cast(pa.string()), kind))
        return conform(table, wanted)

    def iter_packets(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Packets by number, that is in the order of the file they came from, where times may go back.

        Row groups are sorted by time, so rows wait until no later group can have lower numbers.
        """
        groups = sorted(self.groups_of("packet"), key=lambda group: (group.first_frame, group.index))
        ends = [group.first_frame for group in groups[1:]]
        waiting = None
        for group, end in itertools.zip_longest(groups, ends):
            table = self._read(group, "packet", columns)
            if waiting is not None and waiting.num_rows:
                table = pa.concat_tables([waiting, table]).unify_dictionaries()
            frames = table["frame"].fill_null(0).to_numpy()
            if np.any(frames[1:] < frames[:-1]):
                order = np.argsort(frames, kind="stable")
                table, frames = table.take(pa.array(order)), frames[order]
            ready = table.num_rows if end is None else int(np.searchsorted(frames, end))
            yield table.slice(0, ready)
            waiting = table.slice(ready)

    def close(self) -> None:
        """Let go of the file."""
        self._parquet.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_parquet(head: bytes) -> bool:
    return head.startswith(MAGIC)


FORMAT = Format("parquet", _is_parquet, CaptureReader, CaptureWriter)
