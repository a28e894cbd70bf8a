"""Filter text -> tree. Wireshark's display filter language:

    filter   = or ;
    or       = xor , { ( "||" | "or" ) , xor } ;
    xor      = and , { ( "^^" | "xor" ) , and } ;
    and      = not , { ( "&&" | "and" ) , not } ;
    not      = ( "!" | "not" ) , not | "(" , or , ")" | test ;
    test     = [ "any" | "all" ] , value , [ { operator , value } | membership ] ;
    operator = "==" | "eq" | "any_eq" | "!=" | "ne" | "all_ne" | "===" | "all_eq" | "!==" | "any_ne" | "~="
             | ">" | "gt" | ">=" | "ge" | "<" | "lt" | "<=" | "le" | "contains" | "~" | "matches" ;
    membership = [ "not" ] , "in" , "{" , choice , { "," , choice } , "}" ;
    choice   = simple , [ ".." , simple ] ;
    value    = sum , { ( "&" | "bitand" ) , sum } ;
    sum      = product , { ( "+" | "-" ) , product } ;
    product  = sign , { ( "*" | "/" | "%" ) , sign } ;
    sign     = { "+" | "-" } , part ;
    part     = ( "{" , value , "}" | "(" , value , ")" | call | simple , [ layer ] ) , { slice } ;
    call     = function , "(" , value , { "," , value } , ")" ;
    layer    = "#" , ( number | slice ) ;
    slice    = "[" , piece , { "," , piece } , "]" ;
    piece    = offset , ":" , length | first , "-" , last | byte | ":" , length | offset , ":" ;
    simple   = field | string | character | number | duration | time | address | network | bytes | text ;

Several operators in a row hold together: a < b < c is a < b and b < c. A value alone is true where the row
has it, and of arithmetic where it is not zero. `!=` is true when every value of the field differs, `!==` when
one does. A number compared with a duration counts seconds; 10ms, 1.5s, 2h say their unit. Strings: "..." with
escapes, r"..." without. `matches` takes a regular expression and ignores case.
"""

from __future__ import annotations

import re
from typing import NoReturn

from stratokit.filters import literals, tree
from stratokit.filters.errors import FilterError
from stratokit.filters.lexer import Token, tokens

_COMPARISONS = frozenset(("==", "!=", "===", "!==", ">", ">=", "<", "<=", "contains", "matches"))
_BINDING = {"&": 1, "+": 2, "-": 2, "*": 3, "/": 3, "%": 3}
# Nesting beyond this is no filter that a person wrote; without a limit it would exhaust Python's stack.
_MAX_DEPTH = 100
_VALUE = re.compile(r"[\d:]|.*[:/]")
_PIECE = re.compile(r"(-?\d+)?\s*(?:(:)\s*(\d+)?|-\s*(-?\d+))?", re.ASCII)


def parse(text: str) -> tree.Test:
    """The tree of a filter; raises FilterError with the position of what is wrong."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.position = 0
        self.depth = 0
        self.operations = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def take(self, *kinds: str) -> Token | None:
        """The next token if it is one of `kinds`."""
        token = self.token
        if token.kind not in kinds:
            return None
        self.position += 1
        return token

    def need(self, kind: str, after: str) -> Token:
        return self.take(kind) or self.fail(f"{kind!r} is missing {after}")

    def fail(self, message: str) -> NoReturn:
        token = self.token
        if token.kind == "end":
            message += "; the filter ends here"
        raise FilterError(message, self.text, token.at, token.end)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"more than {_MAX_DEPTH} parentheses, negations and functions are nested")

    def one_more(self) -> None:
        self.operations += 1
        if self.operations > _MAX_DEPTH:
            self.fail(f"it has more than {_MAX_DEPTH} operators of arithmetic and slices")

    def whole(self) -> tree.Test:
        if self.token.kind == "end":
            self.fail("it is empty")
        node = self.logic()
        if self.token.kind != "end":
            self.fail("an operator ('and', 'or', '==', ...) is missing before this")
        return node

    def logic(self, level: int = 0) -> tree.Test:
        operator = ("or", "xor", "and", "")[level]
        if not operator:
            return self.negation()
        tests = [self.logic(level + 1)]
        while self.take(operator):
            tests.append(self.logic(level + 1))
        if len(tests) == 1:
            return tests[0]
        return tree.Logic(operator, tuple(tests), tests[0].at, tests[-1].end)

    def negation(self) -> tree.Test:
        self.deeper()
        if token := self.take("not"):
            inner = self.negation()
            node: tree.Test = tree.Not(inner, token.at, inner.end)
        elif self.take("("):
            node = self.logic()
            self.need(")", "to close a parenthesis")
            if isinstance(node, tree.Present) and self.goes_on():
                node = self.test(node.entity)  # the parentheses were those of arithmetic
        else:
            node = self.test()
        self.depth -= 1
        return node

    def goes_on(self) -> bool:
        kind = self.token.kind
        if kind == "not":
            return self.tokens[self.position + 1].kind == "in"
        return kind in _COMPARISONS or kind in _BINDING or kind in {"in", "slice", "layer"}

    def test(self, first: tree.Entity | None = None) -> tree.Test:
        word = None if first else self.take("any", "all")
        quantifier = word.text.lower() if word else ""
        left = self.value(1, first and self.sliced(first))
        at = word.at if word else left.at
        negated = self.token.kind == "not" and self.tokens[self.position + 1].kind == "in"
        if negated or self.token.kind == "in":
            self.position += 2 if negated else 1
            member = self.membership(left, quantifier, at)
            return tree.Not(member, at, member.end) if negated else member
        tests = []
        while operator := self.take(*_COMPARISONS):
            right = self.value()
            tests.append(tree.Compare(operator.kind, left, right, quantifier, left.at, right.end))
            left = right
        if tests:
            return tests[0] if len(tests) == 1 else tree.Logic("and", tuple(tests), at, tests[-1].end)
        if isinstance(left, tree.Literal | tree.Call) or quantifier:
            self.fail("a comparison is missing")
        return tree.Present(left, at, left.end)

    def membership(self, left: tree.Entity, quantifier: str, at: int) -> tree.Member:
        self.need("{", "after 'in'")
        choices = [self.choice()]
        while self.take(","):
            choices.append(self.choice())
        end = self.need("}", "to close the set (its members are separated by commas)").end
        return tree.Member(left, tuple(choices), quantifier, at, end)

    def choice(self) -> tree.Literal | tree.Field | tree.Range:
        low = self.simple()
        if not self.take(".."):
            return low
        high = self.simple()
        return tree.Range(low, high, low.at, high.end)

    def value(self, level: int = 1, left: tree.Entity | None = None) -> tree.Entity:
        """Precedence climbing: operators that bind at least as tight as `level`."""
        left = left or self.sign()
        while (binding := _BINDING.get(self.token.kind, 0)) >= level:
            self.one_more()
            name = self.token.kind
            self.position += 1
            right = self.value(binding + 1)
            left = tree.Arithmetic(name, left, right, left.at, right.end)
        return left

    def sign(self) -> tree.Entity:
        self.deeper()
        token = self.take("-", "+")
        if token is None:
            node = self.part()
        else:
            node = self.sign()
            if token.kind == "-" and isinstance(node, tree.Literal) and not node.text.startswith("-"):
                node = tree.Literal(node.kind, f"-{node.text}", node.value, token.at, node.end)
            elif token.kind == "-":
                node = tree.Negative(node, token.at, node.end)
        self.depth -= 1
        return node

    def part(self) -> tree.Entity:
        opening = self.take("{", "(")
        if opening:
            node = self.value()
            closing = "}" if opening.kind == "{" else ")"
            self.need(closing, f"to close {opening.kind!r}")
        elif self.token.kind == "word" and self.tokens[self.position + 1].kind == "(":
            node = self.call()
        else:
            node = self.simple()
        return self.sliced(node)

    def sliced(self, node: tree.Entity) -> tree.Entity:
        if isinstance(node, tree.Field) and (token := self.take("layer")):
            pieces = self.pieces(token, token.text[1:].strip("[]"))
            if pieces == (tree.Piece(0, 1),) and "[" not in token.text:
                raise FilterError("layers count from 1", self.text, token.at, token.end)
            node = tree.Layer(node, pieces, node.at, token.end)
        while token := self.take("slice"):
            self.one_more()
            node = tree.Slice(node, self.pieces(token, token.text[1:-1]), node.at, token.end)
        return node

    def pieces(self, token: Token, text: str) -> tuple[tree.Piece, ...]:
        found = []
        for written in text.split(","):
            match = _PIECE.fullmatch(written.strip())
            if match is None or not match[0] or match[0] == ":" or len(written) > 40:
                reason = "a piece of a slice is offset:length, first-last, :length, offset: or one number"
                raise FilterError(reason, self.text, token.at, token.end)
            first, colon, length, last = match.groups()
            one = None if colon or last else 1
            piece = tree.Piece(int(first or 0), int(length) if length else one, int(last) if last else None)
            if piece.length == 0 or _backwards(piece):
                raise FilterError("this slice is empty", self.text, token.at, token.end)
            found.append(piece)
        return tuple(found)

    def simple(self) -> tree.Literal | tree.Field:
        signed = self.token.kind == "-" and self.tokens[self.position + 1].kind == "word"
        minus = self.take("-") if signed else None
        token = self.take("word", "string", "char") or self.fail("a field or a value is missing")
        at = minus.at if minus else token.at
        if token.kind != "word" or minus or _VALUE.match(token.text) or literals.address(token.text):
            text = f"-{token.text}" if minus else token.text
            return tree.Literal(token.kind, text, token.value, at, token.end)
        return tree.Field(token.text, at, token.end)

    def call(self) -> tree.Call:
        name = self.need("word", "")
        self.need("(", "after the function")
        arguments = [self.value()]
        while self.take(","):
            arguments.append(self.value())
        end = self.need(")", "to close the function call").end
        return tree.Call(name.text, tuple(arguments), name.at, end)


def _backwards(piece: tree.Piece) -> bool:
    """Whether it ends before it begins, as far as that shows without the value."""
    same_side = piece.last is not None and (piece.first < 0) == (piece.last < 0)
    return same_side and piece.last is not None and piece.last < piece.first
