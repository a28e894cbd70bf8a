"""A frame as headings and texts, for every medium that people read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from stratokit.render import units
from stratokit.schema.model import Column

# Numbers that name something: no commas, no arithmetic.
_NAMING = ("pid", "tid", "port", "id", "frame", "cookie", "uid", "gid", "ino", "inode", "vlan", "netns")
# Two columns that people read as one: (heading, first, second, is an address).
_PAIRS = (
    ("src", "src_ip", "src_port", True),
    ("dst", "dst_ip", "dst_port", True),
    ("client", "client_ip", "client_port", True),
    ("server", "server_ip", "server_port", True),
    ("process", "comm", "pid", False),
    ("server process", "server_comm", "server_pid", False),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Cells:
    """One column as texts; `right` says that it is aligned as a number, `whole` that it must not be cut.

    `amounts` are the numbers that stand behind the texts of such a column, to sort by.
    """

    heading: str
    texts: list[str]
    right: bool
    whole: bool
    doc: str
    amounts: tuple[float | None, ...] = ()

    @property
    def width(self) -> int:
        """Of the widest text."""
        return max((len(text) for text in (self.heading, *self.texts)), default=0)


def plain_cells(frame: pl.DataFrame, columns: Iterable[Column], narrow: bool = False) -> list[Cells]:
    """Columns under their own names, as --select takes them; those without any value are left out.

    With little room (`narrow`), times are without their date.
    """
    found = []
    for column in columns:
        if frame.height and frame[column.name].null_count() == frame.height:
            continue
        cell = dataclasses.replace(_column(frame[column.name], column), heading=column.name)
        if narrow and column.type == "time":
            cell = dataclasses.replace(cell, texts=[text.partition(" ")[2] for text in cell.texts])
        found.append(cell)
    return found


def cells(frame: pl.DataFrame, columns: Iterable[Column]) -> list[Cells]:
    """Columns under short headings, pairs joined; columns without any value are left out."""
    declared = {column.name: column for column in columns if column.name in frame.columns}
    seconds = {second for _, first, second, _ in _PAIRS if first in declared}
    pairs = {first: (heading, second, is_address) for heading, first, second, is_address in _PAIRS}
    found = []
    for name, column in declared.items():
        if frame.height and frame[name].null_count() == frame.height:
            continue
        heading, second, is_address = pairs.get(name, ("", "", False))
        if second in declared:
            texts = _joined(frame, name, second, is_address)
            found.append(
                Cells(
                    heading, texts, right=False, whole=is_address, doc=f"{column.doc} {declared[second].doc}"
                )
            )
        elif name not in seconds:
            found.append(_column(frame[name], column))
    return found


def _column(series: pl.Series, column: Column) -> Cells:
    right = series.dtype.is_numeric() and not is_naming(column.name)
    heading = column.name.removesuffix("_ns").removesuffix("_ts").replace("_c2s", " →").replace("_s2c", " ←")
    return Cells(
        heading.replace("_", " "),
        [text(value, column) for value in _plain(series).to_list()],
        right=right,
        whole=series.dtype.is_numeric() or column.type == "time" or column.name.endswith("_ip"),
        doc=column.doc,
        amounts=tuple(series.to_list()) if right else (),
    )


def _plain(series: pl.Series) -> pl.Series:
    """Times as integers: Python's datetime has no nanoseconds."""
    return series.to_physical() if series.dtype == pl.Datetime else series


def is_naming(name: str) -> bool:
    """Whether a number is a name, as a port is, and not an amount."""
    return name.rpartition("_")[2] in _NAMING


def text(value: Any, column: Column) -> str:
    """One value as people read it; nothing for null."""
    if value is None:
        return ""
    if column.type == "time":
        return units.moment(value)
    if column.unit == "ns":
        return units.duration(value)
    if column.unit == "bytes":
        return units.size(value)
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return str(value) if is_naming(column.name) else units.number(value)
        case float():
            return f"{value:.3g}"
        case bytes():
            return value.hex()
        case list():
            return units.clean(", ".join(map(str, value)))
        case _:
            return units.clean(str(value))


def _joined(frame: pl.DataFrame, first: str, second: str, is_address: bool) -> list[str]:
    """10.0.0.1:80, [::1]:80; curl (123)."""
    name, number = pl.col(first), pl.col(second)
    if is_address:
        host = pl.when(name.str.contains(":", literal=True) & number.is_not_null())
        whole = host.then(pl.format("[{}]:{}", name, number)).otherwise(pl.format("{}:{}", name, number))
    else:
        whole = pl.format("{} ({})", name, number)
    joined = frame.select(pl.coalesce(whole, name, number.cast(pl.String)).fill_null("")).to_series()
    return [units.clean(value) for value in joined.to_list()]


GAP = 2
_LEAST = 12


def least_width(columns: Sequence[Cells]) -> int:
    """What `columns` take when every text is cut as far as `fitted` does."""
    widths = [c.width if c.whole else max(min(c.width, _LEAST), len(c.heading)) for c in columns]
    return sum(widths) + GAP * (len(columns) - 1)


def fitted(columns: Sequence[Cells], width: int) -> list[Cells]:
    """`columns` cut to `width`: the widest texts lose their ends, numbers stay whole."""
    widths = [column.width for column in columns]
    excess = sum(widths) + GAP * (len(columns) - 1) - width
    while excess > 0:
        shrinkable = [
            i for i, c in enumerate(columns) if not c.whole and widths[i] > max(_LEAST, len(c.heading))
        ]
        if not shrinkable:
            break
        widest = max(shrinkable, key=lambda i: widths[i])
        widths[widest] -= 1
        excess -= 1
    return [
        dataclasses.replace(column, texts=[_cut(t, limit) for t in column.texts])
        for column, limit in zip(columns, widths, strict=True)
    ]


def _cut(value: str, limit: int) -> str:
    return value if len(value) <= limit else value[: limit - 1] + "…"
