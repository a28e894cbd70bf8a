"""Filter tree + catalogue of fields -> one polars expression that is true or false, never null.

A field with several values is compared as in Wireshark 4: `==` and the orders are true when any value is,
`!=` when all differ, `===` when all are equal, `!==` when any differs; `any` and `all` before the test decide
otherwise. A row that lacks the field fails every comparison.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import operator
from collections.abc import Callable, Iterable, Mapping

import polars as pl

from stratokit.filters import tree
from stratokit.filters.catalogue import TYPES, Catalogue
from stratokit.filters.errors import FilterError
from stratokit.filters.functions import FUNCTIONS
from stratokit.filters.operands import (
    SEARCHES,
    Operand,
    Unfit,
    check_search,
    comparison,
    constant,
    membership,
)
from stratokit.filters.parse import parse

_ALL = frozenset(("!=", "==="))
# polars splits a chain of `and` into predicates that skip row groups; thousands would overflow its stack.
_MANY = 50
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def compile_filter(text: str, catalogue: Catalogue, elsewhere: Mapping[str, str] | None = None) -> pl.Expr:
    """The expression of a filter. `elsewhere` says where fields can be used that this catalogue lacks."""
    return compile_tree(parse(text), text, catalogue, elsewhere)


def compile_tree(
    node: tree.Test, text: str, catalogue: Catalogue, elsewhere: Mapping[str, str] | None = None
) -> pl.Expr:
    """As `compile_filter`, for a filter that is parsed already."""
    return _Compiler(text, catalogue, elsewhere or {}).test(node)


@dataclasses.dataclass(frozen=True)
class _Compiler:
    text: str
    catalogue: Catalogue
    elsewhere: Mapping[str, str]

    def test(self, node: tree.Test) -> pl.Expr:
        match node:
            case tree.Not(test=inner):
                return ~self.test(inner)
            case tree.Logic(operator=name, tests=tests):
                return _logic(name, [self.test(test) for test in tests])
            case tree.Present(field=field):
                return self.presence(field)
            case tree.Compare():
                return self.compare(node)
            case tree.Member():
                left = self.operand(node.left)
                try:
                    return _over(left, membership(left, node.choices), node.quantifier == "all")
                except Unfit as unfit:
                    raise self.error(str(unfit), unfit.node or node.left) from None

    def error(self, message: str, node: tree.Test | tree.Entity | tree.Range) -> FilterError:
        return FilterError(message, self.text, node.at, node.end)

    def presence(self, field: tree.Field) -> pl.Expr:
        operand = self.field(field)
        if operand.type == "protocol":
            return operand.values[0].fill_null(value=False)
        return _over(operand, operand.there, every=False)

    def compare(self, node: tree.Compare) -> pl.Expr:
        name, left, right = node.operator, node.left, node.right
        if isinstance(left, tree.Literal):
            if isinstance(right, tree.Literal):
                raise self.error("both sides are written values; one must be a field", node)
            if name in SEARCHES:
                raise self.error(f"the field stands before '{name}'", node)
            name, left, right = _FLIPPED.get(name, name), right, left
        every = node.quantifier == "all" if node.quantifier else name in _ALL
        operand = self.operand(left)
        try:
            if name in SEARCHES:
                check_search(operand, name, right)
            if isinstance(right, tree.Literal):
                return _over(operand, comparison(operand, name, constant(operand, right)), every)
            if isinstance(right, tree.Field) and operand.type in {"text", "bytes"}:
                other = self.field(right, f'write a text in quotation marks: "{right.name}"')
            else:
                other = self.operand(right)
            return self.pairs(operand, name, other, every)
        except Unfit as unfit:
            raise self.error(str(unfit), unfit.node or right) from None

    def pairs(self, left: Operand, name: str, right: Operand, every: bool) -> pl.Expr:
        """Field compared with field: each value of the one with each of the other."""
        if left.comparable != right.comparable or right.many:
            raise Unfit(f"{left.name} is {TYPES[left.type]}, {right.name} is {TYPES[right.type]}")
        tests = [_over(left, comparison(left, name, value), every) for value in right.values]
        known = [right.there(value) for value in right.values]
        if not every:
            return _fold(operator.or_, (test & there for test, there in zip(tests, known, strict=True)))
        return _fold(operator.or_, known) & _fold(
            operator.and_, (test | ~there for test, there in zip(tests, known, strict=True))
        )

    def operand(self, node: tree.Entity) -> Operand:
        match node:
            case tree.Field():
                operand = self.field(node)
                if operand.type == "protocol":
                    raise self.error(f"{node.name} is {TYPES['protocol']}", node)
                return operand
            case tree.Call():
                return self.call(node)
            case tree.Literal():
                raise self.error("a field is missing here", node)

    def field(self, node: tree.Field, hint: str = "") -> Operand:
        spec = self.catalogue.get(node.name)
        if spec is not None:
            return Operand(spec.name, spec.type, spec.values, spec.many)
        if node.name in self.elsewhere:
            raise self.error(f"{node.name} is known only in {self.elsewhere[node.name]}", node)
        if hint:
            raise self.error(f"there is no field {node.name}; {hint}", node)
        known = [*self.catalogue, *self.elsewhere]
        protocol = node.name.lower().partition(".")[0]
        alike = [name for name in known if name.partition(".")[0] == protocol]
        near = difflib.get_close_matches(node.name.lower(), alike or known, n=1, cutoff=0.5)
        hint = f"the nearest is {near[0]}" if near else "'stratokit fields' lists them"
        raise self.error(f"there is no field {node.name}; {hint}", node)

    def call(self, node: tree.Call) -> Operand:
        function = FUNCTIONS.get(node.function)
        if function is None:
            names = ", ".join(FUNCTIONS)
            raise self.error(f"there is no function {node.function}; there are {names}", node)
        if len(node.arguments) != 1:
            raise self.error(f"{node.function} takes one argument", node)
        operand = self.operand(node.arguments[0])
        if function.takes and operand.type not in function.takes:
            raise self.error(f"{node.function} does not apply to {TYPES[operand.type]}", node.arguments[0])
        return function.apply(operand)


def _logic(name: str, tests: list[pl.Expr]) -> pl.Expr:
    if len(tests) > _MANY and name != "xor":
        return pl.all_horizontal(tests) if name == "and" else pl.any_horizontal(tests)
    return _fold({"and": operator.and_, "or": operator.or_, "xor": operator.xor}[name], tests)


def _fold(combine: Callable[[pl.Expr, pl.Expr], pl.Expr], tests: Iterable[pl.Expr]) -> pl.Expr:
    return functools.reduce(combine, tests)


def _over(operand: Operand, test: Callable[[pl.Expr], pl.Expr], every: bool) -> pl.Expr:
    """`test` of any, or of every, value that a row has; false for a row that has none."""
    if not every:
        return _fold(operator.or_, (_any(operand, value, test) for value in operand.values))
    fails = _fold(
        operator.or_,
        (_any(operand, value, lambda v: ~test(v) & operand.there(v)) for value in operand.values),
    )
    present = _fold(operator.or_, (_any(operand, value, operand.there) for value in operand.values))
    return present & ~fails


def _any(operand: Operand, value: pl.Expr, test: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    if operand.many:
        return value.list.eval(test(pl.element()).fill_null(value=False)).list.any().fill_null(value=False)
    return test(value).fill_null(value=False)
