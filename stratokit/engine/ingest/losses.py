"""Rows of kind `loss`: every counter above zero, located between the samples that show its growth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.schema import load

if TYPE_CHECKING:
    from stratokit.engine.ingest.survey import Survey

SCHEMA = {"ts": pl.Int64, "counter": pl.String, "amount": pl.UInt64, "span_ns": pl.UInt64}


def losses(found: Survey, unreadable: int, without_payload: int) -> pl.DataFrame:
    """What the kernel and the recorder counted, and what this conversion found missing."""
    rows: list[tuple[int, str, int, int]] = []
    # A segment counts from where its rows begin.
    before: dict[str, int] = dict(found.begin["totals"]) if found.begin else {}
    start = found.begin["monotonic_ns"] if found.begin else found.clock_pairs[0]["monotonic_ns"]
    known = load.counters()
    at = start
    for sample in found.counters:
        at = sample["monotonic_ns"]
        ts = int(found.clock.utc_ns(at))
        for name, total in sample["totals"].items():
            grown = total - before.get(name, 0)
            if name in known and grown > 0:
                rows.append((ts, name, grown, max(at - start, 0)))
        before |= sample["totals"]
        start = at
    damage = found.damage
    # The kernel's own count of what it handed over, sampled after the last drain. Where a segment ends, the
    # kernel goes on between the drain and the sample.
    missing = 0
    if damage.finished and not found.begin and not (found.closing or {}).get("continues"):
        missing = sum(
            max(before.get(f"recorded_{name}", 0) - found.read.get(name, 0), 0) for name in found.layouts
        )
    end = int(found.clock.utc_ns(at))
    for name, amount in (
        ("chunk_damaged", damage.chunks),
        ("spool_cut_bytes", damage.cut_bytes),
        ("spool_unfinished", int(not damage.finished)),
        ("segment_missing", damage.segments),
        ("event_unreadable", unreadable),
        ("event_missing", max(missing - unreadable, 0)),
        ("packet_payload_missing", without_payload),
    ):
        if amount:
            rows.append((end, name, amount, 0))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
