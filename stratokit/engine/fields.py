"""Which filter fields each table understands: its own, those of its conversation, and protocols by name."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.engine.tables import entries, field_spec, packet_fields
from stratokit.filters.catalogue import FieldSpec
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_FLOW, _FRAME = "flow_id", "frame"


@dataclasses.dataclass(frozen=True)
class Use:
    """A field as one table sees it. With `table`, its values are joined from there by `key`."""

    spec: FieldSpec
    table: str = ""
    key: str = ""


@functools.cache
def uses(name: str) -> dict[str, Use]:
    """Fields that rows of a table can be filtered by."""
    own = entries()[name]
    found = {spec.name: Use(spec) for spec in own.fields}
    if own.kind == "packet" and name != "packets":
        found.setdefault(name, Use(FieldSpec(name, "protocol", (pl.lit(value=True),), f"Rows of {name}.")))
    if name == "packets":
        found |= {field: use for field, use in _of_messages().items() if field not in found}
    if _FLOW not in own.columns:
        return found
    for other, entry in entries().items():
        if other in {name, "packets"} or _FLOW not in entry.columns:
            continue
        key = "frame" if name == "packets" and _frames(other) else _FLOW
        mark = FieldSpec(other, "protocol", (pl.col(_column(other)),), entry.table.doc)
        found.setdefault(other, Use(mark, other, key))
    if name != "flows" and "flows" in entries():
        for spec in entries()["flows"].fields:
            columns = tuple(pl.col(_column(spec.name, i)) for i in range(len(spec.values)))
            found.setdefault(spec.name, Use(dataclasses.replace(spec, values=columns), "flows", _FLOW))
    return found


def _of_messages() -> dict[str, Use]:
    """Fields that packets have by the messages that they complete: any number of values."""
    found = {}
    for name, fields in packet_fields().items():
        mark = FieldSpec(name, "protocol", (pl.col(_column(name)),), fields.table.doc)
        found[name] = Use(mark, name, _FRAME)
        for declared in fields.table.fields:
            spec = field_spec(declared, fields.table)
            values = (pl.col(_column(spec.name)),)
            found[spec.name] = Use(dataclasses.replace(spec, values=values, many=True), name, _FRAME)
    return found


def _frames(table: str) -> list[str]:
    """Columns with the frames that Wireshark shows as this protocol: of a long message, its last one."""
    columns = [column for column in entries()[table].columns if column.endswith("_frame")]
    return [c for c in columns if c.replace("_frame", "_last_frame") not in columns]


def _column(name: str, index: int = 0) -> str:
    """Name of a joined column; no column of a table has a colon."""
    return f"{name}:{index}"


def catalogue(name: str) -> dict[str, FieldSpec]:
    """Fields of a table for `filters.compile`."""
    return {field: use.spec for field, use in uses(name).items()}


@functools.cache
def known_names() -> frozenset[str]:
    """Every field of every table."""
    return frozenset(field for table in entries() for field in uses(table))


def elsewhere(name: str) -> dict[str, str]:
    """Fields that only other tables have, with the names of these."""
    own = uses(name)
    found: dict[str, list[str]] = {}
    for other, entry in entries().items():
        names = [spec.name for spec in entry.fields]
        if other == "packets":
            names += _of_messages()
        for field in names:
            if field not in own and other != name and not entry.table.costly:
                found.setdefault(field, []).append(other)
    return {
        field: f"the table{'s' if len(tables) > 1 else ''} {', '.join(tables)}"
        for field, tables in found.items()
    }


def with_joined(capture: Capture, name: str, frame: pl.LazyFrame, fields: frozenset[str]) -> pl.LazyFrame:
    """`frame` with the columns that `fields` take from other tables."""
    wanted = [use for field, use in uses(name).items() if field in fields and use.table]
    for use in wanted:
        if use.key == _FRAME and use.table in packet_fields():
            part = _by_frame(capture.messages(use.table), use)
        elif use.spec.type == "protocol":
            keys = _frames(use.table) if use.key == _FRAME else [_FLOW]
            other = capture.built(use.table)
            part = pl.concat([other.select(pl.col(key).alias(use.key)) for key in keys])
            part = part.drop_nulls().unique().with_columns(pl.lit(value=True).alias(_column(use.table)))
        else:
            spec = next(s for s in entries()[use.table].fields if s.name == use.spec.name)
            values = [value.alias(_column(spec.name, i)) for i, value in enumerate(spec.values)]
            part = capture.built(use.table).select(_FLOW, *values)
        frame = frame.join(part, on=use.key, how="left", maintain_order="left")
    return frame


def _by_frame(messages: pl.LazyFrame, use: Use) -> pl.LazyFrame:
    """A field's values by frame, as lists; of a protocol alone, that it is there."""
    column = _column(use.spec.name)
    if use.spec.type == "protocol":
        return messages.select(_FRAME).drop_nulls().unique().with_columns(pl.lit(value=True).alias(column))
    table = packet_fields()[use.table].table
    declared = next(field for field in table.fields if field.name == use.spec.name)
    spec = field_spec(declared, table)
    parts = [messages.select(_FRAME, value.alias(column)) for value in spec.values]
    if spec.many:
        parts = [part.explode(column) for part in parts]
    return pl.concat(parts).drop_nulls().group_by(_FRAME).agg(column)


FIELD_COLUMNS = (
    Column("name", "text", "Name in a filter."),
    Column("type", "text", "What it is compared with."),
    Column("meaning", "text", "What it means."),
    Column("tables", "text", "Tables that have it."),
    Column("columns", "text", "Columns that it stands for."),
)


def listing(text: str = "") -> pl.DataFrame:
    """Every field that has `text` in its name or meaning, in order of names."""
    found: dict[str, dict[str, Any]] = {}
    for table in entries():
        for name, use in uses(table).items():
            row = found.setdefault(
                name,
                {"name": name, "type": use.spec.type, "tables": [], "columns": [], "meaning": use.spec.doc},
            )
            row["tables"].append(table)
            if not use.table:
                roots = [root for value in use.spec.values for root in sorted(value.meta.root_names())]
                row["columns"] += [root for root in roots if root not in row["columns"]]
    wanted = text.lower()
    rows = [
        row | {"tables": ", ".join(row["tables"]), "columns": ", ".join(row["columns"])}
        for _, row in sorted(found.items())
        if wanted in row["name"] or wanted in row["meaning"].lower()
    ]
    return pl.DataFrame(rows, schema=[column.name for column in FIELD_COLUMNS])
