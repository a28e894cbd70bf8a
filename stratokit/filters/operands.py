"""One side of a comparison, and the value that a written literal stands for beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl

from stratokit.filters import literals, tree
from stratokit.filters.catalogue import ADDRESSES, TYPES

# Combinations of the values of several fields, as in ip.addr == ip.addr: each is computed.
MAX_VALUES = 64
_SCALARS = frozenset(("number", "duration", "time"))
_BOOLS = {"true": True, "false": False, "set": True, "not set": False, "1": True, "0": False}


class Unfit(Exception):  # noqa: N818 - caught within this room and turned into a FilterError with a position
    """Two things that do not go together; `node` where it is not the right side as a whole."""

    def __init__(self, message: str, node: tree.Entity | tree.Range | None = None) -> None:
        super().__init__(message)
        self.node = node


@dataclasses.dataclass(frozen=True, slots=True)
class Operand:
    """A field, or what was made of it, with an expression for each value of a row (see FieldSpec)."""

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

    def each(self, change: Any, type_: str = "") -> Operand:
        """The operand with every value changed by a function of expressions."""
        if self.many:
            values = tuple(value.list.eval(change(pl.element())) for value in self.values)
        else:
            values = tuple(change(value) for value in self.values)
        return Operand(self.name, type_ or self.type, values, self.many)


def constant(operand: Operand, node: tree.Literal | tree.Field) -> Any:
    """The Python value that a literal, or a word without quotation marks, stands for beside `operand`."""
    written = node
    if isinstance(node, tree.Field):
        written = tree.Literal("word", node.name, b"", node.at, node.end)
    assert isinstance(written, tree.Literal)
    fit = _scalar(operand, written) if operand.type in _SCALARS else _other(operand, written)
    if fit is None:
        raise Unfit(f"{operand.name} is {TYPES[operand.type]}", node)
    limit = 2**63 if operand.type == "time" else 2**64
    if isinstance(fit, int) and not -(2**63) <= fit < limit:
        raise Unfit(f"{written.text} is beyond what {operand.name} can be", node)
    return pl.lit(fit, dtype=pl.Datetime("ns", "UTC")) if operand.type == "time" else fit


def _scalar(operand: Operand, literal: tree.Literal) -> int | float | None:
    """Numbers, durations in ns and times in ns."""
    text, quoted = literal.text, literal.kind == "string"
    ns = literals.time_ns(literal.string) if operand.type == "time" else literals.duration_ns(text)
    if operand.type == "number":
        return None if quoted else _number(literal)
    return literals.decimal_scaled(text, 10**9) if ns is None and not quoted else ns


def _other(operand: Operand, literal: tree.Literal) -> object:
    match operand.type:
        case "text":
            return literal.string
        case "bytes":
            return _bytes(literal)
        case "octets":
            octets = _bytes(literal)
            return None if octets is None else int.from_bytes(octets, "big")
        case "bool":
            return _BOOLS.get(literal.string.lower())
        case _:
            return _address(operand, literal)


def _number(literal: tree.Literal) -> int | float | None:
    if literal.kind == "char":
        return literal.value[0]
    whole = literals.integer(literal.text)
    if whole is not None:
        return whole
    return None if literals.decimal_scaled(literal.text, 1) is None else float(literal.text)


def _bytes(literal: tree.Literal) -> bytes | None:
    return literals.byte_string(literal.text) if literal.kind == "word" else literal.value


def _address(operand: Operand, literal: tree.Literal) -> object:
    value = literals.address(literal.string) or literals.network(literal.string)
    if value is None:
        return None
    family = {"ipv4": 4, "ipv6": 6}.get(operand.type, value.version)
    if value.version != family:
        other = (
            operand.name.replace("ipv6.", "ip.") if family == 6 else operand.name.replace("ip.", "ipv6.", 1)
        )
        raise Unfit(f"{operand.name} is {TYPES[operand.type]}; {literal.text} belongs with {other}", literal)
    return value
