"""The packets that a pass over streams is made of: TCP segments, and others that are wanted beside them.

Of files that are mapped, rows are chosen window by window and hold the address of their payload: nothing is
copied. Of other captures polars chooses them. Conditions are expressions on columns of packets and on `lead`,
the first bytes of the payload as numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.kernels import kernel
from stratokit.schema import load
from stratokit.streams.flows import FIN, SYN, TCP
from stratokit.streams.memory import Bytes, at_addresses, copy_bytes, parts_of
from stratokit.streams.sides import GREATER, SIDE_COLUMNS, column, sender_is_greater
from stratokit.streams.source import POLARS_TYPES, packet_bytes, payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stratokit.streams.source import PacketSource

# Who sent a packet, and when and where it was seen, for what is told about its messages.
SEEN = ("dst_ip", "pid", "comm", "pod", "namespace", "container_id")
READ = tuple(dict.fromkeys((*sorted({*SIDE_COLUMNS, "frame", "ts", "tcp_seq", "payload_len"}), *SEEN)))
# All segments of a batch are in memory at once: texts that few packets differ in are numbers there.
_TEXTS = frozenset(("direction", "src_ip", *SEEN)) - {"pid"}
_PLACE = ("payload_address", "payload_captured")
_LEAD, _LEAD_BYTES = "payload_head", 8  # see dissect.payloads

_IS_TCP = pl.col("ip_proto") == TCP
# Segments without payload or SYN or FIN say nothing about bytes.
_MATTERS = (pl.col("payload_len") > 0) | (pl.col("tcp_flags") & (SYN | FIN) != 0)
IN_FLOW = pl.col("flow_id").is_not_null()
SEGMENTS = IN_FLOW & _IS_TCP & _MATTERS
_OTHERS = IN_FLOW & ~_IS_TCP & (pl.col("payload_len") > 0)
_NONE = pl.lit(value=False)
DTYPES: dict[str, Any] = {
    found.name: pl.Categorical() if found.name in _TEXTS else POLARS_TYPES[found.type]
    for found in load.capture().of_kind("packet")
    if found.name in READ
}


def lead(size: int, at: int = 0) -> pl.Expr:
    """`size` bytes of the payload from `at` on, in network order as one number; zeros where none are."""
    shift = 8 * (_LEAD_BYTES - at - size)
    return pl.col(_LEAD) // (1 << shift) & ((1 << 8 * size) - 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Some packets with the columns READ and GREATER, in capture order.

    Segments have _PLACE, valid as long as `memory` is kept; others their bytes in `payload`, and what `lead`
    looks at.
    """

    segments: pl.DataFrame
    others: pl.DataFrame
    memory: Any


def parts(capture: PacketSource, segments: pl.Expr, others: pl.Expr | None = None) -> Iterator[Part] | None:
    """Segments and other packets for which the conditions are true, window by window.

    None where bytes of packets do not stay in mapped files.
    """
    windows = getattr(capture, "packet_windows", None)
    found = windows({*READ, *_PLACE, _LEAD}) if windows is not None else None
    return None if found is None else _chosen(found, segments, _NONE if others is None else others)


def _chosen(windows: Any, segments: pl.Expr, others: pl.Expr) -> Iterator[Part]:
    with contextlib.closing(windows):
        for columns, memory in windows:
            numbers = _numbers(columns)
            marks = numbers.select(
                segments=(SEGMENTS & segments).fill_null(value=False),
                others=(_OTHERS & others).fill_null(value=False),
            )
            mine = _rows(numbers.drop(_LEAD), columns, marks["segments"])
            beside = _rows(numbers, columns, marks["others"])
            if mine.height or beside.height:
                others_too = beside.drop(_PLACE).with_columns(_copied(beside))
                yield Part(mine, others_too, memory if mine.height else None)


def _numbers(columns: dict[str, pa.Array]) -> pl.DataFrame:
    names = (*(name for name in READ if name not in _TEXTS), *_PLACE, _LEAD)
    return pl.DataFrame({name: _series(name, columns[name]) for name in names if name in columns})


def _series(name: str, values: pa.Array) -> pl.Series:
    dtype = DTYPES.get(name)
    found = pl.Series(name, values)
    return found if dtype is None or found.dtype == dtype else found.cast(dtype)


def _rows(numbers: pl.DataFrame, columns: dict[str, pa.Array], mark: pl.Series) -> pl.DataFrame:
    """The rows that `mark` chooses; columns without values are left out."""
    rows = numbers.filter(mark)
    texts = []
    for name in _TEXTS & columns.keys():
        values = columns[name]
        if values.null_count == len(values):
            continue
        if isinstance(values, pa.DictionaryArray):
            known = pl.Series(name, values.dictionary.cast(pa.large_string())).cast(pl.Categorical)
            texts.append(known.gather(pl.Series(values.indices).filter(mark)).alias(name))
        else:
            texts.append(pl.Series(name, values).filter(mark).cast(pl.Categorical))
    rows = rows.hstack(texts)
    return rows.with_columns(_greater(rows))


def _greater(rows: pl.DataFrame) -> pl.Series:
    """As `sender_is_greater`; addresses are only looked at where ports are the same."""
    if rows["src_port"].ne_missing(rows["dst_port"]).all():
        greater = pl.col("src_port") > pl.col("dst_port")
        return rows.select(greater.fill_null(value=False).alias(GREATER)).to_series()
    ends = rows.select("src_port", "dst_port", pl.col("src_ip", "dst_ip").cast(pl.String))
    return ends.select(sender_is_greater()).to_series()


@kernel
def _copy(data: np.ndarray, start: np.ndarray, bounds: np.ndarray, out: np.ndarray) -> None:
    for i in range(start.size):
        copy_bytes(out, bounds[i], data, start[i], bounds[i + 1] - bounds[i])


def _copied(rows: pl.DataFrame) -> pl.Series:
    """What was captured of the payload of each row."""
    address, size = (column(rows, name, np.int64) for name in _PLACE)
    bytes_ = at_addresses(address, size, None)
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(bytes_.size)])
    out = np.empty(int(bounds[-1]), np.uint8)
    _copy(bytes_.data, bytes_.start, bounds, out)
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(out)]
    return pl.Series("payload", pa.Array.from_buffers(pa.large_binary(), rows.height, buffers))


def joined(frames: list[pl.DataFrame], **more: Any) -> pl.DataFrame:
    """Rows of all windows; columns that no packet fills are null, as are those of `more` (name and type)."""
    found = pl.concat(frames, how="diagonal", rechunk=False) if frames else pl.DataFrame()
    dtypes = DTYPES | more
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in dtypes.items() if name not in found.columns]
    return found.with_columns(missing) if frames else found.with_columns(missing).clear()


def others_of(parts: Iterable[Part]) -> pl.DataFrame:
    """Other packets of all windows, with `payload`."""
    found = [part.others for part in parts if part.others.height]
    return joined(found, payload=pl.Binary(), **{_LEAD: pl.UInt64()}).drop(GREATER, strict=False)


def segments_of(parts: list[Part]) -> tuple[pl.DataFrame, Bytes]:
    """Segments of all windows, and where the payload of each stands."""
    frames = [part.segments for part in parts if part.segments.height]
    found = joined(frames, **{GREATER: pl.Boolean()}, **dict.fromkeys(_PLACE, pl.Int64()))
    address, size = (column(found, name, np.int64) for name in _PLACE)
    return found.drop(_PLACE), at_addresses(address, size, [part.memory for part in parts])


# The same of other captures, whose bytes are in memory.
_COLUMNS = tuple(pl.col(name).cast(pl.Categorical) if name in _TEXTS else pl.col(name) for name in READ)
WITH_BYTES = (*_COLUMNS, sender_is_greater(), pl.col("data", "datagram", "payload_offset"))
WITH_PAYLOAD = (*_COLUMNS, payload().fill_null(b"").alias("payload"), pl.col(_LEAD))


def rows(capture: PacketSource, segments: pl.Expr, others: pl.Expr | None, *, inside: bool) -> pl.LazyFrame:
    """Packets for which one of the conditions is true; `inside`: they look at `lead`."""
    may = SEGMENTS if others is None else SEGMENTS | _OTHERS  # without a look at bytes
    found = capture.rows("packet").filter(may)
    if inside:
        begin = (payload(0, pl.lit(_LEAD_BYTES)).fill_null(b"") + pl.lit(bytes(_LEAD_BYTES))).bin
        number = begin.slice(0, _LEAD_BYTES).bin.reinterpret(dtype=pl.UInt64, endianness="big")
        found = found.with_columns(number.alias(_LEAD))
    either = SEGMENTS & segments
    return found.filter(either if others is None else either | _OTHERS & others)


def payload_of(packets: pl.DataFrame) -> Bytes:
    """Where the payload of rows WITH_BYTES stands."""
    offset, length = (column(packets, name, np.int64) for name in ("payload_offset", "payload_len"))
    return parts_of(packet_bytes(packets), offset, length)
