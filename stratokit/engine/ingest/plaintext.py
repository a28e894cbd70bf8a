"""Rows of kind `plaintext` from a window of kernel records: what programs gave to and got from OpenSSL.

OpenSSL writes records of 16 KiB and one of the rest, each with the same number of bytes around it. So of a
written piece it is known where its ciphertext ends, from where the whole call began and ended in the stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from stratokit.engine.ingest.texts import text
from stratokit.formats import events
from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.ingest.packets import Context
    from stratokit.engine.ingest.survey import Survey
    from stratokit.formats.events import Batch

READ, WRITTEN = 1, 2
_BEGAN, _PLACED, _LAST = 1, 2, 4
_RECORD_BYTES = 1 << 14  # RFC 8446 section 5.1
_ENDS = ("local_ip", "local_port", "remote_ip", "remote_port")


class Plaintext:
    """Turns windows of records into rows."""

    def __init__(self, found: Survey, context: Context, sockets: pl.DataFrame) -> None:
        """`sockets`: rows of kind `socket`, by which cookies become addresses."""
        self._clock = found.clock
        self._context = context
        last = sockets.filter(pl.col("dst_port") > 0).sort("ts").group_by("socket_cookie").last()
        columns = zip(("src_ip", "src_port", "dst_ip", "dst_port"), _ENDS, strict=True)
        self._ends = last.select("socket_cookie", *(pl.col(old).alias(new) for old, new in columns))

    def rows(self, batch: Batch) -> pa.Table:
        """Rows of one window, sorted by the starts of calls."""
        order = np.argsort(batch.fixed["ts_ns"], kind="stable")
        fixed = batch.fixed[order]
        start, length = (part[order] for part in batch.sections["data"])
        data, offsets = events.gather(batch.data, start, length)
        written = pl.Series(fixed["what"] == WRITTEN)
        whole_bytes = np.where(fixed["flags"] & _LAST, fixed["moved_bytes"] - fixed["at_bytes"], length)
        cookie = pl.Series(fixed["socket_cookie"])
        frame = pl.DataFrame(
            {
                "ts": pl.Series(self._clock.utc_ns(fixed["ts_ns"]), dtype=pl.Int64),
                "pid": fixed["pid"],
                "tid": fixed["tid"],
                "comm": text(pl.Series(fixed["comm"], dtype=pl.Binary)),
                "socket_cookie": pl.select(pl.when(cookie != 0).then(cookie)).to_series(),
                "direction": pl.select(
                    pl.when(written).then(pl.lit("out")).otherwise(pl.lit("in"))
                ).to_series(),
                "duration_ns": fixed["duration_ns"],
                "orig_len": pl.Series(whole_bytes, dtype=pl.UInt32),
                "cap_len": pl.Series(length, dtype=pl.UInt32),
                "tls_session": fixed["session"],
                "tls_began": fixed["flags"] & _BEGAN != 0,
                "tls_position": fixed["position"],
                "cipher_next_seq": _next_seq(fixed, whole_bytes),
            }
        )
        frame = frame.join(self._ends, on="socket_cookie", how="left", maintain_order="left")
        local, remote = _ENDS[:2], _ENDS[2:]
        out = pl.col("direction") == "out"
        frame = self._context.process(frame).with_columns(
            pl.from_epoch("ts", time_unit="ns").dt.replace_time_zone("UTC"),
            *(
                pl.when(out).then(sender).otherwise(receiver).alias(f"{end}_{name}")
                for end, senders, receivers in (("src", local, remote), ("dst", remote, local))
                for name, sender, receiver in zip(("ip", "port"), senders, receivers, strict=True)
            ),
        )
        names = [
            column.name for column in load.capture().of_kind("plaintext") if column.name in frame.columns
        ]
        table = frame.select(names).to_arrow()
        bytes_ = pa.Array.from_buffers(
            pa.large_binary(), length.size, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        )
        return table.append_column("data", bytes_)


def _next_seq(fixed: Any, whole_bytes: Any) -> pl.Series:
    """Behind the ciphertext of each piece: of a read, of the record; of a write, of its own record."""
    moved, at = fixed["moved_bytes"].astype(np.int64), fixed["at_bytes"].astype(np.int64)
    cipher = (fixed["next_seq"] - fixed["first_seq"]).astype(np.int64)  # unsigned, as numbers wrap around
    records = np.maximum(-(-moved // _RECORD_BYTES), 1)
    around = (cipher - moved) // records
    even = (cipher > moved) & ((cipher - moved) % records == 0) & (fixed["what"] == WRITTEN)
    end = at + whole_bytes.astype(np.int64)
    own = end + np.minimum(at // _RECORD_BYTES + 1, records) * around
    own = np.where(end == moved, cipher, own)
    behind = np.where(even, fixed["first_seq"].astype(np.int64) + own, fixed["next_seq"]) & 0xFFFFFFFF
    known = pl.Series(fixed["flags"] & _PLACED != 0)
    values = pl.Series(behind, dtype=pl.Int64).cast(pl.UInt32)
    return pl.select(pl.when(known).then(values)).to_series()
