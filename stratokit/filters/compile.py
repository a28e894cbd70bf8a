"""Filter tree + catalogue of fields -> one polars expression: true for what matches, else false or null.

A field with several values is compared as in Wireshark 4: `==` and the orders are true when any value is,
`!=` when all differ, `===` when all are equal, `!==` when any differs; `any` and `all` before the test decide
otherwise. A row that lacks the field fails every comparison.
"""

from __future__ import annotations

import dataclasses
import difflib
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import TypeGuard

import polars as pl

from stratokit.filters import arithmetic, tree
from stratokit.filters.catalogue import TYPES, Catalogue
from stratokit.filters.checks import (
    SEARCHES,
    check_search,
    comparison,
    membership,
)
from stratokit.filters.errors import FilterError
from stratokit.filters.functions import FUNCTIONS
from stratokit.filters.operands import MAX_VALUES, Operand, Unfit, constant
from stratokit.filters.parse import parse

_ALL = frozenset(("!=", "==="))
# polars splits `and` into predicates that skip row groups; thousands of them would overflow its stack.
_MANY = 50
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_NAME_CHARACTERS = 64  # of an unknown name that are worth a search for the nearest one


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

    def test(self, node: tree.Test, *, exact: bool = False) -> pl.Expr:
        """`exact`: false instead of null, for what takes the opposite of it.

        Elsewhere null does as well, and polars skips row groups by comparisons that nothing wraps.
        """
        match node:
            case tree.Not(test=inner):
                return ~self.test(inner, exact=True)
            case tree.Logic(operator=name, tests=tests):
                exact = exact or name == "xor"
                return _logic(name, [self.test(test, exact=exact) for test in tests])
            case tree.Present(entity=entity):
                found = self.presence(entity)
            case tree.Compare():
                found = self.compare(node)
            case tree.Member():
                found = self.member(node)
        return found.fill_null(value=False) if exact else found

    def error(self, message: str, node: tree.Test | tree.Entity | tree.Range) -> FilterError:
        return FilterError(message, self.text, node.at, node.end)

    def presence(self, entity: tree.Entity) -> pl.Expr:
        if isinstance(entity, tree.Field) and (spec := self.catalogue.get(entity.name)) is not None:
            if spec.type == "protocol":
                return spec.values[0]
            operand = Operand(spec.name, spec.type, spec.values, spec.many)
        else:
            operand = self.operand(entity)
        if isinstance(entity, tree.Arithmetic | tree.Negative):
            return _over(operand, lambda v: v != 0, every=False)
        return _over(operand, operand.there, every=False)

    def member(self, node: tree.Member) -> pl.Expr:
        left = self.operand(node.left)
        every = node.quantifier == "all"
        others = [choice for choice in node.choices if isinstance(choice, tree.Field) and self.known(choice)]
        try:
            written = [choice for choice in node.choices if choice not in others]
            if not others:
                return _over(left, membership(left, written), every)
            if every:
                raise Unfit("'all' takes a set of written values", others[0])
            tests = [self.pairs(left, "==", self.operand(other), every) for other in others]
            if written:
                tests.append(_over(left, membership(left, written), every))
            return _logic("or", tests)
        except Unfit as unfit:
            raise self.unfit(unfit, node.left) from None

    def known(self, node: tree.Field) -> bool:
        return node.name in self.catalogue or node.name in self.elsewhere

    def unfit(self, unfit: Unfit, node: tree.Entity) -> FilterError:
        """The error at the place that is to blame; a word that is no value was meant as a field."""
        place = unfit.node or node
        if isinstance(place, tree.Field) and not self.known(place):
            return self.no_field(place, f"; {unfit}" if '"' not in str(unfit) else "")
        return self.error(str(unfit), place)

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
                return _over(operand, self.search(operand, name, right), every)
            if self.written(right):
                return _over(operand, comparison(operand, name, constant(operand, right)), every)
            return self.pairs(operand, name, self.operand(right), every)
        except Unfit as unfit:
            raise self.unfit(unfit, right) from None

    def search(self, operand: Operand, name: str, right: tree.Entity) -> Callable[[pl.Expr], pl.Expr]:
        check_search(operand, name)
        if not self.written(right):
            raise Unfit(f"'{name}' takes a text in quotation marks")
        if name == "contains":
            return comparison(operand, name, constant(operand, right))
        if not isinstance(right, tree.Literal) or right.kind != "string":
            raise Unfit(f"'{name}' takes a text in quotation marks")
        return comparison(operand, name, right.value if operand.type == "bytes" else right.string)

    def written(self, node: tree.Entity) -> TypeGuard[tree.Literal | tree.Field]:
        """Whether it is a value rather than a field: as in Wireshark a word is a field where there is one."""
        if isinstance(node, tree.Field):
            protocol, dot, _ = node.name.partition(".")
            # http.hots is a slip of the pen and no text to look for.
            return not self.known(node) and not (
                dot and any(n.startswith(protocol + ".") for n in self.catalogue)
            )
        return isinstance(node, tree.Literal)

    def pairs(self, left: Operand, name: str, right: Operand, every: bool) -> pl.Expr:
        """Field compared with field: each value of the one with each of the other."""
        if left.comparable != right.comparable:
            raise Unfit(f"{left.name} is {TYPES[left.type]}, {right.name} is {TYPES[right.type]}")
        if right.many:
            raise Unfit(f"{right.name} has any number of values; compare it with a written value")
        if left.many:
            raise Unfit(f"{left.name} has any number of values; compare it with a written value")
        if len(left.values) * len(right.values) > MAX_VALUES:
            raise Unfit(f"more than {MAX_VALUES} combinations of values")
        tests = [_over(left, comparison(left, name, value), every) for value in right.values]
        known = [right.there(value) for value in right.values]
        if not every:
            return _fold(operator.or_, (test & there for test, there in zip(tests, known, strict=True)))
        return _fold(operator.or_, known) & _fold(
            operator.and_,
            (test.fill_null(value=False) | ~there for test, there in zip(tests, known, strict=True)),
        )

    def operand(self, node: tree.Entity) -> Operand:
        try:
            match node:
                case tree.Field():
                    return self.field(node)
                case tree.Call():
                    return self.call(node)
                case tree.Layer(field=inner, pieces=pieces):
                    return self.layer(inner, pieces)
                case tree.Slice(entity=inner, pieces=pieces):
                    return arithmetic.sliced(self.operand(inner), pieces)
                case tree.Negative(entity=inner):
                    return arithmetic.negative(self.operand(inner))
                case tree.Arithmetic():
                    return self.arithmetic(node)
                case tree.Literal():
                    raise self.error("a field is missing here", node)
        except Unfit as unfit:
            raise self.unfit(unfit, node) from None

    def arithmetic(self, node: tree.Arithmetic) -> Operand:
        left, right, first = node.left, node.right, self.written(node.left)
        if first:
            left, right = right, left
        operand = self.operand(left)
        if not self.written(right):
            return arithmetic.combined(node.operator, operand, self.operand(right))
        value = constant(operand, right)
        if node.operator == "&" and isinstance(value, bytes):
            operand = arithmetic.octets(operand, len(value))
            value = constant(operand, right)
        return arithmetic.with_constant(node.operator, operand, value, first=first)

    def field(self, node: tree.Field) -> Operand:
        spec = self.catalogue.get(node.name)
        if spec is None:
            raise self.no_field(node)
        if spec.type != "protocol":
            return Operand(spec.name, spec.type, spec.values, spec.many)
        if spec.payload is None:
            raise self.error(f"{node.name} is {TYPES['protocol']}", node)
        return Operand(spec.name, "bytes", (spec.payload,))

    def layer(self, node: tree.Field, pieces: tuple[tree.Piece, ...]) -> Operand:
        operand = self.field(node)
        spec = self.catalogue[node.name]
        if not spec.layers:
            names = sorted({name.partition(".")[0] for name, spec in self.catalogue.items() if spec.layers})
            known = f"; fields of {', '.join(names)} have layers" if names else ""
            raise self.error(f"{node.name} has no layers here{known}", node)
        around: pl.Expr = pl.lit(0) if spec.around is None else spec.around
        values = []
        for of_all in spec.layers:
            seen = pl.concat_list(of_all).list.drop_nulls()
            count = seen.list.len().cast(pl.Int64) + around
            for k in range(len(of_all)):
                asked = _fold(operator.or_, (_holds(piece, around + k + 1, count) for piece in pieces))
                values.append(pl.when(asked).then(seen.list.get(k, null_on_oob=True)))
        return dataclasses.replace(operand, values=tuple(values))

    def no_field(self, node: tree.Field, reason: str = "") -> FilterError:
        if node.name in self.elsewhere:
            return self.error(f"{node.name} is known only in {self.elsewhere[node.name]}", node)
        known = [*self.catalogue, *self.elsewhere]
        name = node.name.lower()[:_NAME_CHARACTERS]
        before = name.partition("-")[0]
        if before in self.catalogue:
            return self.error(f"there is no field {node.name}; 'minus' stands between spaces", node)
        protocol = name.partition(".")[0]
        alike = [other for other in known if other.partition(".")[0] == protocol]
        near = difflib.get_close_matches(name, alike or known, n=1, cutoff=0.5)
        hint = f"the nearest is {near[0]}" if near else "'stratokit fields' lists them"
        return self.error(f"there is no field {node.name[:_NAME_CHARACTERS]}{reason}; {hint}", node)

    def call(self, node: tree.Call) -> Operand:
        function = FUNCTIONS.get(node.function)
        if function is None:
            names = ", ".join(FUNCTIONS)
            raise self.error(
                f"there is no function {node.function[:_NAME_CHARACTERS]}; there are {names}", node
            )
        if len(node.arguments) != 1 and not function.many:
            raise self.error(f"{node.function} takes one argument", node)
        operands = []
        for argument in node.arguments:
            operand = self.operand(argument)
            if function.takes and operand.type not in function.takes:
                raise self.error(f"{node.function} does not apply to {TYPES[operand.type]}", argument)
            operands.append(operand)
        return function.apply(*operands)


def _holds(piece: tree.Piece, place: pl.Expr, count: pl.Expr) -> pl.Expr:
    """Whether a piece has the layer at a place, counted from 1; -1 is the innermost."""

    def counted(number: int) -> pl.Expr:
        return pl.lit(number) if number >= 0 else count + 1 + number

    first = counted(piece.first)
    if piece.last is not None:
        return place.is_between(first, counted(piece.last))
    return place >= first if piece.length is None else place.is_between(first, first + piece.length - 1)


def _logic(name: str, tests: list[pl.Expr]) -> pl.Expr:
    if len(tests) > _MANY:
        if name == "xor":
            return pl.sum_horizontal(test.cast(pl.UInt32) for test in tests) % 2 == 1
        return pl.all_horizontal(tests) if name == "and" else pl.any_horizontal(tests)
    return _fold({"and": operator.and_, "or": operator.or_, "xor": operator.xor}[name], tests)


def _fold(combine: Callable[[pl.Expr, pl.Expr], pl.Expr], tests: Iterable[pl.Expr]) -> pl.Expr:
    """All tests as one, by halves: a chain as deep as it is long would overflow polars' stack."""
    parts = list(tests)
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return combine(_fold(combine, parts[:middle]), _fold(combine, parts[middle:]))


def _over(operand: Operand, test: Callable[[pl.Expr], pl.Expr], every: bool) -> pl.Expr:
    """`test` of any, or of every, value that a row has; false or null for a row that has none."""
    if not every:
        return _fold(operator.or_, (_any(operand, value, test) for value in operand.values))
    if len(operand.values) == 1 and not operand.many:
        return test(operand.values[0])
    fails = _fold(
        operator.or_,
        (
            _any(operand, value, lambda v: ~test(v) & operand.there(v)).fill_null(value=False)
            for value in operand.values
        ),
    )
    present = _fold(operator.or_, (_any(operand, value, operand.there) for value in operand.values))
    return present & ~fails


def _any(operand: Operand, value: pl.Expr, test: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    return value.list.eval(test(pl.element())).list.any() if operand.many else test(value)
