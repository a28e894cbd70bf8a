"""A spool becomes capture.parquet: two passes, memory bounded by the numbers of processes, sockets and open
files.

The first pass (`survey`) gathers what later rows need to be named: clocks, processes, owners of sockets,
names of files. The second turns packets and system calls, window by window, into rows.
"""

from __future__ import annotations

import collections
import json
import pathlib
from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.engine import key_logs
from stratokit.engine.ingest import (
    containers,
    descriptors,
    drops,
    folders,
    frames,
    interfaces,
    limits,
    losses,
    owners,
    packets,
    payloads,
    plaintext,
    processes,
    sockets,
    syscalls,
)
from stratokit.engine.ingest.survey import Reader, Survey, survey
from stratokit.formats import events, spool
from stratokit.formats.parquet import CaptureWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from stratokit.formats.events import Batch


def ingest(
    chain: spool.SpoolChain, out: pathlib.Path, progress: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Convert a spool, or segments of one recording, to `out`, and return what was lost, by counter.

    Raises:
        FormatError: it was cut before its first events.
        StratokitError: `out` cannot be written.
    """
    reader = Reader(chain, progress)
    found = survey(reader)
    with CaptureWriter(out, _metadata(found, chain) | _secrets(found)) as writer:
        context, call_rows, tls_rows = _small_tables(found, writer)
        at_sockets = packets.Packets(found, context)
        makers: dict[str, tuple[str, Callable[[Batch], pa.Table]]] = {
            "packet": ("packet", at_sockets.rows),
            "frame": ("packet", frames.Frames(found, context).rows),
            "drop": ("drop", drops.Drops(found, context).rows),
        }
        unreadable = _bulk(reader, found, writer, makers, call_rows, tls_rows, at_sockets.payloads)
        lost = losses.losses(found, unreadable, at_sockets.payloads.missing)
        writer.write("loss", _arrow(lost))
    return dict(lost.group_by("counter").agg(pl.col("amount").sum()).sort("counter").iter_rows())


def _metadata(found: Survey, chain: spool.SpoolChain) -> dict[str, str]:
    segment = None if chain.is_cut else found.opening.get("segment")
    triggers = [_trigger(row, found) for row in found.tables.get("triggers", {"rows": []})["rows"]]
    return {
        **({"segment": json.dumps(segment | {"last": chain.last_number})} if segment else {}),
        **({"triggers": json.dumps(triggers)} if triggers else {}),
        "host": json.dumps(found.opening["host"]),
        "options": json.dumps(found.opening["options"]),
        "programs": json.dumps(found.opening["programs"]),
        "has_btf": json.dumps(found.opening["has_btf"]),
        **({"limits": json.dumps(steps)} if (steps := limits.steps(found)) else {}),
        "ended": json.dumps((found.closing or {}).get("reason", "killed")),
    }


def _secrets(found: Survey) -> dict[str, str]:
    """The secrets of TLS that programs wrote while the recording ran, where it was asked for them."""
    asked = found.opening["options"].get("keylog")
    if not asked or not pathlib.Path(asked).exists():
        return {}
    return key_logs.written_since(asked, int(found.opening["options"].get("keylog_offset", 0)))


def _trigger(row: dict[str, Any], found: Survey) -> dict[str, Any]:
    return {"ts": int(found.clock.utc_ns(row["monotonic_ns"])), "by": row["by"], "reason": row["reason"]}


def _small_tables(
    found: Survey, writer: CaptureWriter
) -> tuple[packets.Context, syscalls.Syscalls, plaintext.Plaintext]:
    """Write everything but packets, system calls, plaintext and losses; return what makes those."""
    paths = {int(key): path for key, path in found.tables.get("cgroups", {"rows": []})["rows"]}
    process_rows = processes.processes(found, paths)
    begin_ns = None if found.begin is None else int(found.clock.utc_ns(found.begin["monotonic_ns"]))
    places = folders.Folders(found, process_rows)
    process_rows = processes.with_full_paths(process_rows, places)
    groups = containers.containers(found, process_rows["cgroup"].drop_nulls().to_list())
    kept = groups.select("cgroup", "container_id", "pod", "namespace")
    socket_rows = sockets.sockets(found)
    evidence = owners.owners(found)
    context = packets.Context(
        evidence,
        processes.spans(process_rows),
        kept,
        packets.connections(socket_rows, owners.listeners(found, socket_rows)),
    )
    named = process_rows.join(kept, on="cgroup", how="left", maintain_order="left").rename(
        {"netns_inode": "netns"}
    )
    writer.write("process", _arrow(processes.from_begin(named, begin_ns)))
    located = owners.with_owner(socket_rows.filter(~pl.col("lead")), evidence)
    writer.write("socket", _arrow(context.process(located, "owner_ts")))
    writer.write("container", _arrow(_boxes(found, groups, process_rows)))
    writer.write("interface", _arrow(interfaces.rows(found)))
    _clocks(found, writer)
    programs = process_rows.filter(pl.col("event") == "exec").select(
        "pid", "ts", pl.col("path").alias("program")
    )
    files = descriptors.file_names(found, process_rows, places.files)
    known = pl.concat([socket_rows, found.datagrams.rows(socket_rows)], how="diagonal_relaxed")
    ends = syscalls.endpoints(known)
    calls = syscalls.Syscalls(found, context, files, ends, programs, places)
    return context, calls, plaintext.Plaintext(found, context, socket_rows)


def _boxes(found: Survey, groups: pl.DataFrame, process_rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of kind `container`: one a container, since its first process was seen."""
    first = process_rows.group_by("cgroup").agg(pl.col("ts").min())
    begin = int(found.clock.utc_ns(found.clock_pairs[0]["monotonic_ns"]))
    return (
        groups.filter(pl.col("container_id").is_not_null())
        .join(first, on="cgroup", how="left")
        # Of the cgroups that a container makes inside of its own the outermost stands for it.
        .sort(pl.col("cgroup").str.len_bytes())
        .group_by("container_id", maintain_order=True)
        .agg(pl.col("ts").min().fill_null(begin), pl.exclude("ts", "container_id").first())
    )


def _clocks(found: Survey, writer: CaptureWriter) -> None:
    pairs = found.clock_pairs
    frame = pl.DataFrame(
        {
            "ts": [pair["real_ns"] for pair in pairs],
            "monotonic_ns": pl.Series([pair["monotonic_ns"] for pair in pairs], dtype=pl.UInt64),
            "boottime_ns": pl.Series([pair["boot_ns"] for pair in pairs], dtype=pl.UInt64),
        }
    )
    writer.write("clock", _arrow(frame))


def _bulk(
    reader: Reader,
    found: Survey,
    writer: CaptureWriter,
    makers: dict[str, tuple[str, Callable[[Batch], pa.Table]]],
    call_rows: syscalls.Syscalls,
    tls_rows: plaintext.Plaintext,
    shared: payloads.Payloads,
) -> int:
    """Second pass; returns the number of unreadable records. `makers`: kind and rows of each event."""
    unreadable = 0
    lead: collections.deque[memoryview] = collections.deque(maxlen=payloads.WINDOWS_MOST)
    for chunk in reader.chunks(1):
        if chunk.type != spool.EVENTS:
            continue
        if chunk.lead:
            lead.append(chunk.payload)
            continue
        while lead:
            before, _ = events.split(lead.popleft(), found.layouts)
            if (sent := before.get("packet")) is not None:
                shared.remember(sent)
        batches, bad = events.split(chunk.payload, found.layouts)
        unreadable += bad
        if (calls := batches.get("syscall")) is not None and (table := call_rows.rows(calls)) is not None:
            writer.write("syscall", table)
        for event, (kind, rows) in makers.items():
            if (seen := batches.get(event)) is not None:
                writer.write(kind, rows(seen))
        if (opened := batches.get("tls")) is not None:
            writer.write("plaintext", tls_rows.rows(opened))
    if (table := call_rows.unfinished()) is not None:
        writer.write("syscall", table)
    return unreadable


def _arrow(frame: pl.DataFrame) -> Any:
    """Arrow table of a frame with `ts` and `process_start` as UTC nanoseconds, without columns that only
    helped.
    """
    from stratokit.schema import load

    names = {column.name for column in load.capture().columns}
    times = [name for name in ("ts", "process_start") if frame.schema.get(name) == pl.Int64]
    frame = frame.with_columns(
        pl.from_epoch(name, time_unit="ns").dt.replace_time_zone("UTC") for name in times
    )
    return frame.select(name for name in frame.columns if name in names).to_arrow()
