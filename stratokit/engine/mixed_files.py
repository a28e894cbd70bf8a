"""pcapng files with packets and events of sysdig: read as a packet file and as a scap file, and written."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.engine.facts import FileFacts
from stratokit.engine.frames import conform
from stratokit.engine.packet_files import PacketSource
from stratokit.engine.scap import carried
from stratokit.engine.scap.source import ScapSource
from stratokit.errors import FormatError
from stratokit.formats import registry
from stratokit.formats.mixed import holds_both
from stratokit.formats.scap import blocks, lists
from stratokit.schema import load

if TYPE_CHECKING:
    import pyarrow as pa

    from stratokit.engine.capture import Capture
    from stratokit.formats.packet_rows import Run
    from stratokit.formats.registry import Format

Progress = Callable[[int, int], None]
_SKIPPED = "block_skipped"


class MixedSource:
    """Both kinds of rows of one file; each is read without the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._packets = PacketSource(path, registry.load_format("pcapng"))
        self._events = ScapSource(path, registry.load_format("scap"), beside_packets=True)
        self.form = self._packets.form

    @property
    def is_mapped(self) -> bool:
        """See `PacketSource`."""
        return self._packets.is_mapped

    @property
    def damage(self) -> Any:
        """See `PacketSource`."""
        return self._packets.damage

    @functools.cached_property
    def _read(self) -> tuple[PacketSource | None, ScapSource | None]:
        """Those of both that find something: damage may leave nothing for the other.

        Raises:
            FormatError: neither finds anything.
        """
        found: list[Any] = [self._packets, self._events]
        problem: FormatError | None = None
        for n, source in enumerate(found):
            try:
                source.survey  # noqa: B018
            except FormatError as error:
                found[n], problem = None, error
        if problem is not None and found == [None, None]:
            raise problem
        if found[0] is None:  # then its blocks are among what is passed over, and counted
            found[1] = ScapSource(self.path, registry.load_format("scap"))
        return found[0], found[1]

    @functools.cached_property
    def facts(self) -> FileFacts:
        """See `Source`."""
        packets, events = self._read
        if packets is None or events is None:
            one = packets or events
            assert one is not None
            return dataclasses.replace(one.facts, format=self.form.name)
        both = (packets.facts, events.facts)
        rows = both[1].rows | both[0].rows
        rows["loss"] = self.rows("loss").select(pl.len()).collect().item()
        return dataclasses.replace(
            both[0],
            rows={kind: count for kind, count in rows.items() if count},
            first_ns=min((facts.first_ns for facts in both if facts.first_ns is not None), default=None),
            last_ns=max((facts.last_ns for facts in both if facts.last_ns is not None), default=None),
            losses=both[1].losses | self._not_skipped(both[0].losses, events),
            host=both[1].host,
            carried=both[0].carried | self._lists(events),
        )

    @staticmethod
    def _lists(events: ScapSource) -> dict[str, str]:
        """What the events stand on, as a scap file has it."""
        found = events.survey.blocks
        section = [carried.Carried(0, lists.section())]
        rest = [item for item in found if item.block[:4] != blocks.SECTION_MAGIC]
        return {carried.METADATA_KEY: carried.to_text([*section, *rest])} if found else {}

    @staticmethod
    def _not_skipped(losses: dict[str, int], events: ScapSource) -> dict[str, int]:
        """Losses of packets, without the blocks that are events."""
        left = losses.get(_SKIPPED, 0) - events.survey.blocks_read
        return {name: amount for name, amount in losses.items() if name != _SKIPPED} | (
            {_SKIPPED: left} if left > 0 else {}
        )

    def rows(self, kind: str) -> pl.LazyFrame:
        """See `Source`."""
        packets, events = self._read
        if kind == "loss" and packets is not None and events is not None:
            skipped = self._not_skipped(packets.survey.losses, events).get(_SKIPPED, 0)
            amount = pl.when(pl.col("counter") == _SKIPPED).then(skipped).otherwise("amount").cast(pl.UInt64)
            told = packets.rows(kind).with_columns(amount.alias("amount")).filter(pl.col("amount") > 0)
            # Damage of the file is seen by both.
            return pl.concat([told, events.rows(kind)]).unique("counter", maintain_order=True)
        one = packets if kind in ("packet", "interface") else events
        if kind == "loss":
            one = packets or events
        return one.rows(kind) if one is not None else conform(pl.LazyFrame(), load.capture().of_kind(kind))


class UndecidedSource:
    """A file that begins as a scap file does. Calls and events are the same whether packets come behind them,
    so that nobody looks for packets before they matter.
    """

    def __init__(self, path: Path, form: Format) -> None:
        self._events = ScapSource(path, form)

    @functools.cached_property
    def _known(self) -> MixedSource | ScapSource:
        return MixedSource(self._events.path) if holds_both(self._events.path) else self._events

    @property
    def path(self) -> Path:
        """The file."""
        return self._events.path

    @property
    def facts(self) -> FileFacts:
        """See `Source`."""
        return self._known.facts

    def rows(self, kind: str) -> pl.LazyFrame:
        """See `Source`."""
        return self._events.rows(kind) if kind in ("syscall", "event") else self._known.rows(kind)

    def __getattr__(self, name: str) -> Any:
        """Everything else is that of the source which it turns out to be."""
        return getattr(self._known, name)


def with_events(
    capture: Capture,
    output: Path,
    metadata: dict[str, str],
    packets: Iterator[pa.Table],
    interfaces: list[Any],
    losses: pa.Table,
) -> None:
    """Write packets and system-call and socket events of a capture in order of time."""
    from stratokit.engine.scap import as_it_was
    from stratokit.formats.pcapng.merged import MergedWriter

    if as_it_was.came_from_scap(capture):
        known = carried.from_text(capture.files[0].carried[carried.METADATA_KEY])
        before = [item.block for item in known if item.block[:4] != blocks.SECTION_MAGIC]
        events = as_it_was.runs(capture)
    else:
        before, events = _of_recording(capture)
    with MergedWriter(output, metadata, interfaces, lists=before, events=events, losses=losses) as writer:
        for table in packets:
            writer.write(table)


def _of_recording(capture: Capture) -> tuple[list[bytes], Iterator[Run]]:
    from stratokit.engine.scap.events_out import AMONG_PACKETS
    from stratokit.engine.scap.export import Outgoing
    from stratokit.formats.scap.writer import Encoder

    outgoing = Outgoing(capture, AMONG_PACKETS)
    encoder = Encoder()
    runs = (run for events, rows in outgoing.batches() for run in encoder.encoded(events, rows))
    return list(outgoing.lists()), runs
