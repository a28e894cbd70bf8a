"""What the first request of a connection waited for: name look-up, TCP handshake, TLS handshake.

They count for a request that follows soon; a connection that was made in advance made nobody wait. A look-up
belongs to the first connection that the same process (without processes: the same host) makes to one of the
addresses in the answer; both families, and suffixes of the search list, are asked for together. What is asked
behind that connection is a look-up of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture
    from stratokit.engine.latency.passing import Passing

# Time that a client spends between two of these steps; what is longer apart is something else.
SOON_NS = 1_000_000_000


def before_requests(capture: Capture, passing: Passing) -> pl.DataFrame:
    """Per flow, in ns: look-up, connection and TLS, each `_begin` and `_end`; null where there was none."""
    flows = capture.built("flows").select("flow_id", "client_ip", "server_ip", "pid").collect()
    connected = passing.handshakes.filter(pl.col("syn_first") <= pl.col("answer_in")).join(
        flows, on="flow_id"
    )
    connected = connected.rename({"syn_first": "connect_begin", "answer_in": "connect_end"})
    tls = (
        capture.built("tls")
        .filter(pl.col("transport") == "tcp")
        .select("flow_id", tls_begin=pl.col("ts").to_physical(), tls_end="handshake_ns")
        .with_columns(pl.col("tls_begin") + pl.col("tls_end"))
        .collect()
        .drop_nulls()
        .unique("flow_id", keep="first")
    )
    names = _look_ups(capture, connected)
    steps = flows.select("flow_id").join(names, on="flow_id", how="left")
    steps = steps.join(connected.select("flow_id", "connect_begin", "connect_end"), on="flow_id", how="left")
    return steps.join(tls, on="flow_id", how="left")


def _who() -> pl.Expr:
    """A process where it is known, else a host."""
    return pl.coalesce(pl.format("pid {}", "pid"), "client_ip").alias("who")


def _look_ups(capture: Capture, connected: pl.DataFrame) -> pl.DataFrame:
    """Per flow the look-up that gave its server's address."""
    asked = (
        capture.built("dns")
        .filter(pl.col("ts_query").is_not_null(), pl.col("ts_response").is_not_null())
        .select(
            _who(), "answers",
            name=pl.coalesce("search_name", "qname"),
            begin=pl.col("ts_query").to_physical(),
            end=pl.col("ts_response").to_physical(),
        )
        .collect()
        .sort("begin")
        .with_row_index("question")
    )  # fmt: skip
    key = ["who", "name"]
    answers = asked.explode("answers").drop_nulls("answers").rename({"answers": "server_ip"})
    begun = (
        connected.select("flow_id", _who(), "server_ip", "connect_begin")
        .sort("connect_begin")
        .join_asof(
            answers.select(*key, "server_ip", "question", answered="end").sort("answered"),
            left_on="connect_begin", right_on="answered", by=["who", "server_ip"],
            tolerance=SOON_NS, check_sortedness=False,
        )
        .drop_nulls("name")
        .with_columns(served=pl.int_range(1, pl.len() + 1).over(key))
    )  # fmt: skip
    # Questions for one name that overlap, or follow at once, are one look-up, until a connection has used it.
    apart = pl.col("begin") > pl.col("end").cum_max().shift(1).over(key) + SOON_NS
    asked = asked.join_asof(
        begun.select(*key, "served", "connect_begin"), left_on="begin", right_on="connect_begin", by=key,
        check_sortedness=False,
    ).with_columns(round=apart.fill_null(value=False).cum_sum().over(key))  # fmt: skip
    look_up = [*key, "round", "served"]
    asked = asked.select("question", *key, "round", pl.col("served").fill_null(0), "begin", "end")
    return (
        begun.select("flow_id", "connect_begin", "question")
        .join(asked.select("question", *look_up), on="question", maintain_order="left")
        .unique(look_up, keep="first", maintain_order=True)
        .join(asked, on=look_up)
        .filter(pl.col("end") <= pl.col("connect_begin"))
        .group_by("flow_id")
        .agg(name_begin=pl.col("begin").min(), name_end=pl.col("end").max())
    )


def of_first(requests: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """For each row of `requests` (flow_id, kind, begin) the steps that it waited for, else null."""
    carried = pl.col("kind").is_in(["http", "grpc", "dns"]) & pl.col("begin").is_not_null()
    first = pl.when(carried).then("begin").min().over("flow_id")
    chain = ("name", "connect", "tls")
    names = [f"{step}_{end}" for step in chain for end in ("begin", "end")]
    rows = requests.select("flow_id", "begin", is_first=carried & (pl.col("begin") == first)).join(
        steps, on="flow_id", how="left", maintain_order="left"
    )
    # From the last step to the first: each must end soon before what follows it.
    follows: pl.Expr = pl.when("is_first").then("begin")
    for step in reversed(chain):
        gap = pl.col("next") - pl.col(f"{step}_end")
        rows = rows.with_columns(next=follows).with_columns(
            pl.when((gap >= 0) & (gap <= SOON_NS)).then(f"{step}_{end}").alias(f"{step}_{end}")
            for end in ("begin", "end")
        )
        follows = pl.coalesce(f"{step}_begin", "next")
    return rows.select(names)
