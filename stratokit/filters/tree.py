"""What a filter means, as a tree. Every node knows where it stands in the text: `at` to `end`."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A field, a protocol, or a text without quotation marks: which, is known when it is compiled."""

    name: str
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Literal:
    """A written value; what it stands for depends on what it is compared with.

    kind: word (a number, an address, bytes, ...), string or char. `value` are the bytes of these two.
    """

    kind: str
    text: str
    value: bytes
    at: int
    end: int

    @property
    def string(self) -> str:
        """Its value as text: bytes that are no UTF-8 are ISO-8859-1, as in the columns of tables."""
        if self.kind == "word":
            return self.text
        try:
            return self.value.decode()
        except UnicodeDecodeError:
            return self.value.decode("latin-1")


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A function applied to values: lower(http.host)."""

    function: str
    arguments: tuple[Entity, ...]
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Part of a slice: from `first` (counted from the end when negative), `length` bytes, or to `last`.

    Without either to the end.
    """

    first: int
    length: int | None = None
    last: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of a value, all pieces one after the other: frame[0:4,8]."""

    entity: Entity
    pieces: tuple[Piece, ...]
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """Values of some layers, counted from outside: ip.addr#2 are the addresses inside of a tunnel."""

    field: Field
    pieces: tuple[Piece, ...]
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Arithmetic:
    """`operator` is one of + - * / % & between two values."""

    operator: str
    left: Entity
    right: Entity
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Negative:
    """A value with its sign changed."""

    entity: Entity
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Part of a set: 8000..8080, both ends included."""

    low: Literal | Field
    high: Literal | Field
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Compare:
    """`operator` is one of == != === !== < <= > >= contains matches; `quantifier` is any, all or empty."""

    operator: str
    left: Entity
    right: Entity
    quantifier: str
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """`left in {...}`."""

    left: Entity
    choices: tuple[Literal | Field | Range, ...]
    quantifier: str
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Present:
    """A value alone: true where the row has it; of arithmetic, where it is not zero."""

    entity: Entity
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a test."""

    test: Test
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Logic:
    """`operator` is and, or, xor, between two or more tests."""

    operator: str
    tests: tuple[Test, ...]
    at: int
    end: int


Entity: TypeAlias = Field | Literal | Call | Slice | Layer | Arithmetic | Negative
Test: TypeAlias = Compare | Member | Present | Not | Logic


def fields(node: Test | Entity | Range) -> frozenset[str]:
    """All names that the tree mentions: fields, and texts without quotation marks."""
    match node:
        case Field(name=name):
            return frozenset([name])
        case Call(arguments=parts) | Logic(tests=parts):
            return frozenset().union(*map(fields, parts))
        case Compare(left=left, right=right) | Arithmetic(left=left, right=right):
            return fields(left) | fields(right)
        case Range(low=left, high=right):
            return fields(left) | fields(right)
        case Member(left=left, choices=choices):
            return fields(left).union(*map(fields, choices))
        case Present(entity=inner) | Slice(entity=inner) | Negative(entity=inner):
            return fields(inner)
        case Layer(field=inner):
            return fields(inner)
        case Not(test=test):
            return fields(test)
        case _:
            return frozenset()
