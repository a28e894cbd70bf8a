"""A capture as its user sees it: tables by name, restricted by a filter where one was given."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from stratokit.engine import scan
from stratokit.engine.facts import FileFacts, merged
from stratokit.engine.fields import catalogue, elsewhere, known_names, uses, with_joined
from stratokit.engine.frames import collect
from stratokit.engine.inputs import PathLike, resolve
from stratokit.engine.packet_analysis import with_analysis
from stratokit.engine.tables import Entry, entries, entry, packet_fields
from stratokit.errors import UsageError
from stratokit.protocols.base import Passes
from stratokit.protocols.tls_keys import Secrets, read_keylog
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.packet_files import PacketSource
    from stratokit.engine.scap.source import ScapSource
    from stratokit.filters import tree
    from stratokit.formats.frames import Damage
    from stratokit.streams.follow import Stream

_LEAST_RECORD_BYTES = 16  # a packet of pcap without a byte

_C = TypeVar("_C", bound="Capture")


@dataclasses.dataclass(frozen=True)
class Where:
    """A filter: as it was written, and taken apart."""

    text: str
    test: tree.Test

    @classmethod
    def parsed(cls, text: str) -> Where:
        """Take `text` apart.

        Raises:
            FilterError: it breaks the grammar.
        """
        from stratokit.filters.parse import parse

        return cls(text, parse(text))

    @functools.cached_property
    def fields(self) -> frozenset[str]:
        """The fields that it names. Other names are texts without quotation marks, or unknown."""
        from stratokit.filters import tree

        return tree.fields(self.test) & known_names()


class Capture:
    """One or several capture files.

    >>> capture = Capture.open("capture.parquet")  # doctest: +SKIP
    >>> capture.table("http").filter(pl.col("status") >= 500).collect()  # doctest: +SKIP
    """

    def __init__(self, sources: tuple[scan.Source, ...]) -> None:
        self._sources = sources
        self._where: Where | None = None
        # Shared by all restrictions of this capture: tables as built from all rows, before any filter.
        self._built: dict[str, pl.LazyFrame] = {}
        self._whole: Capture = self
        # What one pass over the TCP streams found for tables that were asked for (protocols.over_tcp).
        self.passes = Passes()
        self._keylog = b""

    @classmethod
    def open(cls: type[_C], source: PathLike | Iterable[PathLike], keylog: PathLike | None = None) -> _C:
        """The capture in a file, several files, a folder, or what a pattern matches.

        Args:
            source: what to read.
            keylog: a file of TLS secrets, as programs write it under SSLKEYLOGFILE; those that the captures
                hold themselves are used too.

        Raises:
            FormatError: a file cannot be read.
        """
        capture = cls(tuple(scan.open_source(path) for path in resolve(source)))
        if keylog is not None:
            from stratokit.engine import key_logs

            capture._keylog = key_logs.read_file(keylog)
        return capture

    @functools.cached_property
    def secrets(self) -> Secrets:
        """Secrets of TLS by the client's random, from the key log and from the files themselves."""
        from stratokit.engine import key_logs

        # A plain pcap carries nothing, and need not be walked through to say so.
        carriers = [source for source in self._sources if _format(source) != "pcap"]
        logs = [key_logs.carried(source.facts.carried) for source in carriers]
        return read_keylog(b"\n".join([*logs, self._keylog]))

    @property
    def has_key_log(self) -> bool:
        """Whether the key log given to `open` holds any secret."""
        return bool(read_keylog(self._keylog))

    def __repr__(self) -> str:
        names = ", ".join(str(path) for path in self.paths)
        return f"<stratokit capture {names}{f' where {self._where.text}' if self._where else ''}>"

    @property
    def paths(self) -> list[Path]:
        """Its files."""
        return [source.facts.path for source in self._sources]

    @property
    def packet_file(self) -> PacketSource | None:
        """The one packet file of another program that this capture is, if it is."""
        from stratokit.engine.packet_files import PacketSource

        source = self._sources[0]
        return source if len(self._sources) == 1 and isinstance(source, PacketSource) else None

    @property
    def scap_file(self) -> ScapSource | None:
        """The one scap file that this capture is, if it is."""
        source: Any = self._sources[0]
        return source if len(self._sources) == 1 and _format(source) == "scap" else None

    @property
    def is_mapped(self) -> bool:
        """Whether bytes of packets stay in the files until they are looked at."""
        mapped = all(getattr(source, "is_mapped", False) for source in self._sources)
        return mapped and (len(self._sources) == 1 or scan.in_turn(self._sources))

    def packet_windows(self, names: Collection[str]) -> Generator[tuple[dict[str, Any], Any]] | None:
        """Columns of packets as Arrow arrays, window by window, and what keeps the memory of each.

        Names may be those of dissect.payloads, too. None where bytes of packets do not stay in the files, or
        not all of these are packet files of other programs.
        """
        from stratokit.engine.packet_files import PacketSource, merged_windows

        files = [source for source in self._sources if isinstance(source, PacketSource)]
        if len(files) < len(self._sources) or not self.is_mapped:
            return None
        return files[0].windows(names) if len(files) == 1 else merged_windows(files, names)

    def has_at_most(self, packets: int) -> bool:
        """Whether there are no more packets; files are only walked through where their sizes do not tell."""
        sizes = [Path(source.path).stat().st_size for source in self._sources]  # type: ignore[attr-defined]
        if sum(sizes) <= packets * _LEAST_RECORD_BYTES:
            return True
        return sum(file.rows.get("packet", 0) for file in self.files) <= packets

    @property
    def damages(self) -> list[tuple[Path, Damage]]:
        """Where reading a file had to end, as far as one came to its end by now."""
        read = [source for source in self._sources if getattr(source, "damage", None) is not None]
        return [(source.path, source.damage) for source in read]  # type: ignore[attr-defined]

    @property
    def files(self) -> list[FileFacts]:
        """Facts of each file."""
        return [source.facts for source in self._sources]

    @property
    def filter_text(self) -> str | None:
        """The filter of `where`, None for the whole capture."""
        return self._where.text if self._where else None

    @property
    def whole(self) -> Capture:
        """The capture without any filter."""
        return self._whole

    @functools.cached_property
    def has_plaintext(self) -> bool:
        """Whether it holds what programs sent and received in TLS."""
        return self.packet_file is None and any(file.rows.get("plaintext") for file in self.files)

    def info(self) -> dict[str, Any]:
        """Files, host, time span, rows by kind, losses: from metadata alone."""
        return merged(self.files)

    def rows(self, kind: str) -> pl.LazyFrame:
        """Rows of one kind as they stand in the files, never restricted."""
        if kind not in load.capture().kinds:
            raise UsageError(
                f"there is no kind {kind!r} of rows; there are {', '.join(load.capture().kinds)}"
            )
        return scan.joined_rows(self._sources, kind)

    def selected_rows(self, kind: str) -> pl.LazyFrame:
        """As `rows`, without packets that the filter of `where` leaves out."""
        if self._where is None or kind != "packet":
            return self.rows(kind)
        found = entry("packets")
        return self._restricted(found, self.built("packets"), self._where).select(
            column.name for column in load.capture().of_kind(kind)
        )

    def tables(self) -> list[str]:
        """Names of all tables, whether this capture can fill them or not."""
        return list(entries())

    def recorded(self, name: str) -> bool:
        """Whether the capture could have filled the table, even if nothing of the kind happened."""
        kind = entry(name).kind
        if entry(name).from_payload and any(
            file.rows.get("syscall") or file.rows.get("plaintext") for file in self.files
        ):
            return True
        return any(file.rows.get(kind) or kind in file.asked for file in self.files)

    def _source_of(self, name: str) -> Any:
        """What a table is built from: without packets, parsers read what calls sent and received."""
        if entry(name).from_payload:
            from stratokit.engine.socket_payload import SocketPayload, stands_in

            if stands_in(self._whole):
                return SocketPayload(self._whole)
        return self._whole

    def built(self, name: str) -> pl.LazyFrame:
        """A table from all rows, with columns that only filters use."""
        found = self._built.get(name)
        if found is None:
            found = self._built[name] = entry(name).build(self._source_of(name))
        return found

    def messages(self, name: str) -> pl.LazyFrame:
        """What the packets of a protocol have fields of (see `PacketFields`)."""
        return self.kept(f"{name}:messages", packet_fields()[name].build)

    def kept(self, name: str, build: Callable[[Capture], pl.LazyFrame]) -> pl.LazyFrame:
        """What is made of the whole capture, under a name that no table has."""
        if name not in self._built:
            self._built[name] = build(self._whole)
        return self._built[name]

    def stream(self, flow_id: int) -> Stream:
        """Both directions of a TCP conversation, as Wireshark's "follow stream" reads them.

        Raises:
            UsageError: there is no TCP conversation of that number.
        """
        from stratokit.streams.follow import follow

        return follow(self._whole, flow_id)

    def keep(self, names: Iterable[str]) -> None:
        """Compute these tables now and once, because several questions about them follow."""
        names = list(names)
        self._whole.passes.expected.update(names)
        for name in names:
            if entry(name).is_derived:  # its rows are made, but nothing that only some ask for
                collect(self.built(name).select(pl.len()))
            else:
                self._built[name] = collect(self.built(name)).lazy()

    def table(
        self, name: str, where: str | None = None, columns: Iterable[str] | None = None
    ) -> pl.LazyFrame:
        """A table by name; `where` filters its rows and may only name fields that this table has.

        Args:
            columns: these, also such as come only where they are named (`tcp_analysis` of packets).
        """
        found = entry(name)
        frame = self.built(name)
        if self._where is not None:
            frame = self._restricted(found, frame, self._where)
        if where is not None:
            frame = self._filtered(found, frame, Where.parsed(where))
        shown = list(found.columns if columns is None else columns)
        return self._widened(found, frame, shown).select(shown)

    def where(self: _C, text: str) -> _C:
        """The same capture, each table restricted to what matches.

        Tables that lack a field of the filter are restricted to the conversations that match in other tables.
        """
        self._check(Where.parsed(text))
        restricted = type(self)(self._sources)
        restricted._built, restricted._whole = self._built, self._whole
        restricted._where = Where.parsed(f"({self._where.text}) && ({text})" if self._where else text)
        return restricted

    def applies(self, name: str) -> bool:
        """Whether the filter of `where` says anything about this table."""
        if self._where is None:
            return True
        return self._where.fields <= uses(name).keys() or "flow_id" in entry(name).columns

    def _check(self, where: Where) -> None:
        """An unknown field, or a value of the wrong type, is told at once, not when a table is asked for."""
        from stratokit.filters.compile import compile_tree

        fitting = [name for name in entries() if where.fields <= uses(name).keys()]
        for name in fitting or ["packets"]:
            compile_tree(where.test, where.text, catalogue(name), elsewhere(name))

    def matching(self, name: str, where: Where) -> pl.LazyFrame:
        """Rows of a table that match, with columns that only filters use."""
        return self._filtered(entry(name), self.built(name), where)

    def _filtered(self, found: Entry, frame: pl.LazyFrame, where: Where) -> pl.LazyFrame:
        from stratokit.filters import tree
        from stratokit.filters.compile import compile_tree

        name = found.table.name
        own = {spec.name: spec for spec in found.fields}
        if tree.fields(where.test) <= own.keys():  # then no other table need be known
            condition = compile_tree(where.test, where.text, own)
        else:
            condition = compile_tree(where.test, where.text, catalogue(name), elsewhere(name))
            frame = with_joined(self._whole, name, frame, where.fields)
        return self._widened(found, frame, condition.meta.root_names()).filter(condition)

    def _widened(self, found: Entry, frame: pl.LazyFrame, names: Iterable[str]) -> pl.LazyFrame:
        return with_analysis(frame, self._whole, names) if found.table.name == "packets" else frame

    def _restricted(self, found: Entry, frame: pl.LazyFrame, where: Where) -> pl.LazyFrame:
        if where.fields <= uses(found.table.name).keys() or "flow_id" not in found.columns:
            return self._filtered(found, frame, where)
        fitting = [
            n
            for n, e in entries().items()
            if "flow_id" in e.columns and not e.table.costly and where.fields <= uses(n).keys()
        ]
        if not fitting:
            return self._filtered(found, frame, where)
        # Where rows of conversations, requests, ... can tell, packets need not be read.
        fitting = [other for other in fitting if other != "packets"] or fitting
        matching = [
            self._filtered(entry(other), self.built(other), where).select("flow_id") for other in fitting
        ]
        flows = pl.concat(matching).drop_nulls().unique()
        return frame.join(flows, on="flow_id", how="semi", maintain_order="left")


def _format(source: Any) -> str | None:
    """The format of a file that is no capture.parquet."""
    form = getattr(source, "form", None)
    return None if form is None else str(form.name)
