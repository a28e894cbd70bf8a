"""Kernel stacks as text, and those of retransmissions put to their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import numpy as np

    from stratokit.engine.ingest.survey import Survey

# What stands between the place and the program that looked from there.
_LOOKING = ("bpf_", "__bpf_", "__traceiter_", "trace_", "__trace_")
_STACK_MOST = 24  # functions, from the place outwards
# A stack's record follows that of its retransmission, made by the same thread or softirq.
_FOLLOWS_NS = 10_000_000


def symbols(found: Survey) -> dict[int, str]:
    """Names of kernel code by address, with offset."""
    return dict(found.tables.get("symbols", {"rows": []})["rows"])


def stacks(found: Survey) -> dict[int, str]:
    """Stacks by number: functions, outermost first, separated by semicolons."""
    known = symbols(found)
    rows = found.tables.get("stacks", {"rows": []})["rows"]
    return {number: text for number, frames in rows if (text := _text(frames, known))}


def _text(frames: list[int], known: dict[int, str]) -> str:
    names = [known.get(address, "?").partition("+")[0] for address in frames]
    while names and (names[0].startswith(_LOOKING) or names[0] == "?"):
        names.pop(0)
    return ";".join(reversed(names[:_STACK_MOST]))


def named(numbers: np.ndarray, names: dict[int, str]) -> pl.Series:
    """The name of each number, null where it has none."""
    found = pl.DataFrame({"number": numbers})
    known = pl.DataFrame(
        {"number": list(names), "name": list(names.values())},
        schema={"number": found.schema["number"], "name": pl.String},
    )
    return found.join(known, on="number", how="left", maintain_order="left")["name"]


def with_stacks(rows: pl.DataFrame, found: Survey) -> pl.DataFrame:
    """Rows of sockets, sorted by ts, with `kernel_stack` of those retransmissions of which one was taken."""
    if not found.stacks:
        return rows.with_columns(pl.lit(None, pl.String).alias("kernel_stack"))
    texts = stacks(found)
    taken = pl.concat(
        pl.DataFrame(
            {
                "ts": found.clock.utc_ns(batch.fixed["ts_ns"]),
                "socket_cookie": batch.fixed["socket_cookie"],
                "kernel_stack": named(batch.fixed["stack"], texts),
            }
        )
        for batch in found.stacks
    ).sort("ts")
    rows = rows.with_row_index("row")
    sent_again = rows.filter(event="retransmit").select("ts", "socket_cookie", "row")
    of_row = (
        taken.join_asof(
            sent_again, on="ts", by="socket_cookie", tolerance=_FOLLOWS_NS, check_sortedness=False
        )
        .drop_nulls("row")
        .unique("row", keep="first", maintain_order=True)
    )
    return rows.join(of_row.select("row", "kernel_stack"), on="row", how="left", maintain_order="left").drop(
        "row"
    )
