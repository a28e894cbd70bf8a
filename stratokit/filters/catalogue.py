"""The fields that a filter may name, as the engine hands them over: this room lists none itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

import polars as pl

# What each type holds, in the words of an error message. In a field of type ipv4 or ipv6 only that family
# counts, although its columns may hold both.
TYPES = {
    "number": "a number",
    "bool": "true or false",
    "duration": "a duration, as 10ms or in seconds",
    "time": 'a time, as "2026-01-31 12:00:00"',
    "text": 'a text, as "..."',
    "bytes": 'bytes, as "..."',
    "address": "an IP address",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "protocol": "a protocol, which stands alone",
    "octets": "bytes with a mask, as 0f or 0x0f",
}
ADDRESSES = frozenset(("address", "ipv4", "ipv6"))


@dataclasses.dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field: its type, and one expression for each of the values that a row may have (ip.addr has two).

    `many` says that the expressions are lists, all elements of which are values. `payload` are the bytes of a
    protocol, for slices and searches. `layers`: for each value of a layer those of all, from outside; of
    `around` layers more, outside of these, the values are not known.
    """

    name: str
    type: str
    values: tuple[pl.Expr, ...]
    doc: str
    many: bool = False
    payload: pl.Expr | None = None
    layers: tuple[tuple[pl.Expr, ...], ...] = ()
    around: pl.Expr | None = None


Catalogue: TypeAlias = Mapping[str, FieldSpec]
