"""The test of one value against a constant or another value, as a polars expression."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import polars as pl
import pyarrow as pa

from stratokit.filters import literals, tree
from stratokit.filters.catalogue import ADDRESSES, TYPES
from stratokit.filters.operands import Operand, Unfit, constant

Check: TypeAlias = Callable[[pl.Expr], pl.Expr]
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "===": operator.eq,
    "!=": operator.ne,
    "!==": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

SEARCHES = frozenset(("contains", "matches"))
ORDERS = frozenset(("<", "<=", ">", ">="))


def comparison(operand: Operand, name: str, value: Any) -> Check:
    """The test of one value of `operand` against a constant, or against an expression."""
    if name in SEARCHES:
        return _search(operand, name, value)
    if operand.type in ADDRESSES and not isinstance(value, pl.Expr):
        return _address_test(operand, name, value)
    if operand.comparable in {"text", "address"} and (isinstance(value, pl.Expr) or name in ORDERS):
        # Dictionary-coded text has no order, and two columns have two dictionaries.
        other = value.cast(pl.String) if isinstance(value, pl.Expr) else value
        return lambda v: _OPERATORS[name](v.cast(pl.String), other)
    if operand.type == "bytes" and name in ORDERS:
        return _bytes_order(name, value)
    return lambda v: _OPERATORS[name](v, value)


def _bytes_order(name: str, value: Any) -> Check:
    """As in Wireshark the longer one is greater; of two as long, the first byte that differs decides."""
    other = value if isinstance(value, pl.Expr) else pl.lit(value)
    strict = _OPERATORS[name[0]]

    def check(v: pl.Expr) -> pl.Expr:
        size, other_size = v.bin.size(), other.bin.size()
        longer: pl.Expr = strict(size, other_size)
        differs: pl.Expr = _OPERATORS[name](v, other)
        return longer | ((size == other_size) & differs)

    return check


def check_search(operand: Operand, name: str) -> None:
    """Whether 'contains' or 'matches' applies."""
    if operand.type not in {"text", "bytes"}:
        raise Unfit(f"'{name}' searches texts and bytes, and {operand.name} is {TYPES[operand.type]}")


def _search(operand: Operand, name: str, value: Any) -> Check:
    if name == "contains":
        if operand.type == "bytes":
            return lambda v: v.bin.contains(value)
        return lambda v: v.cast(pl.String).str.contains(value, literal=True)
    if operand.type == "bytes":
        return _bytes_match(value)
    # Both engines take time linear in the text, whatever the expression.
    pattern = f"(?i){value}"
    try:
        pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.PolarsError as error:
        reason = [line.partition("error: ")[2] for line in str(error).splitlines() if "error: " in line]
        raise Unfit(f"this is no regular expression: {''.join(reason[-1:]) or error}") from None
    return lambda v: v.cast(pl.String).str.contains(pattern)


def _bytes_match(value: bytes) -> Check:
    """RE2 over bytes; polars has no regular expressions for what is no text."""
    pattern = value.decode("latin-1")

    def column(series: pl.Series) -> pl.Series:
        import pyarrow.compute as pc  # takes long to load

        found = pc.match_substring_regex(series.to_arrow().cast(pa.large_binary()), pattern, ignore_case=True)
        return pl.Series(found)

    try:
        column(pl.Series([b""]))
    except pa.ArrowInvalid as error:
        raise Unfit(f"this is no regular expression: {str(error).partition(': ')[2]}") from None
    return lambda v: v.map_batches(column, return_dtype=pl.Boolean, is_elementwise=True)


def _address_test(operand: Operand, name: str, value: literals.Address | literals.Network) -> Check:
    """Addresses are text in frames: equality compares it, everything else parses each distinct one once."""
    differs = name in {"!=", "!=="}
    if isinstance(value, literals.Network):
        if not differs and name not in {"==", "==="}:
            raise Unfit("a network has no order; compare it with == or !=")
        inside = _distinct(lambda a: a in value)
        # Without `there` an IPv6 address would count as one that differs.
        return (lambda v: ~inside(v) & operand.there(v)) if differs else inside
    if differs:
        return lambda v: (v != str(value)) & operand.there(v)
    if name in {"==", "==="}:
        return lambda v: v == str(value)
    return _distinct(lambda a: a.version == value.version and bool(_OPERATORS[name](a, value)))


def _distinct(test: Callable[[literals.Address], bool]) -> Check:
    def column(series: pl.Series) -> pl.Series:
        texts = series.cast(pl.String)
        known = ((text, literals.address(text)) for text in texts.unique().drop_nulls())
        found = [text for text, address in known if address is not None and test(address)]
        return texts.is_in(pl.Series(found, dtype=pl.String).implode())

    return lambda v: v.map_batches(column, return_dtype=pl.Boolean, is_elementwise=True)


def membership(operand: Operand, choices: Iterable[tree.Literal | tree.Field | tree.Range]) -> Check:
    """The test of one value of `operand` against a set of constants."""
    checks: list[Check] = []
    equal: list[Any] = []
    for choice in choices:
        if not isinstance(choice, tree.Range):
            value = constant(operand, choice)
            if operand.type in {"number", "text"}:
                equal.append(value)
            else:
                checks.append(comparison(operand, "==", value))
            continue
        low, high = constant(operand, choice.low), constant(operand, choice.high)
        if isinstance(low, literals.Network) or isinstance(high, literals.Network):
            raise Unfit("a network cannot be the end of a range", choice)
        above, below = comparison(operand, ">=", low), comparison(operand, "<=", high)
        checks.append(lambda v, above=above, below=below: above(v) & below(v))  # type: ignore[misc]
    if equal:
        checks.append(_one_of(operand, equal))
    if len(checks) == 1:
        return checks[0]
    return lambda v: pl.any_horizontal(check(v) for check in checks)


def _one_of(operand: Operand, values: list[Any]) -> Check:
    if operand.type == "text":
        return lambda v: v.cast(pl.String).is_in(values)
    if len(values) == 1:
        return lambda v: v == values[0]
    whole = all(isinstance(value, int) and value < 2**63 for value in values)
    dtype = pl.Int64() if whole else pl.Float64()
    series = pl.Series(values, dtype=dtype, strict=False)
    return lambda v: v.cast(dtype, strict=False).is_in(series.implode())
