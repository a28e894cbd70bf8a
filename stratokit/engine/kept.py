"""What a recording keeps of what the kernel let pass: rows that match its filter, and what names them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from stratokit.engine.capture import Capture
from stratokit.engine.convert import metadata_of
from stratokit.engine.fields import uses
from stratokit.engine.frames import collect
from stratokit.engine.recording_filter import Part, Plan, flow_tables, plan
from stratokit.formats.parquet import CaptureWriter
from stratokit.schema import load

_BATCH_ROWS = 1 << 17
# Kinds that say where and how something was recorded rather than what happened.
_ALWAYS = ("interface", "clock", "loss")


def write_kept(capture: Capture, text: str, output: Path, dns_errors_only: bool = False) -> None:
    """Write the rows of `capture` that the filter `text` keeps; frames and conversations get new numbers.

    `dns_errors_only`: of these only conversations with a DNS query that failed or had no answer.
    """
    wanted = plan(text)
    with CaptureWriter(output, metadata_of(capture)) as writer:
        packets = _packets(capture, wanted.packets)
        if dns_errors_only:
            packets = packets.join(_dns_errors(capture), on="flow_id", how="semi", maintain_order="left")
        cookies = collect(packets.select("socket_cookie").drop_nulls().unique())
        calls = _calls(capture, wanted, cookies)
        drops = _drops(capture, wanted, cookies)
        sockets = capture.rows("socket").join(cookies.lazy(), on="socket_cookie", how="semi")
        if wanted.packets is None:
            sockets = sockets.clear()
        actors = [rows.select("pid").drop_nulls() for rows in (packets, calls, sockets, drops)]
        pids = collect(pl.concat(actors).unique())
        processes = capture.rows("process").join(pids.lazy(), on="pid", how="semi", maintain_order="left")
        boxes = collect(processes.select("container_id").drop_nulls().unique())
        containers = capture.rows("container").join(boxes.lazy(), on="container_id", how="semi")
        for kind, rows in (
            ("process", processes),
            ("socket", sockets),
            ("drop", drops),
            ("container", containers),
            *((kind, capture.rows(kind)) for kind in _ALWAYS),
            ("syscall", calls),
            ("plaintext", _plaintext(capture, cookies)),
            ("packet", _numbered(packets)),
        ):
            for batch in rows.drop("kind", strict=False).collect_batches(
                chunk_size=_BATCH_ROWS, maintain_order=True
            ):
                writer.write(kind, batch.to_arrow())


def _packets(capture: Capture, part: Part | None) -> pl.LazyFrame:
    rows = capture.rows("packet")
    if part is None:
        return rows.clear()
    if not part.conversations:
        names = [column.name for column in load.capture().of_kind("packet")]
        return capture.matching("packets", part.where).select(names)
    fitting = [name for name in flow_tables() if part.where.fields <= uses(name).keys()]
    fitting = [name for name in fitting if name != "packets"] or fitting
    matching = [capture.matching(name, part.where).select("flow_id") for name in fitting]
    flows = collect(pl.concat(matching).drop_nulls().unique())
    return rows.join(flows.lazy(), on="flow_id", how="semi", maintain_order="left")


def _dns_errors(capture: Capture) -> pl.LazyFrame:
    failed = pl.col("ts_response").is_null() | (pl.col("rcode") != 0).fill_null(value=True)
    return capture.table("dns").filter(failed).select("flow_id").unique()


def _calls(capture: Capture, wanted: Plan, cookies: pl.DataFrame) -> pl.LazyFrame:
    """System calls that match, and those on the sockets of packets that are kept."""
    rows = capture.rows("syscall")
    names = [column.name for column in load.capture().of_kind("syscall")]
    on_sockets = rows.join(cookies.lazy(), on="socket_cookie", how="semi", maintain_order="left").select(
        names
    )
    if wanted.syscalls is None:
        return on_sockets
    matching = capture.matching("syscalls", wanted.syscalls.where).select(names)
    if wanted.packets is None:
        return matching
    return pl.concat([matching, on_sockets]).unique(
        ["ts", "tid", "syscall"], keep="first", maintain_order=True
    )


def _plaintext(capture: Capture, cookies: pl.DataFrame) -> pl.LazyFrame:
    """What was said in TLS on the sockets of packets that are kept."""
    return capture.rows("plaintext").join(
        cookies.lazy(), on="socket_cookie", how="semi", maintain_order="left"
    )


def _drops(capture: Capture, wanted: Plan, cookies: pl.DataFrame) -> pl.LazyFrame:
    """Dropped packets on the sockets of packets that are kept, and those that match by their headers."""
    rows = capture.rows("drop")
    if wanted.packets is None:
        return rows.clear()
    on_sockets = rows.join(cookies.lazy(), on="socket_cookie", how="semi", maintain_order="left")
    where = wanted.packets.where
    if wanted.packets.conversations or not where.fields <= uses("drops").keys():
        return on_sockets
    names = [column.name for column in load.capture().of_kind("drop")]
    matching = capture.matching("drops", where).select(names)
    return pl.concat([matching, on_sockets.select(names)]).unique(maintain_order=True)


def _numbered(packets: pl.LazyFrame) -> pl.LazyFrame:
    """Frames count from 1 and conversations from 0, as in a capture that has nothing else."""
    numbers = collect(packets.select("frame", "flow_id", "icmp_flow_id"))
    frames = numbers.select(pl.col("frame").drop_nulls().unique().sort()).with_row_index("new", offset=1)
    flows = pl.concat([numbers["flow_id"], numbers["icmp_flow_id"]]).drop_nulls().unique().sort()
    changed = {"frame": frames.rename({"frame": "old"})}
    flow_map = pl.DataFrame({"old": flows}).with_row_index("new")
    changed |= {"flow_id": flow_map, "icmp_flow_id": flow_map}
    for name, table in changed.items():
        renamed = table.select(pl.col("old").alias(name), pl.col("new").cast(pl.UInt64).alias(f"{name}:new"))
        packets = packets.join(renamed.lazy(), on=name, how="left", maintain_order="left")
        packets = packets.with_columns(pl.col(f"{name}:new").alias(name)).drop(f"{name}:new")
    return packets
