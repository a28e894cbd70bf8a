"""What a filter keeps of a capture: rows that match, and what names them.

`record --filter` keeps that of what the kernel let pass, `convert --where` of a capture that is there.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stratokit.engine.capture import Capture
from stratokit.engine.fields import uses
from stratokit.engine.frames import collect
from stratokit.engine.recording_filter import Part, Plan, flow_tables, plan
from stratokit.engine.scap import carried
from stratokit.engine.writing import metadata_of
from stratokit.formats.parquet import CaptureWriter
from stratokit.formats.pcapng import cold
from stratokit.protocols import dns
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stratokit.engine.writing import Progress

# The filters through which a capture went after it was recorded.
METADATA_KEY = "kept"
_BATCH_ROWS = 1 << 15
# Kinds that say where and how something was recorded rather than what happened.
_ALWAYS = ("interface", "clock", "loss")


def write_kept(
    capture: Capture,
    text: str,
    output: Path,
    dns_errors_only: bool = False,
    *,
    later: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write the rows of `capture` that the filter `text` keeps; frames and conversations get new numbers.

    Args:
        dns_errors_only: of these only conversations with a DNS query that failed or had no answer.
        later: the recording was not asked for this filter, so the new capture says that it went through one.
    """
    wanted = plan(text)
    packets = _packets(capture, wanted.packets)
    if dns_errors_only:
        packets = packets.join(_dns_errors(capture), on="flow_id", how="semi", maintain_order="left")
    numbers = _Numbers(packets)
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
    found = _metadata(capture, numbers.frames)
    if later:
        found[METADATA_KEY] = json.dumps([*capture.info().get(METADATA_KEY, ()), text])
    total = max(numbers.frames.size, 1)
    with CaptureWriter(output, found) as writer:
        for kind, rows in (
            ("process", processes),
            ("socket", sockets),
            ("drop", drops),
            ("container", containers),
            *((kind, capture.rows(kind)) for kind in _ALWAYS),
            ("syscall", calls),
            ("plaintext", _plaintext(capture, cookies)),
            ("packet", packets),
        ):
            done = 0
            for batch in rows.drop("kind", strict=False).collect_batches(
                chunk_size=_BATCH_ROWS, maintain_order=True
            ):
                rows_of_kind = numbers.given(batch) if kind == "packet" else batch
                writer.write(kind, rows_of_kind.to_arrow())
                done += batch.height
                if progress and kind == "packet":
                    progress(min(done, total), total)


def _metadata(capture: Capture, frames: np.ndarray) -> dict[str, str]:
    """Those of `capture`; blocks of its pcapng file stand among the packets that are kept, by `frames`."""
    found: Mapping[str, str] = metadata_of(capture)
    rare = cold.from_text(found.get(cold.METADATA_KEY, ""))
    moved = [
        dataclasses.replace(block, before=int(np.searchsorted(frames, block.before, side="right")))
        for block in rare
    ]
    # What a scap file held beside its events cannot be told from less than all of them.
    kept = {key: text for key, text in found.items() if key not in (cold.METADATA_KEY, carried.METADATA_KEY)}
    return kept | ({cold.METADATA_KEY: cold.to_text(moved)} if moved else {})


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
    return capture.table("dns").filter(dns.FAILED).select("flow_id").unique()


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


class _Numbers:
    """New numbers of what is kept: frames count from 1, conversations from 0."""

    def __init__(self, packets: pl.LazyFrame) -> None:
        found = collect(packets.select("frame", "flow_id", "icmp_flow_id"))
        flows = pl.concat([found["flow_id"], found["icmp_flow_id"]]).drop_nulls().unique().sort()
        self.frames = found["frame"].drop_nulls().unique().sort().to_numpy()
        self._kept = {"frame": (self.frames, 1), "flow_id": (flows.to_numpy(), 0)}
        self._kept["icmp_flow_id"] = self._kept["flow_id"]

    def given(self, packets: pl.DataFrame) -> pl.DataFrame:
        """Packets with their new numbers."""
        return packets.with_columns(
            pl.when(pl.col(name).is_not_null())
            .then(pl.lit(pl.Series(np.searchsorted(known, packets[name].fill_null(0).to_numpy()) + first)))
            .cast(packets.schema[name])
            .alias(name)
            for name, (known, first) in self._kept.items()
        )
