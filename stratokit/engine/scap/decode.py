"""Parameters of an event to the places that capture rows have for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stratokit.formats.scap.params import (
    BYTES,
    NUMBERS,
    OPAQUE,
    SOCKADDR,
    SOCKTUPLE,
    TEXT,
    Tables,
    convert,
    number,
)
from stratokit.formats.scap.params import PLACE as _PLACE
from stratokit.formats.scap.walk import half, word
from stratokit.kernels import lean_part as part
from stratokit.kernels import lean_routine as routine

i64: Any = np.int64

SPANS = _PLACE["addr"] - NUMBERS  # places of bytes: path, path2, data, exe, ...
PATH, PATH2, DATA = 0, 1, 2
EXE, ARGS, COMM, CGROUPS, CWD, ENV, EXEPATH = range(3, 10)
TUPLE = _PLACE["tuple"]
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
# In `facts`: ports, family, and whether a lone address or both ends were given.
SOURCE_PORT, TARGET_PORT, FAMILY, GIVEN = range(4)
LONE, BOTH = 1, 2


@part
def _address(data: np.ndarray, at: int, size: int, end: np.ndarray) -> None:
    for k in range(16):
        end[k] = 0
    if size == 4:
        end[10] = 255
        end[11] = 255
    for k in range(size):
        end[16 - size + k] = data[at + k]


@routine
def _socket(
    data: np.ndarray, at: int, size: int, both: bool, spans: np.ndarray, ends: np.ndarray, facts: np.ndarray
) -> None:
    """sockaddr and socktuple; a lone address is the target."""
    if size < 1:
        return
    family = data[at]
    width = 4 if family == AF_INET else 16 if family == AF_INET6 else 0
    if width and size >= 1 + (2 if both else 1) * (width + 2):
        at += 1
        if both:
            _address(data, at, width, ends[0])
            facts[SOURCE_PORT] = half(data, at + width)
            at += width + 2
        _address(data, at, width, ends[1])
        facts[TARGET_PORT] = half(data, at + width)
    elif family == AF_UNIX:
        skip = 17 if both else 1
        if size < skip:
            return
        spans[PATH, 0] = at + skip
        spans[PATH, 1] = size - skip
    else:
        return
    facts[FAMILY] = family
    facts[GIVEN] = BOTH if both else max(facts[GIVEN], LONE)


@part
def decode(
    data: np.ndarray,
    event: Any,
    tables: Tables,
    values: np.ndarray,
    spans: np.ndarray,
    ends: np.ndarray,
    facts: np.ndarray,
    looked_at: int,
) -> Any:
    """Fill in what an event's first `looked_at` parameters say and return which numbers they are, a bit each
    place.

    A parameter without bytes is absent. `values` has NUMBERS places, `spans` position and size in `data`.
    """
    mask = i64(0)
    at = event.params
    type_ = event.type
    for p in range(min(i64(event.count), looked_at)):
        size = word(data, event.lens + 4 * p) if event.wide else half(data, event.lens + 2 * p)
        kind = i64(tables.kind[type_, p])
        place = i64(tables.place[type_, p])
        if place and size:
            if kind < BYTES:
                value = number(data, at, size, kind)
                flags = i64(tables.flags[type_, p])
                values[place] = convert(value, flags, 1, tables) if flags else value
                mask |= i64(1) << place
            elif kind in (BYTES, TEXT) and NUMBERS <= place < NUMBERS + SPANS:
                spans[place - NUMBERS, 0] = at
                spans[place - NUMBERS, 1] = size
            elif kind == SOCKTUPLE or (kind == SOCKADDR and facts[GIVEN] != BOTH):
                _socket(data, at, size, kind == SOCKTUPLE, spans, ends, facts)
        elif place and kind in (BYTES, TEXT) and place < NUMBERS + SPANS and kind != OPAQUE:
            spans[place - NUMBERS, 0] = at
            spans[place - NUMBERS, 1] = 0
        at += size
    return mask


@routine
def decoded(
    data: np.ndarray, event: Any, tables: Tables, values: np.ndarray, spans: np.ndarray, ends: np.ndarray,
    facts: np.ndarray,
) -> Any:  # fmt: skip
    """As `decode`, of all that is needed, for what happens seldom."""
    return decode(data, event, tables, values, spans, ends, facts, i64(tables.looked_at[event.type]))
