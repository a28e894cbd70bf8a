"""Options of packets as columns: direction, whose packet it is, comments. One pass counts, another copies.

The compact comment that our writer adds is taken apart again; what remains are the comments of the file, one
a line, with further lines of the same comment behind a tab.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stratokit.formats.pcapng.blocks import (
    EPB_DROPCOUNT,
    EPB_FLAGS,
    EPB_PID_TID,
    EPB_PROCESS,
    OPT_COMMENT,
    OPT_END,
)
from stratokit.formats.pcapng.comment_fields import ANY, split_comment
from stratokit.kernels import kernel, routine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stratokit.formats.frames import FrameBatch

i64: Any = np.int64

HAS_FLAGS, HAS_DROPS, HAS_PID, HAS_PROCESS = 1, 2, 4, 8
NEWLINE, TAB = 10, 9
FOUND = np.dtype(
    [
        ("has", "u1"),
        ("flags", "<u4"),
        ("dropcount", "<u8"),
        ("pid", "<u4"),
        ("tid", "<u4"),
        ("process", "<u4"),
        ("comment_size", "<i8"),
    ],
    align=True,
)


@routine
def _number(data: np.ndarray, at: int, size: int, big: bool) -> Any:
    """An unsigned number of `size` bytes; the caller has checked that its bytes are there."""
    value = i64(0)
    for k in range(size):
        value = value << 8 | i64(data[at + k if big else at + size - 1 - k])
    return value


@routine
def _option(data: np.ndarray, code: int, at: int, length: int, big: bool, row: Any) -> None:
    """Take in the option whose value is data[at : at + length]."""
    if code == EPB_FLAGS and length == 4:
        row.has |= HAS_FLAGS
        row.flags = _number(data, at, 4, big)
    elif code == EPB_DROPCOUNT and length == 8:
        row.has |= HAS_DROPS
        row.dropcount = _number(data, at, 8, big)
    elif code == EPB_PID_TID and length == 8:
        row.has |= HAS_PID
        row.pid = _number(data, at, 4, big)
        row.tid = _number(data, at + 4, 4, big)
    elif code == EPB_PROCESS and length == 4:
        row.has |= HAS_PROCESS
        row.process = _number(data, at, 4, big)
    elif code == OPT_COMMENT:
        size = length + (row.comment_size > 0)  # a newline parts it from the comment before
        for k in range(at, at + length):
            size += data[k] == NEWLINE
        row.comment_size += size


@kernel
def _read(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, big: np.ndarray, rows: np.ndarray) -> None:
    for i in range(len(starts)):
        at = starts[i]
        while at + 4 <= ends[i]:
            code = _number(data, at, 2, big[i])
            length = _number(data, at + 2, 2, big[i])
            if code == OPT_END or at + 4 + length > ends[i]:
                break
            _option(data, code, at + 4, length, big[i], rows[i])
            at += 4 + (length + 3 & ~3)


@kernel
def _copy_comments(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    big: np.ndarray,
    out: np.ndarray,
    out_starts: np.ndarray,
) -> None:
    """Comments of each packet to `out` from out_starts[i] to out_starts[i + 1]; no more fits there."""
    for i in range(len(starts)):
        at, to = starts[i], out_starts[i]
        while at + 4 <= ends[i] and to < out_starts[i + 1]:
            code = _number(data, at, 2, big[i])
            length = _number(data, at + 2, 2, big[i])
            if code == OPT_COMMENT:
                if to > out_starts[i]:
                    out[to] = NEWLINE
                    to += 1
                for k in range(at + 4, at + 4 + length):
                    out[to] = data[k]
                    to += 1
                    if data[k] == NEWLINE:
                        out[to] = TAB
                        to += 1
            at += 4 + (length + 3 & ~3)


def _comments(batch: FrameBatch, found: np.ndarray) -> pa.Array:
    """Comments of each packet as one text, null where there is none."""
    ends = np.zeros(len(found) + 1, np.int64)
    np.cumsum(found["comment_size"], out=ends[1:])
    text = np.empty(int(ends[-1]), np.uint8)
    _copy_comments(batch.data, batch.options_at, batch.options_end, batch.big, text, ends)
    none = np.packbits(found["comment_size"] > 0, bitorder="little")
    buffers = [pa.py_buffer(none), pa.py_buffer(ends), pa.py_buffer(text)]
    comments = pa.Array.from_buffers(pa.large_string(), len(found), buffers)
    try:
        comments.validate(full=True)
    except pa.ArrowInvalid:  # other encodings; such files are few
        raw = comments.view(pa.large_binary()).to_pylist()
        comments = pa.array(
            [None if v is None else v.decode("utf-8", "replace") for v in raw], pa.large_string()
        )
    return comments


def packet_options(batch: FrameBatch, processes: Sequence[tuple[int, str]]) -> dict[str, pa.Array]:
    """Columns that the options of the packets fill; `processes` are those the reader has met so far.

    Beside columns of schemas/capture.toml there is `dropcount`, packets lost before this one.
    """
    found = np.zeros(len(batch.offsets), FOUND)
    _read(batch.data, batch.options_at, batch.options_end, batch.big, found)
    has = found["has"]
    direction = found["flags"] & 3
    columns: dict[str, pa.Array] = {
        "direction": pa.DictionaryArray.from_arrays(
            pa.array((direction == 2).astype(np.int32), mask=(direction != 1) & (direction != 2)),
            ["in", "out"],
        ),
        "dropcount": pa.array(found["dropcount"], mask=(has & HAS_DROPS) == 0),
    }
    known = np.zeros(len(processes) + 1, np.uint32)
    known[:-1] = [pid for pid, _ in processes]
    process = found["process"].astype(np.int64)
    if batch.processes is not None:
        first, end = batch.processes.T
        process = np.where(process < end - first, process + first, len(processes))
    process = np.minimum(process, len(processes))
    named = ((has & HAS_PROCESS) != 0) & (process < len(processes))
    own = (has & HAS_PID) != 0
    columns["pid"] = pa.array(np.where(own, found["pid"], known[process]), mask=~(own | named))
    columns["tid"] = pa.array(found["tid"], mask=~own | (found["tid"] == 0))
    columns["comm"] = pa.DictionaryArray.from_arrays(
        pa.array(process.astype(np.int32), mask=~named),
        pa.array([name for _, name in processes], pa.string()),
    )
    return {**columns, **_from_comments(_comments(batch, found), columns)}


def _from_comments(comments: pa.Array, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Take comments apart, once per distinct text; they fill what the options left open."""
    coded = comments.dictionary_encode()
    telling = pc.match_substring_regex(coded.dictionary, ANY)
    numbers = np.flatnonzero(telling.to_numpy(zero_copy_only=False))
    split = [split_comment(text) for text in coded.dictionary.take(pa.array(numbers)).to_pylist()]
    # From a row to its entry in `split`.
    place = np.full(len(coded.dictionary) + 1, -1, np.int64)
    place[numbers] = np.arange(len(numbers))
    rows = place[coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False)]
    index = pa.array(rows, mask=rows < 0)

    def column(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(index)

    def field(name: str) -> list[str | None]:
        return [fields.get(name) for fields, _ in split]

    def number(name: str) -> pa.Array:
        values = (int(text) if text and text.isdecimal() else 0 for text in field(name))
        return column([value if 0 < value < 1 << 32 else None for value in values], pa.uint32())

    rest = column([rest for _, rest in split], pa.large_string())
    return {
        "pid": pc.coalesce(columns["pid"], number("pid")),
        "tid": pc.coalesce(columns["tid"], number("tid")),
        "comm": pc.coalesce(columns["comm"].cast(pa.string()), column(field("comm"), pa.string())),
        "container_id": column(field("ctr"), pa.string()),
        "pod": column(field("pod"), pa.string()),
        "namespace": column(field("namespace"), pa.string()),
        "comment": pc.if_else(pc.is_valid(index), rest, comments).cast(pa.string()),
    }
