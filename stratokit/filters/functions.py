"""Functions that a filter may call on fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import polars as pl

from stratokit.filters.arithmetic import sliced
from stratokit.filters.catalogue import ADDRESSES
from stratokit.filters.operands import Operand, Unfit
from stratokit.filters.tree import Piece


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """`takes` are the types that it applies to, empty for all; `many`: it takes several arguments."""

    takes: frozenset[str]
    apply: Callable[..., Operand]
    doc: str
    many: bool = False


def _length(operand: Operand) -> Operand:
    if operand.type in ADDRESSES:
        operand = sliced(operand, (Piece(0),))
    if operand.type == "bytes":
        return operand.each(lambda v: v.bin.size().cast(pl.Int64), "number")
    return operand.each(lambda v: v.cast(pl.String).str.len_bytes().cast(pl.Int64), "number")


def _count(operand: Operand) -> Operand:
    if operand.many:
        there = [value.list.eval(operand.there(pl.element())) for value in operand.values]
        counts = [value.list.sum().fill_null(0).cast(pl.UInt32) for value in there]
    else:
        counts = [operand.there(value).fill_null(value=False).cast(pl.UInt32) for value in operand.values]
    total = pl.sum_horizontal(counts)
    # As in Wireshark, a row without the field has no count, rather than a count of 0.
    return Operand(operand.name, "number", (pl.when(total > 0).then(total),))


def _extreme(name: str) -> Callable[..., Operand]:
    def apply(*operands: Operand) -> Operand:
        first = operands[0]
        for operand in operands:
            if operand.type != first.type:
                raise Unfit(f"{name} takes values of one type")
        values: list[pl.Expr] = []
        for operand in operands:
            found = operand.values
            if operand.many:
                found = tuple(v.list.max() if name == "max" else v.list.min() for v in found)
            values += found
        over = pl.max_horizontal if name == "max" else pl.min_horizontal
        return Operand(first.name, first.type, (over(values),))

    return apply


def _absolute(operand: Operand) -> Operand:
    return operand.each(lambda v: (v + pl.lit(0, pl.Int64)).abs())


def _text(operand: Operand) -> Operand:
    if operand.type in {"ipv4", "ipv6"}:  # the other family is no value of it
        return operand.each(lambda v: pl.when(operand.there(v)).then(v.cast(pl.String)), "text")
    return operand.each(lambda v: v.cast(pl.String), "text")


_TEXT = frozenset(("text",))
_ORDERED = frozenset(("number", "duration", "time"))
FUNCTIONS = {
    "lower": Function(
        _TEXT, lambda o: o.each(lambda v: v.cast(pl.String).str.to_lowercase()), "in lower case"
    ),
    "upper": Function(
        _TEXT, lambda o: o.each(lambda v: v.cast(pl.String).str.to_uppercase()), "in upper case"
    ),
    "len": Function(_TEXT | {"bytes"} | ADDRESSES, _length, "length in bytes"),
    "count": Function(frozenset(), _count, "how many values the row has"),
    "max": Function(_ORDERED, _extreme("max"), "the greatest of all values", many=True),
    "min": Function(_ORDERED, _extreme("min"), "the least of all values", many=True),
    "abs": Function(frozenset(("number", "duration")), _absolute, "without its sign"),
    "string": Function(frozenset(("number",)) | ADDRESSES, _text, "as a text, for contains and matches"),
}
