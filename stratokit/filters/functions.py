"""Functions that a filter may call on a field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import polars as pl

from stratokit.filters.operands import Operand


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """`takes` are the types that it applies to, empty for all."""

    takes: frozenset[str]
    apply: Callable[[Operand], Operand]
    doc: str


def _each(type_: str, change: Callable[[Operand, pl.Expr], pl.Expr]) -> Callable[[Operand], Operand]:
    """A function that works on each value alone."""

    def apply(operand: Operand) -> Operand:
        if operand.many:
            values = tuple(v.list.eval(change(operand, pl.element())) for v in operand.values)
        else:
            values = tuple(change(operand, value) for value in operand.values)
        return Operand(operand.name, type_ or operand.type, values, operand.many)

    return apply


def _length(operand: Operand, value: pl.Expr) -> pl.Expr:
    if operand.type == "bytes":
        return value.bin.size()
    return value.cast(pl.String).str.len_bytes()


def _count(operand: Operand) -> Operand:
    if operand.many:
        there = [value.list.eval(operand.there(pl.element())) for value in operand.values]
        counts = [value.list.sum().fill_null(0).cast(pl.UInt32) for value in there]
    else:
        counts = [operand.there(value).fill_null(value=False).cast(pl.UInt32) for value in operand.values]
    total = pl.sum_horizontal(counts)
    # As in Wireshark, a row without the field has no count, rather than a count of 0.
    return Operand(operand.name, "number", (pl.when(total > 0).then(total),))


_TEXT = frozenset(("text",))
FUNCTIONS = {
    "lower": Function(
        _TEXT, _each("text", lambda _, v: v.cast(pl.String).str.to_lowercase()), "in lower case"
    ),
    "upper": Function(
        _TEXT, _each("text", lambda _, v: v.cast(pl.String).str.to_uppercase()), "in upper case"
    ),
    "len": Function(frozenset(("text", "bytes")), _each("number", _length), "length in bytes"),
    "count": Function(frozenset(), _count, "how many values the row has"),
    "string": Function(
        frozenset(("number", "address", "ipv4", "ipv6")),
        _each("text", lambda _, v: v.cast(pl.String)),
        "as a text, for contains and matches",
    ),
}
