"""A packet file gone through once: its packets as Arrow tables, and what is known at its end.

Nothing in here needs polars: a conversion is done before it would be loaded.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from stratokit.engine.packet_windows import SIMPLE_PACKET, columns_of
from stratokit.errors import FormatError
from stratokit.formats.frames import Damage, FrameBatch, Interface
from stratokit.formats.registry import Format
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
            raise nothing_read(path, self.damage)
        if blocks := reader.cold:
            from stratokit.formats.pcapng import cold

            self.carried = {cold.METADATA_KEY: cold.to_text(blocks)}
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


def nothing_read(path: Path, damage: Damage) -> FormatError:
    """What is said of a file that is damaged from the beginning."""
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
