"""Filter text -> tree. Wireshark's display filter language:

    filter   = or ;
    or       = xor , { ( "||" | "or" ) , xor } ;
    xor      = and , { ( "^^" | "xor" ) , and } ;
    and      = not , { ( "&&" | "and" ) , not } ;
    not      = ( "!" | "not" ) , not | "(" , or , ")" | test ;
    test     = [ "any" | "all" ] , entity , [ comparison | membership ] ;
    comparison = operator , entity ;
    operator = "==" | "eq" | "any_eq" | "!=" | "ne" | "all_ne" | "===" | "all_eq" | "!==" | "any_ne"
             | ">" | "gt" | ">=" | "ge" | "<" | "lt" | "<=" | "le" | "contains" | "~" | "matches" ;
    membership = [ "not" ] , "in" , "{" , choice , { "," , choice } , "}" ;
    choice   = literal , [ ".." , literal ] ;
    entity   = name , "(" , entity , { "," , entity } , ")" | name | literal ;
    literal  = string | number | duration | address | network ;

A name alone is true where the row has the field. `!=` is true when every value of the field differs,
`!==` when one does. A number compared with a duration counts seconds; 10ms, 1.5s, 2h say their unit.
Strings: "..." with escapes, r"..." without. `matches` takes a regular expression and ignores case.
"""

from __future__ import annotations

from typing import NoReturn

from stratokit.filters import literals, tree
from stratokit.filters.errors import FilterError
from stratokit.filters.lexer import Token, tokens

_COMPARISONS = frozenset(("==", "!=", "===", "!==", ">", ">=", "<", "<=", "contains", "matches"))
# Nesting beyond this is no filter that a person wrote; without a limit it would exhaust Python's stack.
_MAX_DEPTH = 100


def parse(text: str) -> tree.Test:
    """The tree of a filter; raises FilterError with the position of what is wrong."""
    return _Parser(text).whole()


def _literal(token: Token) -> tree.Literal | None:
    """The value that a word or a string stands for, None for a name."""
    text = token.text
    kind = "text"
    value: int | str | literals.Address | literals.Network | None = text if token.kind == "string" else None
    if value is None:
        kind, value = "number", literals.integer(text)
    if value is None:
        kind, value = "duration", literals.duration_ns(text)
    if value is None:
        kind, value = "address", literals.address(text)
    if value is None:
        kind, value = "network", literals.network(text)
    if value is None and literals.decimal_scaled(text, 1) is not None:
        kind, value = "decimal", text
    if value is None and text.lower() in {"true", "false"}:
        kind, value = "number", int(text.lower() == "true")
    return None if value is None else tree.Literal(kind, value, text, token.at, token.end)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.position = 0
        self.depth = 0

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
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"more than {_MAX_DEPTH} parentheses and negations are nested")
        if token := self.take("not"):
            inner = self.negation()
            node: tree.Test = tree.Not(inner, token.at, inner.end)
        elif self.take("("):
            node = self.logic()
            self.need(")", "to close a parenthesis")
        else:
            node = self.test()
        self.depth -= 1
        return node

    def test(self) -> tree.Test:
        word = self.take("any", "all")
        quantifier = word.text.lower() if word else ""
        left = self.entity()
        at = word.at if word else left.at
        token = self.token
        if token.kind in _COMPARISONS:
            self.position += 1
            right = self.entity()
            return tree.Compare(token.kind, left, right, quantifier, at, right.end)
        negated = token.kind == "not" and self.tokens[self.position + 1].kind == "in"
        if negated or token.kind == "in":
            self.position += 2 if negated else 1
            member = self.membership(left, quantifier, at)
            return tree.Not(member, at, member.end) if negated else member
        if not isinstance(left, tree.Field) or quantifier:
            self.fail("a comparison is missing")
        return tree.Present(left, at, left.end)

    def membership(self, left: tree.Entity, quantifier: str, at: int) -> tree.Member:
        self.need("{", "after 'in'")
        choices = [self.choice()]
        while self.take(","):
            choices.append(self.choice())
        end = self.need("}", "to close the set (its members are separated by commas)").end
        return tree.Member(left, tuple(choices), quantifier, at, end)

    def choice(self) -> tree.Literal | tree.Range:
        low = self.literal()
        if not self.take(".."):
            return low
        high = self.literal()
        return tree.Range(low, high, low.at, high.end)

    def literal(self) -> tree.Literal:
        token = self.take("word", "string") or self.fail("a value is missing")
        found = _literal(token)
        if found is None:
            raise FilterError(
                f'write a text in quotation marks: "{token.text}"', self.text, token.at, token.end
            )
        return found

    def entity(self) -> tree.Entity:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"more than {_MAX_DEPTH} function calls are nested")
        token = self.take("word", "string") or self.fail("a field or a value is missing")
        node: tree.Entity | None = _literal(token)
        if token.kind == "word" and self.token.kind == "(":
            node = self.call(token)
        self.depth -= 1
        return node or tree.Field(token.text, token.at, token.end)

    def call(self, name: Token) -> tree.Call:
        self.need("(", "after the function")
        arguments = [self.entity()]
        while self.take(","):
            arguments.append(self.entity())
        end = self.need(")", "to close the function call").end
        return tree.Call(name.text, tuple(arguments), name.at, end)
