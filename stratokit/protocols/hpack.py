"""HPACK (RFC 7541): the fields of header blocks, with the dynamic table of one direction of a connection.

Strings are decoded into one text buffer, that begins with those of the static table; fields and table entries
are places there, so that a reference costs nothing, however often it is repeated. The buffer grows with what
is received: by at most 8 bits for 5 (the shortest Huffman code).

Where the table is not known (the capture began later, or bytes are missing), an index counts from the newest
entry on: those that came since are known, for the others a field has no name (size -1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.dissect.layers import i64
from stratokit.kernels import kernel, routine
from stratokit.protocols.hpack_tables import (
    EOS,
    FIRST_CODE,
    FIRST_SYMBOL,
    MAX_BITS,
    STATIC_ENTRIES,
    STATIC_PLACES,
    STATIC_TEXT,
    SYMBOLS,
)

DEFAULT_TABLE_BYTES = 4096
# Peers that allow more than the default use up to 64 KiB; a larger size is taken for an error.
TABLE_LIMIT_BYTES = 1 << 20
TABLE_ENTRIES = TABLE_LIMIT_BYTES // 32  # an entry counts 32 bytes besides its texts (section 4.1)

# State of a direction.
ENTRIES, NEXT, SIZE, MAX_SIZE, COMPLETE = range(5)
STATE_FIELDS = 5
# A field or an entry of the table: places in the text; a name that is not known has size -1.
NAME, VALUE = 0, 2
FIELD_FIELDS = 4

ERROR = -1  # instead of the position behind a field


def new_table() -> np.ndarray:
    """Room for the entries of a direction; `reset` begins anew."""
    return np.empty((TABLE_ENTRIES, FIELD_FIELDS), np.int64)


@kernel
def new_text() -> np.ndarray:
    """The text buffer with the static table; its first free byte is at STATIC_TEXT.size."""
    text = np.empty(1 << 16, np.uint8)
    for i in range(STATIC_TEXT.size):
        text[i] = STATIC_TEXT[i]
    return text


@kernel
def reset(state: np.ndarray, complete: bool) -> None:
    """An empty table: the one at the beginning of a connection, or one of which nothing is known."""
    state[ENTRIES], state[NEXT], state[SIZE], state[COMPLETE] = 0, 0, 0, complete
    state[MAX_SIZE] = DEFAULT_TABLE_BYTES if complete else TABLE_LIMIT_BYTES


@kernel
def decoded_bytes(size: int) -> Any:
    """How many bytes of text a block of that size makes at most."""
    return i64(size) * 8 // 5 + 16


@routine
def _integer(data: np.ndarray, p: int, end: int, bits: int) -> tuple[Any, int]:
    """(value, position behind) of an integer with a prefix of `bits` (section 5.1); ERROR as the position."""
    if p >= end:
        return i64(0), ERROR
    mask = (1 << bits) - 1
    value = i64(data[p]) & mask
    p += 1
    if value < mask:
        return value, p
    shift = 0
    while p < end and shift <= 28:
        byte = i64(data[p])
        p += 1
        value += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, p
    return i64(0), ERROR


@kernel
def huffman(data: np.ndarray, p: int, end: int, text: np.ndarray, n: int) -> int:
    """Decode into text[n:] (section 5.2); where that ends, or ERROR."""
    code, bits = i64(0), 0
    for i in range(p, end):
        byte = i64(data[i])
        for shift in range(7, -1, -1):
            code = code << 1 | byte >> shift & 1
            bits += 1
            if bits < 5:
                continue
            place = code - FIRST_CODE[bits]
            if place < FIRST_SYMBOL[bits + 1] - FIRST_SYMBOL[bits]:
                symbol = SYMBOLS[FIRST_SYMBOL[bits] + place]
                if symbol == EOS:
                    return ERROR
                text[n] = symbol
                n += 1
                code, bits = i64(0), 0
            elif bits == MAX_BITS:
                return ERROR
    # The rest is padding: less than a byte, all ones.
    return n if bits < 8 and code == (1 << bits) - 1 else ERROR


@routine
def _string(data: np.ndarray, p: int, end: int, text: np.ndarray, n: int) -> tuple[int, int]:
    """Decode a string literal into text[n:]: (position behind it or ERROR, where the text ends)."""
    if p >= end:
        return ERROR, n
    coded = data[p] & 0x80
    size, p = _integer(data, p, end, 7)
    if p == ERROR or size > end - p:
        return ERROR, n
    if coded:
        stop = huffman(data, p, p + size, text, n)
        return (p + size, stop) if stop != ERROR else (ERROR, n)
    for i in range(size):
        text[n + i] = data[p + i]
    return p + size, n + size


@routine
def _look_up(index: int, table: np.ndarray, state: np.ndarray, field: np.ndarray) -> Any:
    """Take an entry by its index (section 2.3.3); False where there cannot be one."""
    if index == 0:
        return False
    if index <= STATIC_ENTRIES:
        for k in range(FIELD_FIELDS):
            field[k] = STATIC_PLACES[index, k]
        return True
    back = index - STATIC_ENTRIES
    if back > state[ENTRIES]:
        for k in range(FIELD_FIELDS):
            field[k] = -1
        return state[COMPLETE] == 0
    row = (state[NEXT] - back) % TABLE_ENTRIES
    for k in range(FIELD_FIELDS):
        field[k] = table[row, k]
    return True


@routine
def _entry_bytes(field: np.ndarray) -> Any:
    return 32 + max(field[NAME + 1], 0) + max(field[VALUE + 1], 0)


@routine
def _evict(table: np.ndarray, state: np.ndarray, size: int) -> None:
    """Drop the oldest entries until no more than `size` bytes are left (section 4.3)."""
    while state[ENTRIES] > 0 and state[SIZE] > size:
        state[SIZE] -= _entry_bytes(table[(state[NEXT] - state[ENTRIES]) % TABLE_ENTRIES])
        state[ENTRIES] -= 1


@routine
def _insert(table: np.ndarray, state: np.ndarray, field: np.ndarray) -> None:
    size = _entry_bytes(field)
    _evict(table, state, state[MAX_SIZE] - size)
    if size > state[MAX_SIZE]:
        return  # section 4.4: it empties the table
    for k in range(FIELD_FIELDS):
        table[state[NEXT], k] = field[k]
    state[NEXT] = (state[NEXT] + 1) % TABLE_ENTRIES
    state[ENTRIES] = min(state[ENTRIES] + 1, TABLE_ENTRIES)
    state[SIZE] += size


@routine
def _resize(data: np.ndarray, p: int, end: int, table: np.ndarray, state: np.ndarray) -> int:
    """Follow a dynamic table size update (section 6.3)."""
    size, p = _integer(data, p, end, 5)
    if p == ERROR or size > TABLE_LIMIT_BYTES:
        return ERROR
    state[MAX_SIZE] = size
    _evict(table, state, size)
    return p


@kernel
def next_field(
    data: np.ndarray,
    p: int,
    end: int,
    text: np.ndarray,
    n: int,
    table: np.ndarray,
    state: np.ndarray,
    field: np.ndarray,
) -> tuple[int, int]:
    """Read the next field of the block data[p:end] into `field`: (position behind it or ERROR, end of text).

    A block may end without one more field: then the name's place is -2.
    """
    field[NAME] = -2
    while p < end and data[p] & 0xE0 == 0x20:
        p = _resize(data, p, end, table, state)
        if p == ERROR:
            return ERROR, n
    if p >= end:
        return p, n
    first = data[p]
    if first & 0x80:  # indexed field (section 6.1)
        index, p = _integer(data, p, end, 7)
        found = p != ERROR and _look_up(index, table, state, field)
        return (p if found else ERROR), n
    keeps = first & 0x40 != 0  # with incremental indexing (section 6.2.1), else without or never
    index, p = _integer(data, p, end, 6 if keeps else 4)
    if p == ERROR:
        return ERROR, n
    if index == 0:
        p, stop = _string(data, p, end, text, n)
        field[NAME], field[NAME + 1] = n, stop - n
        n = stop
    elif not _look_up(index, table, state, field):
        return ERROR, n
    if p == ERROR:
        return ERROR, n
    p, stop = _string(data, p, end, text, n)
    field[VALUE], field[VALUE + 1] = n, stop - n
    if p != ERROR and keeps:
        _insert(table, state, field)
    return p, stop
