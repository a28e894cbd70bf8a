"""Rows of a capture, each kind without what a redaction takes away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.engine.redact import frames, metadata
from stratokit.engine.redact.addresses import PrefixHash
from stratokit.engine.redact.streams import Hidden, hidden_of
from stratokit.engine.writing import metadata_of
from stratokit.formats import events
from stratokit.formats.parquet import CaptureWriter
from stratokit.kernels import kernel
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stratokit.engine.capture import Capture
    from stratokit.engine.redact import Redaction

_BATCH_ROWS = 1 << 17
# Text that others wrote into the capture, and addresses of devices.
_DROPPED = ("comment", "packet_options", "interface_info", "mac", "datagram", "cmdline")
_TEXTS = ("text", "name")


@kernel
def _hide(data: np.ndarray, start: np.ndarray, size: np.ndarray, filler: int) -> None:
    for k in range(start.size):
        data[start[k] : start[k] + size[k]] = filler


def write_redacted(
    capture: Capture, output: Path, how: Redaction, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a capture.parquet with the rows of `capture` as `how` lets them be seen."""
    writing = _Rows(how, hidden_of(capture, how))
    kinds = sorted({kind for file in capture.files for kind in file.rows})
    total = sum(sum(file.rows.values()) for file in capture.files)
    done = 0
    with CaptureWriter(output, metadata(metadata_of(capture), how)) as writer:
        for kind in kinds:
            first = 0
            rows = capture.rows(kind).drop("kind", strict=False)
            for frame in rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True):
                writer.write(kind, writing.redacted(kind, frame, first))
                first += frame.height
                done += frame.height
                if progress:
                    progress(done, max(total, 1))


class _Rows:
    def __init__(self, how: Redaction, hidden: dict[str, Hidden]) -> None:
        self._how = how
        self._hidden = hidden
        self._hashing = PrefixHash(how.key) if "addresses" in how.profiles else None
        self._texts = {c.name for c in load.capture().columns if c.type in _TEXTS} - {"kind"}

    def redacted(self, kind: str, frame: pl.DataFrame, first: int) -> pa.Table:
        """Rows of one kind, of which the first has the number `first`."""
        named = [name for name in _DROPPED if name in frame.columns]
        frame = frame.with_columns(pl.lit(None, frame.schema[name]).alias(name) for name in named)
        if self._how.profiles == ("arguments",):
            return frame.to_arrow()
        if self._hashing is not None:
            frame = self._without_addresses(frame, self._hashing)
        if kind == "packet":
            return self._packets(frame, first)
        if kind == "plaintext":
            return self._plaintext(frame, first)
        # Of a scap file's other events nobody knows what their texts are.
        texts = ("data", "path", "path2") if kind == "event" else ("data",)
        gone = [name for name in texts if name in frame.columns]
        frame = frame.with_columns(pl.lit(None, frame.schema[name]).alias(name) for name in gone)
        return frame.to_arrow()

    def _without_addresses(self, frame: pl.DataFrame, hashing: PrefixHash) -> pl.DataFrame:
        changed = []
        for name in frame.columns:
            if name == "addresses":
                known = frame[name].explode().drop_nulls().unique().cast(pl.String)
            elif name in self._texts:
                known = frame[name].drop_nulls().unique().cast(pl.String)
            else:
                continue
            new = {text: hashed for text in known if (hashed := hashing.text(text)) != text}
            if not new:
                continue
            if name == "addresses":
                changed.append(pl.col(name).list.eval(pl.element().replace(new)))
            else:
                changed.append(pl.col(name).cast(pl.String).replace(new))
        return frame.with_columns(changed)

    def _packets(self, frame: pl.DataFrame, first: int) -> pa.Table:
        data, offsets = _bytes(frame["data"])
        start, size = offsets[:-1], np.diff(offsets)
        links = frame["link_type"].fill_null(-1).to_numpy()
        found = frames.headers(data, start, size, links)
        keep = size
        if self._how.cuts:
            is_arp = found[:, frames.VERSION] == 1
            keep = np.where(is_arp & (self._hashing is None), size, found[:, frames.KEEP])
        elif (hidden := self._hidden.get("packet")) is not None:
            rows, begin, length = hidden.within(first, frame.height)
            _hide(data, start[rows] + begin, length, hidden.filler)
            whole = hidden.whole[first : first + frame.height] | (found[:, frames.VERSION] == 1)
            # Behind a payload the link layer may have put what was in a buffer.
            end = frame.select(pl.col("payload_offset") + pl.col("payload_len").fill_null(0)).to_series()
            ended = np.minimum(size, end.cast(pl.Int64).fill_null(1 << 62).to_numpy())
            keep = np.where(whole, ended, found[:, frames.KEEP])
        if self._hashing is not None:
            frames.hash_addresses(data, start, links, found, self._hashing)
        kept, bounds = events.gather(data, start, keep)
        table = frame.drop("data").with_columns(cap_len=pl.Series(keep, dtype=pl.UInt32)).to_arrow()
        return table.append_column("data", _column(kept, bounds))

    def _plaintext(self, frame: pl.DataFrame, first: int) -> pa.Table:
        data, offsets = _bytes(frame["data"])
        start, keep = offsets[:-1], np.diff(offsets)
        hidden = self._hidden.get("plaintext")
        if hidden is None:
            keep = np.zeros_like(keep)
        else:
            rows, begin, length = hidden.within(first, frame.height)
            _hide(data, start[rows] + begin, length, hidden.filler)
            keep = np.where(hidden.whole[first : first + frame.height], keep, 0)
        kept, bounds = events.gather(data, start, keep)
        table = frame.drop("data").with_columns(cap_len=pl.Series(keep, dtype=pl.UInt32)).to_arrow()
        return table.append_column("data", _column(kept, bounds))


def _bytes(column: pl.Series) -> tuple[Any, Any]:
    """Bytes of a column in one array of their own, and n + 1 offsets."""
    array = column.fill_null(b"").rechunk().to_arrow()
    _, offsets, data = array.cast(pa.large_binary()).buffers()
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    whole = np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]].copy()
    return whole, (bounds - bounds[0]).astype(np.int64)


def _column(data: Any, bounds: Any) -> pa.Array:
    return pa.Array.from_buffers(
        pa.large_binary(), bounds.size - 1, [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    )
