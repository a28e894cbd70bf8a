"""One side of a comparison, and the value that a written literal stands for beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl

from stratokit.filters import literals, tree
from stratokit.filters.catalogue import ADDRESSES, TYPES

# Combinations of the values of several fields, as in ip.addr & ip.addr; each more is another column to compute.
MAX_VALUES = 64
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
    """The Python value that a literal, or a word without quotation marks, stands for beside this operand."""
    written = tree.Literal("word", node.name, b"", node.at, node.end) if isinstance(node, tree.Field) else node
    quoted, text = written.kind == "string", written.text
    fit: object = None
    match operand.type:
        case "text":
            fit = written.string
        case "bytes":
            fit = _bytes(written)
        case "octets" if not quoted:
            octets = _bytes(written)
            fit = None if octets is None else int.from_bytes(octets, "big")
        case "address" | "ipv4" | "ipv6":
            fit = _address(operand, written)
        case "bool" if written.kind != "char":
            fit = _BOOLS.get(written.string.lower())
        case "number" if not quoted:
            fit = _number(written)
        case "duration" if not quoted:
            fit = literals.duration_ns(text)
            fit = literals.decimal_scaled(text, literals.NS_PER_UNIT["s"]) if fit is None else fit
        case "time":
            ns = literals.time_ns(written.string)
            fit = literals.decimal_scaled(text, 10**9) if ns is None and not quoted else ns
    if fit is None:
        raise Unfit(f"{operand.name} is {TYPES[operand.type]}", node)
    if isinstance(fit, int) and not -(2**63) <= fit < 2**64:
        raise Unfit(f"{text} is beyond what {operand.name} can be", node)
    if operand.type == "time":
        if not -(2**63) <= int(str(fit)) < 2**63:
            raise Unfit(f"{text} is beyond what {operand.name} can be", node)
        return pl.lit(fit, dtype=pl.Datetime("ns", "UTC"))
    return fit


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
