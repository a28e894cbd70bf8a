"""Two sightings of one packet: out of the sending socket, in to the receiving one. Both get one frame number.

The k-th sighting `in` of equal bytes belongs to the k-th sighting `out`. Bytes are compared by a hash that
leaves out what changes on the way: time to live and IP checksum, and the transport checksum, which offloading
fills in late.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from stratokit.kernels import kernel, routine

# A packet is looked for among those sent at most this long before.
CARRY_NS = 5_000_000_000
_SEED = np.uint64(0x9E3779B97F4A7C15)


@routine
def _hash(data: np.ndarray, start: int, length: int) -> np.uint64:
    """64-bit hash of an IP packet; bytes that change on the way count as zero."""
    version = data[start] >> 4 if length > 0 else 0
    skip_ttl, skip_sum, transport, proto = -1, -1, 0, 0
    if version == 4 and length >= 20:
        skip_ttl, skip_sum = 8, 10
        transport, proto = (data[start] & 15) * 4, data[start + 9]
    elif version == 6 and length >= 40:
        skip_ttl = 7
        transport, proto = 40, data[start + 6]
    check = transport + 16 if proto == 6 else transport + 6 if proto == 17 else -2
    value = _SEED ^ np.uint64(length)
    word = np.uint64(0)
    for i in range(length):
        byte = np.uint64(data[start + i])
        if i < 96 and i in (skip_ttl, skip_sum, skip_sum + 1, check, check + 1):
            byte = np.uint64(0)
        word |= byte << np.uint64((i & 7) * 8)
        if i & 7 == 7 or i == length - 1:
            value = (value ^ word) * np.uint64(0xFF51AFD7ED558CCD)
            value ^= value >> np.uint64(32)
            word = np.uint64(0)
    return value


@kernel
def _hashes(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray, out: np.ndarray) -> None:
    for i in range(starts.size):
        out[i] = _hash(data, starts[i], lengths[i])


def packet_hashes(data: Any, starts: Any, lengths: Any) -> Any:
    """Hash of every packet (u64); packets start at their IP header."""
    out = np.empty(starts.size, np.uint64)
    _hashes(data, starts.astype(np.int64), lengths.astype(np.int64), out)
    return out


class Sightings:
    """Numbers packets from 1 in time order, window by window."""

    def __init__(self) -> None:
        self._next = 1
        self._open = pl.DataFrame(schema={"hash": pl.UInt64, "ts": pl.Int64, "frame": pl.UInt64})

    def number(self, hashes: Any, ts: Any, outgoing: Any) -> pl.Series:
        """Frame numbers of a window's packets, which are sorted by time."""
        rows = pl.DataFrame({"hash": hashes, "ts": ts, "out": outgoing}).with_row_index("row")
        sent = pl.concat(
            [
                self._open.with_columns(pl.lit(None, pl.UInt32).alias("row")),
                rows.filter("out").select("hash", "ts", pl.lit(None, pl.UInt64).alias("frame"), "row"),
            ]
        ).with_columns(pl.col("hash").cum_count().over("hash").alias("nth"))
        came = rows.filter(~pl.col("out")).with_columns(pl.col("hash").cum_count().over("hash").alias("nth"))
        pairs = came.join(sent, on=["hash", "nth"], suffix="_sent").filter(
            pl.col("ts") >= pl.col("ts_sent"), pl.col("ts") - pl.col("ts_sent") <= CARRY_NS
        )
        twin = rows.select("row").join(
            pairs.select("row", "frame", "row_sent"), on="row", how="left", maintain_order="left"
        )
        new = twin["row_sent"].is_null() & twin["frame"].is_null()
        own = (new.cum_sum() + (self._next - 1)).cast(pl.UInt64)
        self._next += int(new.sum())
        frames = twin.select(
            pl.coalesce("frame", pl.when(new).then(own).otherwise(own.gather(twin["row_sent"].fill_null(0))))
        ).to_series()
        self._remember(sent, pairs, frames, ts)
        return frames

    def _remember(self, sent: pl.DataFrame, pairs: pl.DataFrame, frames: pl.Series, ts: Any) -> None:
        if not len(ts):
            return
        left = sent.join(pairs.select("hash", "nth"), on=["hash", "nth"], how="anti").filter(
            pl.col("ts") >= int(ts[-1]) - CARRY_NS
        )
        number = frames.gather(left["row"].fill_null(0))
        self._open = left.select("hash", "ts", pl.coalesce("frame", number).alias("frame")).sort("ts")
