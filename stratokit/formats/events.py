"""Kernel records out of the spool's EVENTS chunks: spans of the ring buffer to structured arrays.

A span is a row of ring-buffer records: u32 length with bit 31 busy and bit 30 discarded, u32 unused, the body
padded to 8 bytes. A body starts with the 16-byte header of schemas/events/header.toml; how each event goes on
is read from the spool's opening chunk, so that spools of older versions stay readable.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from stratokit.errors import FormatError
from stratokit.kernels import kernel
from stratokit.schema import load

_NUMPY = {"u8": "u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "s32": "<i4", "s64": "<i8"}
HEADER_BYTES = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How one event lies in memory in one spool."""

    name: str
    id: int
    dtype: np.dtype[Any]
    sections: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Records of one event from one span.

    `fixed` is a structured array of n records; `sections[name]` is (start, length) of n variable parts in
    `data`.
    """

    data: np.ndarray[Any, np.dtype[np.uint8]]
    fixed: np.ndarray[Any, Any]
    sections: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]

    def ordered(self, order: np.ndarray[Any, Any]) -> Batch:
        """The records of these numbers, in this order."""
        sections = {name: (start[order], length[order]) for name, (start, length) in self.sections.items()}
        return Batch(self.data, self.fixed[order], sections)


def layouts(opening: dict[str, Any]) -> dict[str, Layout]:
    """Layouts from a spool's opening chunk.

    Raises:
        FormatError: the description contradicts itself.
    """
    found = {}
    for name, event in opening["events"].items():
        if name not in load.events():
            continue  # written by a newer version; its records are counted as unreadable
        names: list[str] = []
        formats: list[Any] = []
        offsets: list[int] = []
        for field, type_, offset in event["fields"]:
            scalar, _, rest = type_.partition("[")
            count = int(rest[:-1]) if rest else 0
            names.append(field)
            offsets.append(offset)
            if scalar == "char":
                formats.append(f"S{count}")
            else:
                formats.append((_NUMPY[scalar], (count,)) if count else _NUMPY[scalar])
        try:
            dtype = np.dtype(
                {"names": names, "formats": formats, "offsets": offsets, "itemsize": event["size"]}
            )
        except (ValueError, TypeError) as error:
            raise FormatError(
                f"the spool describes the event {name} in a way that cannot be: {error}"
            ) from error
        sections = tuple((section, length) for section, length in event["sections"])
        if any(length not in names for _, length in sections):
            raise FormatError(f"the spool describes the event {name} with a section of unknown length")
        found[name] = Layout(name, event["id"], dtype, sections)
    return found


@kernel
def _walk(data: np.ndarray, positions: np.ndarray, lengths: np.ndarray, ids: np.ndarray) -> tuple[Any, Any]:
    """Positions, lengths and ids of the bodies; returns (count, bytes that are no whole record)."""
    at, end, count = np.int64(0), data.size, 0
    while at + 8 <= end:
        head = np.uint32(data[at]) | np.uint32(data[at + 1]) << 8 | np.uint32(data[at + 2]) << 16
        head |= np.uint32(data[at + 3]) << 24
        length = np.int64(head & np.uint32(0x3FFFFFFF))
        body = at + 8
        if body + length > end or head & np.uint32(0x80000000):
            return count, end - at
        if not head & np.uint32(0x40000000) and length >= 16:
            positions[count] = body
            lengths[count] = length
            ids[count] = np.uint16(data[body + 8]) | np.uint16(data[body + 9]) << 8
            count += 1
        at = body + (length + 7 & ~7)
    return count, max(end - at, 0)


@kernel
def _is_whole(data: np.ndarray) -> bool:
    at, end = np.int64(0), data.size
    while at + 8 <= end:
        head = np.uint32(data[at]) | np.uint32(data[at + 1]) << 8 | np.uint32(data[at + 2]) << 16
        head |= np.uint32(data[at + 3]) << 24
        if head & np.uint32(0x80000000):
            return False
        at += 8 + (np.int64(head & np.uint32(0x3FFFFFFF)) + 7 & ~7)
    return bool(at == end)


def is_whole(span: memoryview) -> bool:
    """True when the span's records fill it exactly, so that another span may follow it."""
    return bool(_is_whole(np.frombuffer(span, np.uint8)))


@kernel
def _gather_fixed(data: np.ndarray, positions: np.ndarray, size: int, out: np.ndarray) -> None:
    for i in range(positions.size):
        at = positions[i]
        for j in range(size):
            out[i, j] = data[at + j]


def split(span: memoryview, known: dict[str, Layout]) -> tuple[dict[str, Batch], int]:
    """Records of a span by event, and how many could not be read: unknown, too short, or with sections that
    lie.
    """
    data = np.frombuffer(span, np.uint8)
    most = data.size // (8 + HEADER_BYTES) + 1
    positions, lengths = np.empty(most, np.int64), np.empty(most, np.int64)
    ids = np.empty(most, np.uint16)
    count, rest = _walk(data, positions, lengths, ids)
    positions, lengths, ids = positions[:count], lengths[:count], ids[:count]
    unreadable = int(rest > 0)
    batches = {}
    taken = 0
    for layout in known.values():
        chosen = np.flatnonzero((ids == layout.id) & (lengths >= layout.dtype.itemsize))
        if not chosen.size:
            continue
        batch, kept = _batch(data, positions[chosen], lengths[chosen], layout)
        taken += kept
        if kept:
            batches[layout.name] = batch
    return batches, unreadable + count - taken


def _batch(data: Any, positions: Any, lengths: Any, layout: Layout) -> tuple[Batch, int]:
    size = layout.dtype.itemsize
    raw = np.empty((positions.size, size), np.uint8)
    _gather_fixed(data, positions, size, raw)
    fixed = raw.view(layout.dtype).reshape(-1)
    ends = positions + size
    sections = {}
    for name, length_field in layout.sections:
        length = fixed[length_field].astype(np.int64)
        sections[name] = (ends, length)
        ends = ends + length
    good = ends <= positions + lengths
    if not good.all():
        fixed = fixed[good]
        sections = {name: (start[good], length[good]) for name, (start, length) in sections.items()}
    return Batch(data, fixed, sections), int(good.sum())


@kernel
def _copy(
    data: np.ndarray, starts: np.ndarray, lengths: np.ndarray, offsets: np.ndarray, out: np.ndarray
) -> None:
    for i in range(starts.size):
        at, to = starts[i], offsets[i]
        out[to : to + lengths[i]] = data[at : at + lengths[i]]


def gather(data: Any, starts: Any, lengths: Any) -> tuple[Any, Any]:
    """Variable parts as one contiguous buffer and n + 1 offsets, as Arrow's large_binary wants them."""
    offsets = np.zeros(starts.size + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    out = np.empty(int(offsets[-1]), np.uint8)
    copy(data, starts, lengths, offsets, out)
    return out, offsets


def copy(data: Any, starts: Any, lengths: Any, offsets: Any, out: Any) -> None:
    """Copy each `data[start:start + length]` to where it begins in `out`, of which `offsets` has at least as
    many.
    """
    _copy(data, starts.astype(np.int64), lengths.astype(np.int64), offsets, out)
