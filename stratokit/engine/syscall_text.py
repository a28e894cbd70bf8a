"""The `args` column of system calls: `dirfd=AT_FDCWD, path="/etc/hosts", flags=O_RDONLY|O_CLOEXEC`.

What each argument means stands in schemas/syscalls/calls.toml. Rows are taken together by call, so that the
work is a few column operations for each call that occurs, and none for rows that nobody looks at.
"""

from __future__ import annotations

import functools

import numpy as np
import polars as pl

from stratokit.engine.syscall_flags import CREATES, NAMED
from stratokit.schema import load
from stratokit.schema.model import Syscall

_NUMBERS = tuple(f"arg{i}" for i in range(6))
_INPUTS = ("syscall", *_NUMBERS, "path", "path2", "dst_ip", "dst_port", "data", "ret", "fd", "fd2")
_AT_FDCWD = (1 << 32) - 100
# A C int is 32 bits wide in its register; these arguments of kind int are off_t or size_t.
_WIDE = frozenset(("offset", "length", "len", "count", "nbytes", "pos_l"))
_DATA_KINDS = frozenset(
    ("buffer_in", "buffer_out", "iovec_in", "iovec_out", "msghdr_in", "msghdr_out"),
)
_TEXT_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def arguments() -> pl.Expr:
    """The text of all arguments, over rows of kind syscall."""
    return pl.struct(_INPUTS).map_batches(_texts, return_dtype=pl.String, is_elementwise=True)


@functools.cache
def _calls() -> dict[str, Syscall]:
    # What an argument means depends on the call's name alone, and this list has all names.
    return {call.name: call for call in load.syscalls("x86_64").values()}


def _texts(rows: pl.Series) -> pl.Series:
    frame = rows.struct.unnest().with_row_index("row")
    done = [pl.DataFrame(schema={"row": pl.UInt32, "args": pl.String})]
    for (name,), part in frame.group_by("syscall"):
        call = _calls().get(str(name))
        pairs = call.args if call else tuple((f"arg{i}", "hex") for i in range(6))
        done.append(part.select("row", _call(part, pairs).alias("args")))
    return pl.concat(done).sort("row")["args"]


def _call(part: pl.DataFrame, pairs: tuple[tuple[str, str], ...]) -> pl.Series:
    pieces = []
    paths = iter(("path", "path2"))
    kinds = [kind for _, kind in pairs]
    for index, (name, kind) in enumerate(pairs):
        number = part[_NUMBERS[index]]
        if kind == "path":
            text = _path(part[next(paths, "path2")], number)
        elif kind in {"sockaddr", "sockaddr_out"}:
            text = _address(part, number)
        elif kind == "fds_out":
            text = _or_pointer(part.select(pl.format("[{}, {}]", "fd", "fd2")).to_series(), number)
        elif kind in _DATA_KINDS:
            length = part[_NUMBERS[index + 1]] if kind == "buffer_in" else part["ret"]
            text = _data(part["data"], number, length)
        else:
            text = _number(number, name, kind)
        piece = pl.select(
            pl.lit(", " if index else "") + pl.lit(f"{name}=") + text.fill_null("?")
        ).to_series()
        if kind == "octal" and index and kinds[index - 1] == "open_flags":
            creates = (part[_NUMBERS[index - 1]] & CREATES) != 0
            piece = piece.set(~creates.fill_null(value=True), "")
        pieces.append(piece.alias(str(index)))
    if not pieces:
        return pl.Series([""]).new_from_index(0, part.height)
    return pl.DataFrame(pieces).select(pl.concat_str(pl.all())).to_series()


def _number(number: pl.Series, name: str, kind: str) -> pl.Series:
    if kind in NAMED:
        distinct = number.unique().drop_nulls()
        return number.replace_strict(
            distinct,
            [NAMED[kind](value) for value in distinct.to_list()],
            return_dtype=pl.String,
            default=None,
        )
    if kind in {"fd", "dirfd", "pid"} or (kind == "int" and name not in _WIDE):
        text = _int32(number).cast(pl.String)
        return text.set((number & 0xFFFFFFFF) == _AT_FDCWD, "AT_FDCWD") if kind == "dirfd" else text
    if kind == "int":
        return number.reinterpret(signed=True).cast(pl.String)
    if kind == "uint":
        return number.cast(pl.String)
    text = _hex(number)
    return text.set(number == 0, "NULL") if kind == "pointer" else text


def _int32(number: pl.Series) -> pl.Series:
    low = number & 0xFFFFFFFF
    return low.cast(pl.Int64) - (low >= 1 << 31).cast(pl.Int64) * (1 << 32)


def _hex(number: pl.Series) -> pl.Series:
    """0x text of a whole column at once."""
    raw = number.fill_null(0).to_numpy().astype(">u8")
    ends = np.arange(len(raw) + 1, dtype=np.int64) * 8
    digits = _binary(raw.view(np.uint8), ends).bin.encode("hex").str.strip_chars_start("0")
    text = pl.select("0x" + digits.set(digits == "", "0")).to_series()
    return text.set(number.is_null(), None)


def _binary(data: np.ndarray, ends: np.ndarray) -> pl.Series:
    import pyarrow as pa

    buffers = [None, pa.py_buffer(np.ascontiguousarray(ends)), pa.py_buffer(np.ascontiguousarray(data))]
    return pl.Series(pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, buffers))


def _or_pointer(text: pl.Series, number: pl.Series) -> pl.Series:
    """`text` where it was read, else the address that the call was given."""
    return text.fill_null(_number(number, "", "pointer")) if text.null_count() else text


def _path(path: pl.Series, number: pl.Series) -> pl.Series:
    escaped = path.str.replace_many(list(_TEXT_ESCAPES), list(_TEXT_ESCAPES.values()))
    return _or_pointer(pl.select('"' + escaped + '"').to_series(), number)


def _address(part: pl.DataFrame, number: pl.Series) -> pl.Series:
    ip, port = pl.col("dst_ip"), pl.col("dst_port")
    host = pl.when(ip.str.contains(":", literal=True)).then("[" + ip + "]").otherwise(ip)
    return _or_pointer(part.select(host + pl.format(":{}", port)).to_series(), number)


def _data(data: pl.Series, number: pl.Series, length: pl.Series) -> pl.Series:
    more = length.cast(pl.Int64, strict=False) > data.bin.size().cast(pl.Int64)
    text = pl.select(
        '"'
        + _escaped(data)
        + pl.when(more.fill_null(value=False)).then(pl.lit('"...')).otherwise(pl.lit('"'))
    )
    return _or_pointer(text.to_series(), number)


@functools.cache
def _escapes() -> tuple[np.ndarray, np.ndarray]:
    """For each byte its escaped spelling in 4 columns, and the length of that."""
    short = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
    texts = [short.get(b, chr(b) if 0x20 <= b < 0x7F else f"\\x{b:02x}").encode() for b in range(256)]
    spelled = np.frombuffer(b"".join(text.ljust(4) for text in texts), np.uint8).reshape(256, 4)
    return spelled, np.array([len(text) for text in texts], np.int64)


def _escaped(data: pl.Series) -> pl.Series:
    """Bytes as text that a terminal shows safely, all rows at once."""
    spelled, lengths = _escapes()
    sizes = data.bin.size().fill_null(0).to_numpy().astype(np.int64)
    flat = np.frombuffer(b"".join(data.drop_nulls().to_list()), np.uint8)
    ends = np.concatenate([[0], np.cumsum(lengths[flat])])
    out = np.empty(ends[-1], np.uint8)
    for column in range(4):
        long = lengths[flat] > column
        out[ends[:-1][long] + column] = spelled[flat[long], column]
    row_ends = ends[np.concatenate([[0], np.cumsum(sizes)])]
    text = _binary(out, row_ends).cast(pl.String)
    return text.set(data.is_null(), None)
