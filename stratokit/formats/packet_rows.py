"""What writers of packet files share: rows as flat buffers, each packet once, Ethernet before raw IP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from stratokit.kernels import kernel, routine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

u64: Any = np.uint64

BATCH_ROWS = 1 << 16
BUFFER_BYTES = 4 << 20
SEEN_FRAMES = 1 << 20
# A synthesized Ethernet header: two addresses of zeros, as loopback has, and the EtherType.
ETHERNET_HEADER = 14


class Run(NamedTuple):
    """Blocks one behind the other in `data`: block i is `data[ends[i]:ends[i + 1]]`, its time `ts[i]`."""

    data: np.ndarray
    ends: np.ndarray
    ts: np.ndarray


@kernel
def _first_sightings(frames: np.ndarray, seen: np.ndarray, keep: np.ndarray) -> None:
    """Keep a frame number only when it comes for the first time; 0 is no number and always kept.

    `seen` (a power of two long) remembers numbers at their remainder: a repetition is found as long as no
    other number with the same remainder came between, and both sightings of a packet are close together.
    """
    mask = u64(len(seen) - 1)
    for i in range(len(frames)):
        number = frames[i]
        slot = number & mask
        keep[i] = number == 0 or seen[slot] != number
        seen[slot] = number


class FirstSightings:
    """Lets a packet that was seen twice, on its way out of one local socket and in to another, pass once."""

    def __init__(self) -> None:
        self._seen = np.zeros(SEEN_FRAMES, np.uint64)

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` without the packets whose frame number came before."""
        numbers = batch["frame"].fill_null(0).to_numpy(zero_copy_only=False)
        keep = np.empty(len(numbers), np.bool_)
        _first_sightings(numbers, self._seen, keep)
        return batch if keep.all() else batch.filter(pa.array(keep))


@routine
def put_ethernet(out: np.ndarray, at: int, data: np.ndarray, start: int, size: int) -> int:
    """Write an Ethernet header for the IP packet of `size` bytes at data[start]; returns where it ends."""
    for k in range(12):
        out[at + k] = 0
    # The first half byte is the IP version.
    six = size > 0 and data[start] >> 4 == 6
    out[at + 12] = 0x86 if six else 0x08
    out[at + 13] = 0xDD if six else 0x00
    return at + ETHERNET_HEADER


def group_rows(columns: Sequence[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct combinations of values: the number of each row, and a row of each number."""
    combined = np.zeros(len(columns[0]), np.int64)
    radix = 1
    for column in columns:
        coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        size = len(coded.dictionary) + 1
        if radix * size >= 1 << 62:
            distinct, combined = np.unique(combined, return_inverse=True)
            radix = len(distinct)
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        combined = combined * size + (codes + 1)
        radix *= size
    numbers = pa.array(combined).dictionary_encode()
    group = numbers.indices.to_numpy()
    rows = np.empty(len(numbers.dictionary), np.int64)
    rows[group[::-1]] = np.arange(len(group))[::-1]
    return group, rows


def value_buffers(array: pa.Array, width: type) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of a binary or text array, and where each value begins and the last one ends; nulls are empty."""
    offsets: np.ndarray = np.frombuffer(array.buffers()[1], width)[
        array.offset : array.offset + len(array) + 1
    ]
    values = array.buffers()[2]
    # Never empty, so that the kernels have something to index.
    data = (
        np.frombuffer(values, np.uint8)
        if values is not None and values.size
        else np.frombuffer(b"\0", np.uint8)
    )
    return data, offsets.astype(np.int64)


def times_of(batch: pa.RecordBatch) -> np.ndarray:
    """Nanoseconds since 1970; 0 where a packet has no time."""
    times: np.ndarray = batch["ts"].cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return times.astype(np.int64)  # a copy, as the kernels take arrays that are not read-only


def pieces(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Divide records that end at `ends` into runs that fill BUFFER_BYTES, each of at least one record."""
    first = 0
    while first < len(ends) - 1:
        last = int(np.searchsorted(ends, ends[first] + BUFFER_BYTES, "right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last
