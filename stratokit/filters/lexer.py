"""Filter text -> tokens with positions."""

from __future__ import annotations

import dataclasses
import re

from stratokit.filters.errors import FilterError

# Beyond this a filter was made by a program gone wrong, or to keep this one busy.
MAX_CHARACTERS = 65536
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
    "bitand": "&",
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
# No two branches begin alike without deciding at once, so that the time is linear in the text.
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<raw>[rR]"(?:[^"\\]|\\.)*")
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<char>'(?:[^'\\]|\\.[0-9a-fA-F]{0,2})')
  | (?P<slice>\[[-\d:,\s]*\])
  | (?P<layer>\#(?:[0-9]{1,9}|\[[-\d:,\s]*\]))
  | (?P<sign>===|!==|==|!=|~=|>=|<=|&&|\|\||\^\^|\.\.|[!~<>(){},+\-*/%&])
  | (?P<word>(?:[0-9a-fA-F]{0,4}:[0-9a-fA-F:.]*|\d{1,3}(?:\.\d{1,3}){3})/\d{1,3}(?![\w:]|\.(?!\.))
      |(?:(?!\.\.)[\w.:\-])+)
  | (?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPES = {
    "n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v",
    "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip
_HINTS = {
    '"': "this text has no closing quotation mark",
    "'": 'a single character stands in these; a text stands in double quotation marks: "..."',
    "=": "comparison is written ==",
    "|": "logical or is written || or 'or'",
    "^": "exclusive or is written ^^ or 'xor'",
    "[": "a slice is written [offset:length], [first-last], [byte], or several of these with commas",
    "$": "references to fields of a selected packet need one; no packet is selected here",
    "#": "a layer is written as a number or a range: ip.addr#2 is that of the second one from outside, "
    "ip.addr#[-1] that of the innermost",
    "@": "raw bytes of a field cannot be asked for; slice the frame or the payload",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """kind: string, char, slice, layer, word (field or value), end, or the operator itself, one name for all
    its spellings. `value` are the bytes of a string or a character."""

    kind: str
    text: str
    at: int
    end: int
    value: bytes = b""


def tokens(text: str) -> list[Token]:
    """All tokens of a filter; the last one has kind `end`."""
    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"it is longer than {MAX_CHARACTERS} characters", text[:40], 0, 40)
    found: list[Token] = []
    position = 0
    while not found or found[-1].kind != "end":
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            position += len(text[position:]) - len(text[position:].lstrip())
            character = text[position]
            reason = _HINTS.get(character, f"{character!r} has no meaning here")
            raise FilterError(reason, text, position, position + 1)
        kind, written = match.lastgroup, match[match.lastgroup]
        at, position = match.start(kind), match.end()
        value = b""
        if kind == "raw":
            kind, value = "string", written[2:-1].encode("utf-8", "replace")
        elif kind in {"string", "char"}:
            value = _unescaped(written[1:-1], text, at + 1)
            if kind == "char" and len(value) != 1:
                raise FilterError("this is more than one byte", text, at, position)
        elif kind == "sign":
            kind = SIGNS.get(written, written)
        elif kind == "word":
            kind = WORDS.get(written.lower(), "word")
        found.append(Token(kind, written, at, position, value))
    return found


def _unescaped(written: str, text: str, at: int) -> bytes:
    """The bytes of a text: as UTF-8, but \\xHH and \\OOO stand for one byte."""

    def byte(match: re.Match[str]) -> str:
        if match[1] or match[2]:
            return chr(0xDC00 + (int(match[1], 16) if match[1] else int(match[2], 8) & 0xFF))
        if match[3] not in _ESCAPES:
            place = at + match.start()
            raise FilterError(
                f'{match[0]} is no escape; write {match[0]} with two backslashes, or r"..."',
                text,
                place,
                place + 2,
            )
        return _ESCAPES[match[3]]

    # A surrogate stands for a byte until all is encoded; one that was written is not text.
    clean = written.encode("utf-8", "replace").decode()
    changed = _ESCAPE.sub(byte, clean)
    return b"".join(
        bytes([ord(part) - 0xDC00]) if "\udc00" <= part <= "\udcff" else part.encode()
        for part in re.split("([\udc00-\udcff])", changed)
    )
