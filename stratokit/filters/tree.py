"""What a filter means, as a tree. Every node knows where it stands in the text: `at` to `end`."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from stratokit.filters.literals import Address, Network


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A field, or a protocol, by name."""

    name: str
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Literal:
    """A written value. kind: number, duration (ns), text, address, network. `text` is it as written."""

    kind: str
    value: int | str | Address | Network
    text: str
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A function applied to values: lower(http.host)."""

    function: str
    arguments: tuple[Entity, ...]
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Part of a set: 8000..8080, both ends included."""

    low: Literal
    high: Literal
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
    choices: tuple[Literal | Range, ...]
    quantifier: str
    at: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Present:
    """A field alone: true where the row has it."""

    field: Field
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


Entity: TypeAlias = Field | Literal | Call
Test: TypeAlias = Compare | Member | Present | Not | Logic


def fields(node: Test | Entity | Range) -> frozenset[str]:
    """Names of all fields that the tree mentions."""
    match node:
        case Field(name=name):
            return frozenset([name])
        case Call(arguments=arguments):
            return frozenset().union(*map(fields, arguments))
        case Compare(left=left, right=right):
            return fields(left) | fields(right)
        case Logic(tests=tests):
            return frozenset().union(*map(fields, tests))
        case Member(left=left):
            return fields(left)
        case Present(field=field):
            return fields(field)
        case Not(test=test):
            return fields(test)
        case _:
            return frozenset()
