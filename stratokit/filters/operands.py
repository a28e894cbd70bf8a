"""One side of a comparison: what may be compared with what, and the expression that does it."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import polars as pl

from stratokit.filters import literals, tree
from stratokit.filters.catalogue import ADDRESSES, TYPES

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
_ORDERS = frozenset(("<", "<=", ">", ">="))


class Unfit(Exception):  # noqa: N818 - caught within this room and turned into a FilterError with a position
    """Two things that cannot be compared; `node` where it is not the right side as a whole."""

    def __init__(self, message: str, node: tree.Literal | tree.Range | None = None) -> None:
        super().__init__(message)
        self.node = node


@dataclasses.dataclass(frozen=True, slots=True)
class Operand:
    """A field, or a function of one, with an expression for each value of a row (see FieldSpec)."""

    name: str
    type: str
    values: tuple[pl.Expr, ...]
    many: bool = False

    @property
    def comparable(self) -> str:
        """Types with the same one can be compared with each other."""
        return "address" if self.type in ADDRESSES else self.type

    def there(self, value: pl.Expr) -> pl.Expr:
        """Whether a row has this value; an IPv6 address is none for an IPv4 field."""
        if self.type not in {"ipv4", "ipv6"}:
            return value.is_not_null()
        pattern = ":" if self.type == "ipv6" else r"^\d+\.\d+\.\d+\.\d+$"
        return value.cast(pl.String).str.contains(pattern)


def constant(operand: Operand, literal: tree.Literal) -> Any:
    """The Python value that a literal stands for beside this operand."""
    kind, value = literal.kind, literal.value
    fit: object = None
    match operand.type:
        case "number" if kind in {"number", "decimal"}:
            fit = float(str(value)) if kind == "decimal" else value
        case "bool" if kind == "number" and value in {0, 1}:
            fit = bool(value)
        case "duration" if kind in {"number", "decimal"}:
            fit = literals.decimal_scaled(literal.text, literals.NS_PER_UNIT["s"])
        case "duration" if kind == "duration":
            fit = value
        case "time" if kind in {"number", "decimal"}:
            fit = _instant(literals.decimal_scaled(literal.text, 10**9))
        case "time" if kind == "text":
            fit = _instant(literals.time_ns(literal.text))
        case "text" if kind == "text":
            fit = value
        case "bytes" if kind == "text":
            fit = str(value).encode()
        case "address" | "ipv4" | "ipv6":
            fit = _address(operand, literal)
    if fit is None:
        raise Unfit(f"{operand.name} is {TYPES[operand.type]}", literal)
    return fit


def _instant(ns: int | None) -> pl.Expr | None:
    return None if ns is None else pl.lit(ns, dtype=pl.Datetime("ns", "UTC"))


def _address(operand: Operand, literal: tree.Literal) -> object:
    value = literal.value
    if literal.kind == "text":
        value = literals.address(str(value)) or literals.network(str(value)) or value
    if isinstance(value, int | str):
        return None
    family = {"ipv4": 4, "ipv6": 6}.get(operand.type, value.version)
    if value.version != family:
        other = (
            operand.name.replace("ipv6.", "ip.") if family == 6 else operand.name.replace("ip.", "ipv6.", 1)
        )
        raise Unfit(f"{operand.name} is {TYPES[operand.type]}; {literal.text} belongs with {other}", literal)
    return value


def comparison(operand: Operand, name: str, value: Any) -> Check:
    """The test of one value of `operand` against a constant, or against an expression."""
    if name in SEARCHES:
        return _search(operand, name, value)
    if operand.type in ADDRESSES and not isinstance(value, pl.Expr):
        return _address_test(operand, name, value)
    if operand.comparable in {"text", "address"} and (isinstance(value, pl.Expr) or name in _ORDERS):
        # Dictionary-coded text has no order, and two columns have two dictionaries.
        other = value.cast(pl.String) if isinstance(value, pl.Expr) else value
        return lambda v: _OPERATORS[name](v.cast(pl.String), other)
    return lambda v: _OPERATORS[name](v, value)


def check_search(operand: Operand, name: str, right: tree.Entity) -> None:
    """Whether 'contains' or 'matches' applies."""
    if operand.type == "bytes" and name == "matches":
        raise Unfit(f"{operand.name} is bytes: it takes 'contains'")
    if operand.type not in {"text", "bytes"}:
        raise Unfit(f"'{name}' searches texts, and {operand.name} is {TYPES[operand.type]}")
    if not isinstance(right, tree.Literal) or right.kind != "text":
        raise Unfit(f"'{name}' takes a text in quotation marks")


def _search(operand: Operand, name: str, value: Any) -> Check:
    if operand.type == "bytes":
        return lambda v: v.bin.contains(value)
    if name == "contains":
        return lambda v: v.cast(pl.String).str.contains(value, literal=True)
    pattern = f"(?i){value}"
    try:
        pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.PolarsError as error:
        reason = [line.partition("error: ")[2] for line in str(error).splitlines() if "error: " in line]
        raise Unfit(f"this is no regular expression: {''.join(reason[-1:]) or error}") from None
    return lambda v: v.cast(pl.String).str.contains(pattern)


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
    def fits(text: str) -> bool:
        address = literals.address(text)
        return address is not None and test(address)

    @functools.lru_cache(maxsize=65536)
    def known(text: str) -> bool:
        return fits(text)

    def column(series: pl.Series) -> pl.Series:
        texts = series.cast(pl.String)
        found = [text for text in texts.unique().drop_nulls().to_list() if known(text)]
        return texts.is_in(pl.Series(found, dtype=pl.String))

    return lambda v: v.map_batches(column, return_dtype=pl.Boolean, is_elementwise=True)


def membership(operand: Operand, choices: Iterable[tree.Literal | tree.Range]) -> Check:
    """The test of one value of `operand` against a set."""
    checks: list[Check] = []
    for choice in choices:
        if isinstance(choice, tree.Literal):
            checks.append(comparison(operand, "==", constant(operand, choice)))
            continue
        low, high = constant(operand, choice.low), constant(operand, choice.high)
        if isinstance(low, literals.Network) or isinstance(high, literals.Network):
            raise Unfit("a network cannot be the end of a range", choice)
        above, below = comparison(operand, ">=", low), comparison(operand, "<=", high)
        checks.append(lambda v, above=above, below=below: above(v) & below(v))  # type: ignore[misc]
    return lambda v: functools.reduce(operator.or_, (check(v) for check in checks))
