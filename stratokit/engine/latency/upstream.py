"""What a server waited for itself while it worked on a request: calls of its own to others.

Any conversation that the server's process began counts, whatever it speaks: from what it sends (or its SYN)
to the last that comes back before it sends again. It belongs to the request that the same thread was working
on; where threads share the work, to the only one that the process was working on, or to none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.streams.sides import CLIENT, SIDE_COLUMNS, with_sides

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture


def exchanges(capture: Capture, pids: pl.Series) -> pl.DataFrame:
    """What these processes sent as clients, with what came back: `pid`, `tid`, `begin`, `end` in ns."""
    theirs = pl.col("pid").is_in(pids.unique().drop_nulls().implode())
    flows = capture.built("flows").filter(theirs).select("flow_id")
    rows = capture.rows("packet").filter(pl.col("direction").is_not_null())
    columns = sorted({*SIDE_COLUMNS, "ts", "payload_len", "pid", "tid"})
    packets = with_sides(rows.join(flows, on="flow_id", how="semi").select(columns).collect())
    moves = (
        packets.filter(
            pl.col("view") == CLIENT,
            (pl.col("payload_len") > 0) | (pl.col("tcp_flags").fill_null(0) & 2 != 0),
        )
        .select("flow_id", "pid", "tid", out="from_client", ts=pl.col("ts").to_physical())
        .sort("flow_id", "ts", maintain_order=True)
    )
    # A new exchange begins where sending follows receiving.
    begins = pl.col("out") & ~pl.col("out").shift(1).over("flow_id").fill_null(value=False)
    return (
        moves.with_columns(number=begins.cum_sum().over("flow_id"))
        .filter(pl.col("number") > 0)
        .group_by("flow_id", "number")
        .agg(
            pl.col("pid", "tid").filter("out").first(),
            begin=pl.col("ts").filter("out").min(),
            end=pl.col("ts").filter(~pl.col("out")).max(),
        )
        .select("pid", "tid", "begin", "end")
        .drop_nulls(["pid", "begin"])
    )


def waited(requests: pl.DataFrame, calls: pl.DataFrame) -> pl.Series:
    """Per request, of `row`, `pid`, `tid`, `begin` and `end` of the work, the ns of its own calls."""
    work = requests.drop_nulls(["pid", "begin", "end"]).sort("begin")
    calls = calls.sort("begin").with_row_index("call")
    same = _latest(calls, work, ["pid", "tid"])
    rest = calls.join(same, on="call", how="anti", maintain_order="left")
    alone = _latest(rest, _alone(work), ["pid"])
    inside = pl.concat([same, alone]).sort("row", "start")
    # Calls at the same time count once.
    until = pl.col("stop").cum_max().shift(1).over("row").fill_null(0)
    own = (pl.col("stop") - pl.max_horizontal("start", until)).clip(0)
    sums = inside.with_columns(own=own).group_by("row").agg(pl.col("own").sum())
    return requests.select("row").join(sums, on="row", how="left", maintain_order="left")["own"]


def _latest(calls: pl.DataFrame, work: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Calls with the latest request that was begun before and not yet done."""
    found = calls.join_asof(
        work.select("row", *by, "begin", done="end").with_columns(since="begin"),
        on="begin", by=by, check_sortedness=False,
    )  # fmt: skip
    found = found.filter(pl.col("begin") < pl.col("done"))
    stop = pl.min_horizontal(pl.col("end").fill_null(pl.col("done")), "done")
    return found.select("row", "call", start="begin", stop=stop)


def _alone(work: pl.DataFrame) -> pl.DataFrame:
    """Requests during which the process worked on no other."""
    earlier = pl.col("end").cum_max().shift(1).over("pid")
    later = pl.col("begin").shift(-1).over("pid")
    overlaps = (earlier > pl.col("begin")) | (later < pl.col("end"))
    return work.filter(~overlaps.fill_null(value=False))
