"""Every table that a capture can give: the raw ones, those of streams/, and one for each protocol."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.flow_fields import FLOW_FIELDS
from stratokit.engine.packet_analysis import any_flag
from stratokit.engine.raw_fields import RAW_FIELDS
from stratokit.engine.raw_tables import RAW_TABLES, wide_rows
from stratokit.errors import UsageError
from stratokit.filters.catalogue import FieldSpec
from stratokit.schema.model import Column
from stratokit.schema.tables import FilterField, PacketFields, Table

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture
    from stratokit.protocols.base import Protocol

# Fields whose column holds data of any kind, of which they mean the addresses.
_ANSWER_ADDRESSES = {"dns.a": "ipv4", "dns.aaaa": "ipv6"}
_NO_PLAIN_COLUMNS = {"flows": FLOW_FIELDS, "segments": (any_flag(pl.col("tcp_analysis")),)}
_NUMBERS = frozenset(("u8", "u16", "u32", "u64", "s32", "s64", "f64"))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A table with what makes it: `build` may give more columns than the table shows, for filters.

    `kind` names the rows without which the table has nothing to say.
    """

    table: Table
    kind: str
    build: Callable[[Capture], pl.LazyFrame]
    fields: tuple[FieldSpec, ...]
    # Whether the bytes that went over sockets are enough, be they packets or not.
    from_payload: bool = False

    @property
    def is_derived(self) -> bool:
        """Whether streams or protocols have to be followed for it."""
        return self.table.name not in _raw()

    @property
    def of_protocols(self) -> bool:
        """Whether protocols have to be followed for it, not packets and TCP alone."""
        return self.is_derived and (self.from_payload or self.table.costly)

    @property
    def columns(self) -> dict[str, Column]:
        """Columns by name."""
        return {column.name: column for column in self.table.columns}

    @property
    def named(self) -> dict[str, Column]:
        """As `columns`, with those that come only where they are named."""
        return self.columns | {column.name: column for column in self.table.on_request}


@functools.cache
def _raw() -> dict[str, Entry]:
    found = {}
    for kind, table in RAW_TABLES.items():
        build = functools.partial(wide_rows, kind=kind)
        found[table.name] = Entry(table, kind, build, RAW_FIELDS.get(table.name, ()))
    return found


@functools.cache
def entries() -> dict[str, Entry]:
    """All tables by name: raw ones first, then streams, then protocols."""
    found = dict(_raw())
    for entry in _derived():
        found[entry.table.name] = entry
    return found


@functools.cache
def packet_fields() -> dict[str, PacketFields]:
    """What packets can be filtered by besides their own columns, by the name of the protocol."""
    from stratokit.protocols.registry import modules
    from stratokit.streams import tcp

    found = (getattr(module, "PACKET_FIELDS", None) for module in (*modules(), tcp))
    return {fields.table.name: fields for fields in found if isinstance(fields, PacketFields)}


def entry(name: str) -> Entry:
    """The table of that name, or a UsageError that lists what there is."""
    # First where no other decoder has to be loaded.
    found = _raw().get(name) or _built(name) or _of_protocol(name) or entries().get(name)
    if found is None:
        near = difflib.get_close_matches(name, entries(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no table {name!r}; {hint}there are {', '.join(entries())}")
    return found


# The modules that declare and build tables of conversations, and of several protocols.
_STREAMS = {"flows": "streams.conversations", "tcp": "streams.tcp", "segments": "streams.segment_table"}
_JOINED = {"latency": "engine.latency.table"}


def _derived() -> Iterator[Entry]:
    from stratokit.protocols.registry import protocols

    yield from filter(None, map(_built, _STREAMS))
    for protocol in protocols().values():
        yield _of_protocol(protocol.name) or _decoded(protocol)
    yield from filter(None, map(_built, _JOINED))


@functools.cache
def _built(name: str) -> Entry | None:
    path = (_STREAMS | _JOINED).get(name)
    if path is None:
        return None
    module = importlib.import_module(f"stratokit.{path}")
    return Entry(module.TABLE, "packet", module.build, _specs(module.TABLE))


@functools.cache
def _of_protocol(name: str) -> Entry | None:
    from stratokit.protocols.registry import protocol

    found = protocol(name)
    return None if found is None else _decoded(found)


def _decoded(protocol: Protocol) -> Entry:
    return Entry(protocol.table, "packet", protocol.build, _specs(protocol.table), from_payload=True)


def _specs(table: Table) -> tuple[FieldSpec, ...]:
    declared = {field.name: field_spec(field, table) for field in table.fields}
    extra = {spec.name: spec for spec in _NO_PLAIN_COLUMNS.get(table.name, ())}
    return tuple((declared | extra).values())


def field_spec(field: FilterField, table: Table) -> FieldSpec:
    """A declared filter field with its type, which follows from that of its columns."""
    columns = {column.name: column for column in table.columns}
    first = columns[field.columns[0]]
    values = tuple(pl.col(name) for name in field.columns)
    return FieldSpec(field.name, _type(field.name, first), values, field.doc, many=first.type == "list<text>")


def _type(name: str, column: Column) -> str:
    if name in _ANSWER_ADDRESSES:
        return _ANSWER_ADDRESSES[name]
    if column.name.endswith("_ip"):
        return {"ip": "ipv4", "ipv6": "ipv6"}.get(name.partition(".")[0], "address")
    if column.type in _NUMBERS:
        return "duration" if column.unit == "ns" else "number"
    return {"time": "time", "bool": "bool", "bytes": "bytes"}.get(column.type, "text")
