"""What the tables of `streams` and `protocols` are built from, and how rows take their declared form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

    from stratokit.schema.tables import Table

POLARS_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "u8": pl.UInt8,
    "u16": pl.UInt16,
    "u32": pl.UInt32,
    "u64": pl.UInt64,
    "s32": pl.Int32,
    "s64": pl.Int64,
    "f64": pl.Float64,
    "bool": pl.Boolean,
    "text": pl.String,
    "name": pl.Categorical,
    "bytes": pl.Binary,
    "time": pl.Datetime("ns", "UTC"),
    "list<text>": pl.List(pl.String),
}


class PacketSource(Protocol):
    """Anything with rows of packets: a capture, or a test's stand-in."""

    def rows(self, kind: str) -> pl.LazyFrame:
        """Rows of one kind with the columns that schemas/capture.toml gives it, in capture order."""
        ...


def payload(offset: pl.Expr | int = 0, length: pl.Expr | None = None) -> pl.Expr:
    """What was captured of the transport layer's payload, or some bytes of it: of a packet that came in
    fragments they are in the one that was put together.
    """
    at, size = pl.col("payload_offset") + offset, pl.col("payload_len") if length is None else length
    return pl.coalesce(*(pl.col(name).bin.slice(at, size) for name in ("datagram", "data")))


def packet_bytes(packets: pl.DataFrame) -> pl.Series:
    """The bytes that payload_offset counts in, without a copy where no packet came in fragments."""
    if "datagram" not in packets.columns or packets["datagram"].null_count() == packets.height:
        return packets["data"]
    return packets.select(pl.coalesce("datagram", "data")).to_series()


def with_room(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with `data` and `payload_offset` for `memory.parts_of`, which does not see values of up to 12
    bytes: such get room in front. Packets of the network have headers there.
    """
    short = pl.col("data").bin.size() <= 12
    return rows.with_columns(
        data=pl.when(short).then(pl.lit(bytes(16)) + pl.col("data")).otherwise("data"),
        payload_offset=pl.when(short).then(pl.col("payload_offset") + 16).otherwise("payload_offset"),
    )


def frame_schema(table: Table) -> pl.Schema:
    """Column names and polars types of a declared table."""
    return pl.Schema({column.name: POLARS_TYPES[column.type] for column in table.columns})


def shaped(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """`frame` with exactly the columns of `schema`, in order and in type; what it lacks is null."""
    exprs = []
    for name, dtype in schema.items():
        column = pl.col(name) if name in frame.columns else pl.lit(None)
        exprs.append(column.cast(dtype).alias(name))
    return frame.select(exprs)


def deferred(schema: pl.Schema, build: Callable[[], pl.DataFrame], *, kept: bool = True) -> pl.LazyFrame:
    """A LazyFrame of `schema` whose rows are made when it is first collected, and kept from then on.

    Two threads that ask at once both make them. A lock would be worse: a thread of polars that waits inside
    of what it computes takes up other work meanwhile, which may ask for the same rows.
    """
    made: list[pl.DataFrame] = []

    def rows() -> pl.DataFrame:
        if made:
            return made[0]
        found = shaped(build(), schema)
        if kept and not made:
            made.append(found)
        return found

    frame: pl.LazyFrame = pl.defer(rows, schema=schema)
    return frame
