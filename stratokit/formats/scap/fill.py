"""Events in bulk: sizes first, then one pass that fills one buffer. What goes where stands in the schema."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stratokit.formats.scap.blocks import EVENT_V1_ALIAS, FLAGGED_EVENTS
from stratokit.formats.scap.params import (
    BYTES,
    DYNAMIC,
    EFFECT,
    FDLIST,
    NUMBERS,
    PLACE,
    SOCKADDR,
    SOCKTUPLE,
    TEXT,
    Tables,
    convert,
)
from stratokit.kernels import lean_kernel as kernel
from stratokit.kernels import lean_routine as routine

i64: Any = np.int64
u64: Any = np.uint64

PLACES_OF_BYTES = PLACE["addr"] - NUMBERS
_DATA = PLACE["data"] - NUMBERS
_RET, _SIZE, _ARG0, _ARG5 = PLACE["ret"], PLACE["size"], PLACE["arg0"], PLACE["arg5"]
_ACCEPT, _RECVFROM = EFFECT["accept"], EFFECT["recvfrom"]
SIGNED_64 = 7
# Readers refuse events beyond 65536 bytes; texts are short, and payload was cut before.
TEXT_MAX, DATA_MAX = 4096, 40_000
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
NO_ID = 0xFFFFFFFF
DYNAMIC_BYTES = 9  # a choice, and a number of 8 bytes


class Rows(NamedTuple):
    """What rows have at each place; numbers as Linux has them.

    `spans` are start and size in `blob`, -1 for none, for each place of bytes. `local` and `remote` are 16
    bytes, `family` 0 where neither is known. `has` has a bit for each number.
    """

    values: np.ndarray
    has: np.ndarray
    blob: np.ndarray
    spans: np.ndarray
    local: np.ndarray
    remote: np.ndarray
    ports: np.ndarray
    family: np.ndarray


EVENT_OUT = np.dtype(
    [
        ("ts", "<i8"),
        ("tid", "<i8"),
        ("row", "<i8"),
        ("block", "<u4"),
        ("flags", "<u4"),
        ("type", "<u2"),
        ("count", "<u2"),
        ("cpu", "<u2"),
    ],
    align=True,
)


@routine
def _put(out: np.ndarray, at: int, value: Any, size: int) -> Any:
    value = u64(value)
    for k in range(size):
        out[at + k] = value >> u64(8 * k) & u64(255)
    return at + size


@routine
def _number(rows: Rows, row: int, place: int, kind: int, flags: int, tables: Tables) -> Any:
    """A number for the file; what is not known is zero."""
    value = i64(rows.values[row, place])
    if place == _SIZE:
        return max(i64(rows.values[row, _RET]), 0)
    if place == 0 or not rows.has[row] >> place & 1:
        return i64(0)
    if _ARG0 <= place <= _ARG5 and kind == SIGNED_64:
        value = i64(np.int32(value & 0xFFFFFFFF))  # a C int in a wide register
    return convert(value, flags, 0, tables)


@routine
def _end(out: np.ndarray, at: int, address: np.ndarray, port: int, family: int, write: bool) -> Any:
    width = 4 if family == AF_INET else 16
    if write:
        for k in range(width):
            out[at + k] = address[16 - width + k]
        _put(out, at + width, port, 2)
    return at + width + 2


@routine
def _socket(out: np.ndarray, at: int, rows: Rows, row: int, both: bool, inbound: bool, write: bool) -> Any:
    """socktuple from source to target, or a sockaddr, which is the remote end."""
    family = rows.family[row]
    if family == 0:
        return at
    if write:
        out[at] = family
    at += 1
    if family == AF_UNIX:
        start, size = rows.spans[row, 0]
        if both:
            if write:
                for k in range(16):
                    out[at + k] = 0
            at += 16
        if write:
            for k in range(size):
                out[at + k] = rows.blob[start + k]
            out[at + max(size, 0)] = 0
        return at + max(size, 0) + 1
    local, remote = rows.local[row], rows.remote[row]
    local_port, remote_port = rows.ports[row, 0], rows.ports[row, 1]
    if both:
        if inbound:
            at = _end(out, at, remote, remote_port, family, write)
            return _end(out, at, local, local_port, family, write)
        at = _end(out, at, local, local_port, family, write)
    return _end(out, at, remote, remote_port, family, write)


@routine
def _bytes(out: np.ndarray, at: int, rows: Rows, row: int, place: int, kind: int, write: bool) -> Any:
    """Bytes, or text with its NUL, which stands alone where the text is not known."""
    start, size = i64(-1), i64(0)
    if NUMBERS <= place < NUMBERS + PLACES_OF_BYTES:
        start, size = rows.spans[row, place - NUMBERS]
    if start < 0 and kind == BYTES:
        return at
    # sysdig 0.29.3 looks for the NUL of a text even where it has no bytes.
    size = min(max(size, 0), DATA_MAX if place - NUMBERS == _DATA else TEXT_MAX)
    if write:
        for k in range(size):
            out[at + k] = rows.blob[start + k]
    at += size
    if kind == TEXT:
        if write:
            out[at] = 0
        at += 1
    return at


@routine
def _param(
    out: np.ndarray, at: int, rows: Rows, row: int, type_: int, p: int, tables: Tables, write: bool
) -> Any:
    """One parameter; returns its end. Without `write` it is only measured."""
    kind, place = i64(tables.kind[type_, p]), i64(tables.place[type_, p])
    if kind < BYTES:
        size = 1 << (kind & 3)
        if write:
            flags = i64(tables.flags[type_, p])
            _put(out, at, _number(rows, row, place, kind, flags, tables), size)
        return at + size
    if kind in (BYTES, TEXT):
        return _bytes(out, at, rows, row, place, kind, write)
    if kind in (SOCKADDR, SOCKTUPLE):
        effect = tables.effect[type_]
        return _socket(out, at, rows, row, kind == SOCKTUPLE, effect in (_ACCEPT, _RECVFROM), write)
    size = 2 if kind == FDLIST else DYNAMIC_BYTES if kind == DYNAMIC else 0
    if write:
        for k in range(size):
            out[at + k] = 0
    return at + size


@kernel
def sizes(events: np.ndarray, rows: Rows, tables: Tables, ends: np.ndarray) -> None:
    """Where each block ends when all follow one another from 0; `ends` is one longer than the events."""
    nothing = rows.blob[:0]  # nothing is written
    ends[0] = 0
    for i in range(events.size):
        event = events[i]
        old = event.block == EVENT_V1_ALIAS
        size = i64(8 + 2 + (22 if old else 26) + 4)
        if event.block in FLAGGED_EVENTS:
            size += 4
        step = 4 if tables.large[event.type] else 2
        for p in range(event.count):
            size = _param(nothing, size + step, rows, event.row, event.type, p, tables, False)
        ends[i + 1] = ends[i] + (size + 3 & ~3)


@kernel
def fill(
    out: np.ndarray, ends: np.ndarray, first: int, last: int, events: np.ndarray, rows: Rows, tables: Tables
) -> None:
    """Write the blocks of events `first` to `last`."""
    for i in range(first, last):
        event = events[i]
        at = ends[i] - ends[first]
        length = ends[i + 1] - ends[i]
        end = at + length
        _put(out, at, event.block, 4)
        _put(out, at + 4, length, 4)
        _put(out, at + 8, event.cpu, 2)
        at += 10
        if event.block in FLAGGED_EVENTS:
            at = _put(out, at, event.flags, 4)
        head = at
        _put(out, at, event.ts, 8)
        _put(out, at + 8, event.tid, 8)
        at = _put(out, at + 20, event.type, 2)
        if event.block != EVENT_V1_ALIAS:
            at = _put(out, at, event.count, 4)
        step = 4 if tables.large[event.type] else 2
        lens = at
        at += step * event.count
        for p in range(event.count):
            begin = at
            at = _param(out, at, rows, event.row, event.type, p, tables, True)
            _put(out, lens + step * p, at - begin, step)
        _put(out, head + 16, at - head, 4)
        while at < end - 4:
            out[at] = 0
            at += 1
        _put(out, end - 4, length, 4)
