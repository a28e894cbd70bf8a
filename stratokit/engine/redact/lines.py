"""Values of header fields and query strings in streams of bytes, wherever segments cut them.

Streams are read as lines. A line that begins with a name and a colon is a field; where the name contains one
of `WORDS`, its value and the lines that continue it (RFC 9112 section 5.2) are marked, up to the end of line.
With `queries`, what follows a question mark is marked up to a blank, a quotation mark or an angle bracket.
Behind a gap, and where a stream was not seen from its beginning, it is not known what the line is: all of it
is marked. A segment that overlaps with what came before is read again by itself, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratokit.kernels import kernel, routine

if TYPE_CHECKING:
    from numpy.typing import NDArray

# In lower case; a name that contains one of these has a value that nobody else is to know.
WORDS = (
    "auth", "cookie", "token", "secret", "key", "passw", "credential", "session", "signature", "bearer",
    "csrf", "xsrf", "jwt", "assertion",
)  # fmt: skip
NAME_BYTES = 64
MASK = ord("x")
# What a byte belongs to.
_NAME, _LINE, _HIDDEN, _QUERY, _FOLD = 0, 1, 2, 3, 4
_CR, _LF, _BLANK, _TAB, _COLON, _QUESTION = 13, 10, 32, 9, 58, 63
_LINE_ENDS, _BLANKS, _ENDS_OF_QUERIES = (_CR, _LF), (_BLANK, _TAB), (ord('"'), ord("<"), ord(">"))


def patterns() -> NDArray[np.uint8]:
    """WORDS as rows of bytes, each with its length in front."""
    width = max(map(len, WORDS)) + 1
    found = np.zeros((len(WORDS), width), np.uint8)
    for row, word in zip(found, WORDS, strict=True):
        row[0] = len(word)
        row[1 : 1 + len(word)] = np.frombuffer(word.encode(), np.uint8)
    return found


@routine
def _is_secret(name: np.ndarray, size: int, words: np.ndarray) -> bool:
    if size > name.size:
        return True  # nobody knows what that is
    for w in range(words.shape[0]):
        length = np.int64(words[w, 0])
        for at in range(size - length + 1):
            same = True
            for i in range(length):
                if name[at + i] != words[w, 1 + i]:
                    same = False
                    break
            if same:
                return True
    return False


@routine
def _in_hidden(byte: int, at: int, hidden: np.ndarray) -> int:
    """The state behind a byte of a hidden line."""
    if byte == _LF:
        return _FOLD
    if byte != _CR:
        hidden[at] = 1
    return _HIDDEN


@routine
def _in_query(byte: int, at: int, hidden: np.ndarray) -> int:
    """The state behind a byte of a query string."""
    if byte <= _BLANK or byte in _ENDS_OF_QUERIES:
        return _LINE
    hidden[at] = 1
    return _QUERY


@routine
def _in_name(byte: int, size: int, name: np.ndarray) -> int:
    """The size of a name with another byte, which goes to `name` in lower case; blanks do not count."""
    if byte in _BLANKS:
        return size
    if size < name.size:
        name[size] = byte + 32 if 65 <= byte <= 90 else byte
    return min(size + 1, name.size + 1)


@routine
def _read(
    data: np.ndarray,
    begin: int,
    end: int,
    state: int,
    size: int,
    name: np.ndarray,
    words: np.ndarray,
    fields: bool,
    queries: bool,
    hidden: np.ndarray,
) -> tuple[int, int]:
    """Mark what is secret in data[begin:end]; state and size of the name are those in front and behind."""
    for i in range(begin, end):
        byte = data[i]
        if state == _FOLD:  # behind the end of a hidden line, which a blank continues
            state = _HIDDEN if byte in _BLANKS else _NAME
            size = 0
        if state == _HIDDEN:
            state = _in_hidden(byte, i, hidden)
        elif byte in _LINE_ENDS:
            state, size = _NAME, 0
        elif state == _QUERY:
            state = _in_query(byte, i, hidden)
        elif queries and byte == _QUESTION:
            state = _QUERY
        elif state == _NAME and byte == _COLON:
            state = _HIDDEN if fields and _is_secret(name, size, words) else _LINE
        elif state == _NAME:
            size = _in_name(byte, size, name)
    return state, size


@kernel
def mark(
    data: np.ndarray,
    start: np.ndarray,
    taken: np.ndarray,
    offset: np.ndarray,
    sent: np.ndarray,
    bounds: np.ndarray,
    began: np.ndarray,
    words: np.ndarray,
    fields: bool,
    queries: bool,
    hidden: np.ndarray,
) -> None:
    """Mark what is secret in streams.

    Args:
        data: the bytes; piece k is data[start[k] : start[k] + taken[k]].
        offset: where pieces stand in their streams, ascending within one; `sent` their true length.
        bounds: stream s has the pieces bounds[s] to bounds[s + 1].
        began: per stream, whether offset 0 is its first byte.
        hidden: as long as `data`, zeros; becomes 1 for what is to be hidden.
    """
    name, other = np.zeros(NAME_BYTES, np.uint8), np.zeros(NAME_BYTES, np.uint8)
    for s in range(bounds.size - 1):
        state, size, done = _HIDDEN, 0, np.int64(-1)
        if began[s]:
            state, done = _NAME, np.int64(0)
        for k in range(bounds[s], bounds[s + 1]):
            at, first = offset[k], start[k]
            if done < 0 or at > done:
                if done >= 0 or not began[s]:
                    state, size = _HIDDEN, 0
                done = at
            skip = min(done - at, taken[k])
            if skip > 0:
                # Seen before, perhaps with other bytes: read alone, from the middle of an unknown line.
                _read(data, first, first + taken[k], _HIDDEN, 0, other, words, fields, queries, hidden)
            state, size = _read(
                data, first + skip, first + taken[k], state, size, name, words, fields, queries, hidden
            )
            done = max(done, at + taken[k])
            if taken[k] < sent[k]:
                state, size = _HIDDEN, 0
                done = max(done, at + sent[k])
