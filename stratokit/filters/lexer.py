"""Filter text -> tokens with positions."""

from __future__ import annotations

import dataclasses
import re

from stratokit.filters.errors import FilterError

# Wireshark's words for operators, and both spellings of negation and logic.
WORDS = {
    "eq": "==",
    "any_eq": "==",
    "ne": "!=",
    "all_ne": "!=",
    "all_eq": "===",
    "any_ne": "!==",
    "gt": ">",
    "lt": "<",
    "ge": ">=",
    "le": "<=",
    "contains": "contains",
    "matches": "matches",
    "in": "in",
    "and": "and",
    "or": "or",
    "xor": "xor",
    "not": "not",
    "any": "any",
    "all": "all",
}
SIGNS = {
    "&&": "and",
    "||": "or",
    "^^": "xor",
    "!": "not",
    "~": "matches",
    "~=": "!==",
}
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<raw>[rR]"[^"]*")
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<sign>===|!==|==|!=|~=|>=|<=|&&|\|\||\^\^|\.\.|[!~<>(){},])
  | (?P<word>(?:-(?=[\d.]))?(?:(?!\.\.)[\w.:/\-])+)
  | (?P<end>$)
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """kind: string, end, word (field or literal), or the operator itself, one name for all its spellings."""

    kind: str
    text: str
    at: int
    end: int


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code[0].isdigit() and code[0] < "8":
        return chr(int(code, 8))
    return _ESCAPES.get(code, code)


def tokens(text: str) -> list[Token]:
    """All tokens of a filter; the last one has kind `end`."""
    found: list[Token] = []
    position = 0
    while not found or found[-1].kind != "end":
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            position += len(text[position:]) - len(text[position:].lstrip())
            character = text[position]
            reason = {
                '"': "this text has no closing quotation mark",
                "'": 'text stands in double quotation marks: "..."',
                "=": "comparison is written ==",
                "&": "logical and is written && or 'and'",
                "|": "logical or is written || or 'or'",
                "[": "byte slices are not supported yet",
            }.get(character, f"{character!r} has no meaning here")
            raise FilterError(reason, text, position, position + 1)
        kind, written = match.lastgroup, match[match.lastgroup]
        at, position = match.start(kind), match.end()
        if kind == "raw":
            kind, written = "string", written[2:-1]
        elif kind == "string":
            written = _ESCAPE.sub(_unescape, written[1:-1])
        elif kind == "sign":
            kind = SIGNS.get(written, written)
        elif kind == "word":
            kind = WORDS.get(written.lower(), "word")
        found.append(Token(kind, written, at, position))
    return found
