"""Slices, signs and arithmetic of values."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import polars as pl

from stratokit.filters import literals, tree
from stratokit.filters.catalogue import ADDRESSES, TYPES
from stratokit.filters.operands import MAX_VALUES, Operand, Unfit

_UNSIGNED = {1: pl.UInt8, 2: pl.UInt16, 4: pl.UInt32, 8: pl.UInt64}
_TAKES = {"+": {"number", "duration"}, "-": {"number", "duration"}, "&": {"number", "octets"}}


def sliced(operand: Operand, pieces: tuple[tree.Piece, ...]) -> Operand:
    """Bytes (of a text: characters) of every value; a value that is too short has none."""
    if operand.type in ADDRESSES:
        operand = operand.each(lambda value: pl.when(operand.there(value)).then(_packed(value)), "bytes")
    if operand.type not in {"bytes", "text"}:
        raise Unfit(f"{operand.name} is {TYPES[operand.type]}; slices are made of bytes, addresses and texts")
    binary = operand.type == "bytes"

    def cut(value: pl.Expr) -> pl.Expr:
        value = value if binary else value.cast(pl.String)
        parts = [_part(value, piece, binary) for piece in pieces]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        return whole

    return operand.each(cut)


def _part(value: pl.Expr, piece: tree.Piece, binary: bool) -> pl.Expr:
    size = (value.bin.size() if binary else value.str.len_chars()).cast(pl.Int64)
    start = pl.lit(piece.first) if piece.first >= 0 else size + piece.first
    end = size
    if piece.length is not None:
        end = start + piece.length
    elif piece.last is not None:
        end = (pl.lit(piece.last) if piece.last >= 0 else size + piece.last) + 1
    fits = (start >= 0) & (end > start) & (end <= size)
    length = end - start
    part = value.bin.slice(start, length) if binary else value.str.slice(start, length)
    return pl.when(fits).then(part)


def _packed(value: pl.Expr) -> pl.Expr:
    """Addresses as bytes, each distinct one parsed once."""

    def column(series: pl.Series) -> pl.Series:
        texts = series.cast(pl.String)
        distinct = texts.unique().drop_nulls()
        addresses = [literals.address(text) for text in distinct.to_list()]
        packed = pl.Series([a and a.packed for a in addresses], dtype=pl.Binary)
        return texts.replace_strict(distinct, packed, default=None, return_dtype=pl.Binary)

    return value.map_batches(column, return_dtype=pl.Binary, is_elementwise=True)


def negative(operand: Operand) -> Operand:
    """Every value with its sign changed."""
    if operand.type not in {"number", "duration"}:
        raise Unfit(f"{operand.name} is {TYPES[operand.type]}, which has no sign")
    return operand.each(lambda value: -_signed(value))


def octets(operand: Operand, size: int) -> Operand:
    """Bytes as one number, for bitwise and with a mask of `size` bytes."""
    if size not in _UNSIGNED:
        raise Unfit("a mask has 1, 2, 4 or 8 bytes")

    def number(value: pl.Expr) -> pl.Expr:
        fits = pl.when(value.bin.size() == size).then(value)
        return fits.bin.reinterpret(dtype=_UNSIGNED[size], endianness="big").cast(pl.Int64)

    return operand.each(number, "octets")


def combined(name: str, left: Operand, right: Operand) -> Operand:
    """`left name right`, of each value of the one with each of the other."""
    type_ = _result(name, left, right)
    if left.many or right.many:
        raise Unfit(f"{left.name} has any number of values; arithmetic takes it with a written value only")
    pairs = list(itertools.product(left.values, right.values))
    if len(pairs) > MAX_VALUES:
        raise Unfit(f"more than {MAX_VALUES} combinations of values")
    values = tuple(operation(name)(a, b) for a, b in pairs)
    return Operand(f"{left.name} {name} {right.name}", type_, values)


def _result(name: str, left: Operand, right: Operand) -> str:
    if left.type != right.type or left.type not in _TAKES.get(name, {"number"}):
        raise Unfit(
            f"'{name}' does not apply to {left.name} ({TYPES[left.type]}) "
            f"and {right.name} ({TYPES[right.type]})"
        )
    return left.type


def with_constant(name: str, operand: Operand, value: Any, *, first: bool = False) -> Operand:
    """`operand name value`, or with `first` the value before the operand; also of lists."""
    type_ = _result(name, operand, Operand("the written value", operand.type, ()))
    written = pl.lit(value)
    apply = operation(name)
    return operand.each(lambda v: apply(written, v) if first else apply(v, written), type_)


def operation(name: str) -> Callable[[pl.Expr, pl.Expr], pl.Expr]:
    """Integers as in C: signed, division towards zero, none by zero."""

    def apply(a: pl.Expr, b: pl.Expr) -> pl.Expr:
        a, b = _signed(a), _signed(b)
        match name:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
            case "&":
                return a.cast(pl.Int64, strict=False) & b.cast(pl.Int64, strict=False)
        a, b = pl.when(b != 0).then(a), pl.when(b != 0).then(b)
        quotient = (a.abs() // b.abs()) * a.sign() * b.sign()
        return quotient if name == "/" else a - quotient * b

    return apply


def _signed(value: pl.Expr) -> pl.Expr:
    """Unsigned numbers as signed ones, so that differences may be negative; others as they are."""
    return value + pl.lit(0, pl.Int64)
