"""What a schema file declares, as frozen values. No input or output happens here."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A fixed part of a kernel record: `type` is u8..u64, s32, s64, an array of these, or char[n]."""

    name: str
    type: str
    doc: str
    unit: str = ""
    since: int = 1
    offset: int = 0
    size: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A variable part behind the fixed ones; `length` names the field that holds its size in bytes."""

    name: str
    length: str
    doc: str


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """A record that a kernel program writes: 16 bytes of header, own fields, then sections."""

    id: int
    name: str
    doc: str
    fields: tuple[Field, ...]
    sections: tuple[Section, ...]
    size: int
    since: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `type` as schemas/capture.toml lists them, `kinds` the rows that may fill it."""

    name: str
    type: str
    doc: str
    unit: str = ""
    kinds: tuple[str, ...] = ("*",)
    since: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class CaptureSchema:
    """The flat schema of capture.parquet."""

    version: int
    kinds: dict[str, str]
    columns: tuple[Column, ...]

    def of_kind(self, kind: str) -> tuple[Column, ...]:
        """Columns that rows of `kind` may fill, in file order."""
        return tuple(c for c in self.columns if kind in c.kinds or "*" in c.kinds)


@dataclasses.dataclass(frozen=True, slots=True)
class Counter:
    """A way to lose, cut or reject something; `loss` is true when recorded data is missing because of it."""

    name: str
    where: str
    loss: bool
    doc: str
    since: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Syscall:
    """A system call: its number here, its group, its arguments as (name, kind), and what it returns."""

    number: int
    name: str
    group: str
    args: tuple[tuple[str, str], ...]
    returns: str = "int"
    manages: bool = False  # keeps a descriptor rather than uses it

    @property
    def makes_two(self) -> bool:
        """Whether it makes two descriptors: pipe, pipe2, socketpair."""
        return any(kind == "fds_out" for _, kind in self.args)
