"""When programs read and wrote the bytes of sockets: system calls as places in streams and as datagrams.

The calls on a socket, added up, tell up to which byte of the stream it had been read or written. Where the
recording has a connection from its beginning that is exact. Of an older one the sum begins somewhere: a byte
cannot be read before it came, and was read at once at least one time, which tells where. A sum that the
packets contradict (a call that was lost, splice, io_uring) tells nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.latency import running
from stratokit.streams.sides import CLIENT

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture
    from stratokit.engine.latency.passing import Passing

_READS = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "splice")
_WRITES = ("write", "writev", "sendto", "sendmsg", "sendmmsg", "sendfile")
# These return a number of messages, so on a stream the sum of bytes is lost.
_SEVERAL = ("recvmmsg", "sendmmsg")
_PEEK = 2  # MSG_PEEK: what is read stays in the buffer
_FLAGS = {"recvfrom": "arg3", "recvmsg": "arg2"}


def socket_calls(capture: Capture) -> pl.DataFrame:
    """Calls that moved bytes of a socket: `socket_cookie`, `reads`, `begin` and `end` in ns, `size`, who."""
    peeks = pl.any_horizontal(
        (pl.col("syscall") == name) & (pl.col(flags) & _PEEK != 0) for name, flags in _FLAGS.items()
    )
    begin = pl.col("ts").to_physical()
    return (
        capture.rows("syscall")
        .filter(
            pl.col("socket_cookie").is_not_null(),
            pl.col("syscall").is_in((*_READS, *_WRITES)),
            pl.col("ret") > 0,
            pl.col("duration_ns").is_not_null(),
        )
        .filter(~peeks.fill_null(value=False))
        .select(
            "socket_cookie",
            "pid",
            "tid",
            reads=pl.col("syscall").is_in(_READS),
            begin=begin,
            end=begin + pl.col("duration_ns").cast(pl.Int64),
            size=pl.col("ret"),
            several=pl.col("syscall").is_in(_SEVERAL),
        )
        .collect()
    )


def on_streams(calls: pl.DataFrame, passing: Passing) -> pl.DataFrame:
    """Calls on TCP sockets: `flow_id`, `view`, `key` of the stream, and `position`, the byte behind."""
    unknown = calls.filter("several").select("socket_cookie", "reads").unique()
    known = calls.join(passing.sockets.with_row_index("socket"), on="socket_cookie")
    if not unknown.is_empty():
        known = known.join(unknown, on=["socket_cookie", "reads"], how="anti")
    # What a client writes, and what a server reads, are the client's bytes.
    from_client = (pl.col("view") == CLIENT) != pl.col("reads")
    known = known.select(
        "flow_id",
        "view",
        "reads",
        "pid",
        "tid",
        "size",
        key=running.stream_key(pl.col("view"), from_client),
        at=pl.when("reads").then("end").otherwise("begin"),
        of=pl.col("socket").cast(pl.Int64) * 2 + pl.col("reads"),
    ).sort("at", maintain_order=True)
    known = known.with_columns(running.sums(known["of"], known["size"]).alias("added")).drop("of", "size")
    base = pl.concat([_base_of_reads(known, passing), _base_of_writes(known, passing)])
    base = base.join(passing.began, on="key")
    zero = pl.lit(0, pl.Int64)
    fits = pl.when(pl.col("reads")).then(pl.col("base") >= 0).otherwise(pl.col("base") <= 0)
    base = base.select("key", base=pl.when(~pl.col("began")).then("base").when(fits).then(zero)).drop_nulls()
    return known.join(base, on="key").with_columns(position=pl.col("added") + pl.col("base"))


def _base_of_reads(calls: pl.DataFrame, passing: Passing) -> pl.DataFrame:
    """By how much all that had come exceeds all that was read, where that is least."""
    came = passing.bytes.select("key", "ts", came="position").sort("ts")
    return (
        calls.filter("reads")
        .select("key", "at", "added")
        .join_asof(came, left_on="at", right_on="ts", by="key", check_sortedness=False)
        .group_by("key")
        .agg(base=(pl.col("came").fill_null(0) - pl.col("added")).min(), reads=pl.lit(value=True))
    )


def _base_of_writes(calls: pl.DataFrame, passing: Passing) -> pl.DataFrame:
    """By how much what had left exceeds all that was written, where that is most."""
    written = calls.filter(~pl.col("reads")).select("key", "at", "added")
    return (
        passing.bytes.filter(running.at_sender(pl.col("key")))
        .join(written.select("key").unique(), on="key", how="semi")
        .sort("ts")
        .join_asof(written, left_on="ts", right_on="at", by="key", check_sortedness=False)
        .group_by("key")
        .agg(base=(pl.col("position") - pl.col("added").fill_null(0)).max(), reads=pl.lit(value=False))
    )


def stream_call(
    calls: pl.DataFrame, wanted: pl.DataFrame, position: str, view: int, *, reads: bool, prefix: str
) -> pl.DataFrame:
    """The call by which the byte before `position` was read or written at an end: `prefix` + at, pid, tid."""
    some = calls.filter(pl.col("reads") == reads, view=view).sort("flow_id", "position")
    row = running.reaching(some["flow_id"], some["position"], wanted["flow_id"], wanted[position])
    return some.select(pl.col(name).gather(row).alias(prefix + name) for name in ("at", "pid", "tid"))


def datagram_call(
    calls: pl.DataFrame, wanted: pl.DataFrame, sighting: tuple[str, str, str], *, reads: bool, prefix: str
) -> pl.DataFrame:
    """The call that read, or wrote, a datagram: the nearest of that size on that socket.

    `sighting` names the columns of `wanted` with the socket, the size, and when the packet passed there.
    """
    cookie, size, ts = sighting
    rows = wanted.select(socket_cookie=cookie, size=pl.col(size).cast(pl.Int64), ts=ts).with_row_index("row")
    some = calls.filter(pl.col("reads") == reads, ~pl.col("several"))
    some = some.with_columns(at=pl.when("reads").then("end").otherwise("begin")).sort("at")
    found = rows.drop_nulls().sort("ts").join_asof(
        some.select("socket_cookie", "size", "at", "pid", "tid"),
        left_on="ts", right_on="at", by=["socket_cookie", "size"],
        strategy="forward" if reads else "backward", check_sortedness=False,
    )  # fmt: skip
    found = rows.select("row").join(found, on="row", how="left", maintain_order="left")
    return found.select(pl.col(name).alias(prefix + name) for name in ("at", "pid", "tid"))
