"""Two captures beside each other: what got slower, what fails more often, who is new, who is gone.

Durations are compared by the rank-sum test (Mann and Whitney, normal approximation), shares of failures by
the test of two proportions. A change is told where it is large enough to matter, and where chance would make
one among all comparisons with a probability below 5 % (Bonferroni).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

from stratokit.engine.frames import conform, polars_schema
from stratokit.engine.losses import loss_totals
from stratokit.protocols import dns
from stratokit.reports import tcp
from stratokit.reports.base import Options, Report
from stratokit.reports.findings.base import endpoint
from stratokit.reports.run import Result, Section
from stratokit.reports.syscalls import finished, is_waiting
from stratokit.schema.model import Column

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST = 5  # observations on each side
_CHANCE = 0.05
_FACTOR, _LEAST_NS = 1.2, 50_000  # of the median
_POINTS = 0.01  # of the share of failures
_VOLUME_FACTOR, _VOLUME_BYTES = 2.0, 100_000
_SIDES = ("before", "after")

COLUMNS = (
    Column("finding", "text", "What changed."),
    Column("change", "name", "slower, faster, failing, recovered, more, less, new, gone."),
    Column("kind", "name", "http, dns, tls, tcp, syscall, traffic, peer or process."),
    Column("whom", "text", "Endpoint, resolver, server, call or process."),
    Column("count_before", "u64", "How often before."),
    Column("count_after", "u64", "How often after."),
    Column("p50_before_ns", "s64", "Half took at most this long before.", "ns"),
    Column("p50_after_ns", "s64", "Half took at most this long after.", "ns"),
    Column("p99_before_ns", "s64", "99 of 100 took at most this long before.", "ns"),
    Column("p99_after_ns", "s64", "99 of 100 took at most this long after.", "ns"),
    Column("errors_before", "u64", "How often in vain before."),
    Column("errors_after", "u64", "How often in vain after."),
    Column("bytes_before", "u64", "Bytes before.", "bytes"),
    Column("bytes_after", "u64", "Bytes after.", "bytes"),
    Column(
        "p_value", "f64", "How likely chance alone makes such a difference; empty where nothing was tested."
    ),
)


def diff(before: Capture, after: Capture) -> Result:
    """Everything that changed, as a report of one section."""
    found = pl.concat(
        [_waits(before, after), _traffic(before, after), _who(before, after)], how="diagonal_relaxed"
    )
    order = pl.col("change").replace_strict({c: k for k, c in enumerate(_ORDER)}, return_dtype=pl.Int64)
    frame = found.sort(order, "p_value", "whom", nulls_last=True)
    frame = conform(frame.lazy(), COLUMNS).collect()
    facts = after.info()
    facts["files"] = [*before.info()["files"], *facts["files"]]
    counted = all(file.is_recording for capture in (before, after) for file in capture.files)
    losses = pl.concat([loss_totals(before), loss_totals(after)])
    return Result(facts, losses, counted, [Section(DIFF, frame, frame.height)])


_ORDER = ("slower", "failing", "new", "more", "gone", "less", "faster", "recovered")


def _table(capture: Capture, name: str) -> pl.LazyFrame:
    """A table; without rows where the filter says nothing about it."""
    return capture.table(name) if capture.applies(name) else capture.whole.table(name).clear()


def _observed(capture: Capture) -> pl.LazyFrame:
    """Everything that somebody waited for: kind, whom, how long, whether in vain."""
    ends = _table(capture, "flows").select("flow_id", "server_ip", "server_port")
    server = endpoint("server_ip", "server_port")
    path = pl.col("path").str.splitn("?", 2).struct.field("field_0")
    parts = {
        "http": (
            _table(capture, "http"),
            pl.format("{} {}{}", "method", pl.col("host").fill_null(""), path),
            pl.col("latency_ns"),
            (pl.col("status") >= 500).fill_null(value=True),
        ),
        "dns": (
            _table(capture, "dns"),
            server,
            pl.col("latency_ns"),
            dns.FAILED & ~(pl.col("rcode") == 3).fill_null(value=False),
        ),
        "tls": (
            _table(capture, "tls"),
            pl.coalesce("sni", server),
            pl.col("handshake_ns"),
            (pl.col("alert") != "close_notify").fill_null(value=False),
        ),
        "tcp": (
            _table(capture, "tcp").join(ends, on="flow_id"), server, pl.col("handshake_rtt_ns"), tcp.failed()
        ),
        "syscall": (
            _table(capture, "syscalls").filter(~is_waiting()),
            pl.format("{} of {}", "syscall", "comm"),
            finished(pl.col("duration_ns")),
            pl.col("ret") < 0,
        ),
    }  # fmt: skip
    rows = [
        frame.select(
            kind=pl.lit(kind),
            whom=whom,
            waited_ns=waited.cast(pl.Int64),
            failed=failed.fill_null(value=False),
        )
        for kind, (frame, whom, waited, failed) in parts.items()
    ]
    return pl.concat(rows).drop_nulls("whom")


def _waits(before: Capture, after: Capture) -> pl.DataFrame:
    group = ["kind", "whom"]
    sides = zip(_SIDES, (before, after), strict=True)
    rows = pl.concat([_observed(capture).with_columns(side=pl.lit(side)) for side, capture in sides])
    late = pl.col("side") == "after"
    told: list[pl.Expr] = []
    for side, of_it in zip(_SIDES, (~late, late), strict=True):
        waited = pl.col("waited_ns").filter(of_it)
        told += [
            of_it.sum().cast(pl.UInt64).alias(f"count_{side}"),
            waited.count().cast(pl.Float64).alias(f"n_{side}"),
            waited.quantile(0.5, "equiprobable").cast(pl.Int64).alias(f"p50_{side}_ns"),
            waited.quantile(0.99, "equiprobable").cast(pl.Int64).alias(f"p99_{side}_ns"),
            (pl.col("failed") & of_it).sum().cast(pl.UInt64).alias(f"errors_{side}"),
        ]
    ranks = pl.col("waited_ns").rank("average").over(group)
    both = (
        rows.with_columns(rank=ranks)
        .group_by(group)
        .agg(*told, rank_sum=pl.col("rank").filter(late).sum())
        .filter(pl.min_horizontal("count_before", "count_after") >= _LEAST)
        .collect()
    )
    both = both.with_columns(_rank_sum_z().alias("z_waited"), _shares_z().alias("z_failed"))
    tests = max(2 * both.height, 1)
    p = {
        name: pl.col(f"z_{name}").map_elements(lambda z: math.erfc(abs(z) / math.sqrt(2)), pl.Float64)
        for name in ("waited", "failed")
    }
    both = both.with_columns(p_waited=p["waited"], p_failed=p["failed"])
    old, new = pl.col("p50_before_ns"), pl.col("p50_after_ns")
    matters = (pl.max_horizontal(old, new) >= _FACTOR * pl.min_horizontal(old, new)) & (
        (new - old).abs() >= _LEAST_NS
    )
    slower = both.filter(pl.col("p_waited") * tests < _CHANCE, matters).with_columns(
        change=pl.when(new > old).then(pl.lit("slower")).otherwise(pl.lit("faster")),
        p_value="p_waited",
        finding=pl.format(
            "{}: the median of {} {} is {} ms, before {} ms.",
            "whom", "count_after", pl.col("kind").replace_strict(_UNITS), _ms(new), _ms(old),
        ),
    )  # fmt: skip
    share = {side: pl.col(f"errors_{side}") / pl.col(f"count_{side}") for side in _SIDES}
    far = (share["after"] - share["before"]).abs() >= _POINTS
    worse = share["after"] > share["before"]
    failing = both.filter(pl.col("p_failed") * tests < _CHANCE, far).with_columns(
        change=pl.when(worse).then(pl.lit("failing")).otherwise(pl.lit("recovered")),
        p_value="p_failed",
        finding=pl.format(
            "{}: {} of {} {} failed, before {} of {}.",
            "whom", "errors_after", "count_after", pl.col("kind").replace_strict(_UNITS), "errors_before",
            "count_before",
        ),
    )  # fmt: skip
    return pl.concat([slower, failing])


_UNITS = {
    "http": "requests",
    "dns": "questions",
    "tls": "handshakes",
    "tcp": "connections",
    "syscall": "calls",
}


def _ms(ns: pl.Expr) -> pl.Expr:
    return (ns / 1e6).round_sig_figs(3)


def _rank_sum_z() -> pl.Expr:
    """How many standard deviations the later durations' ranks lie off."""
    n, m = pl.col("n_after"), pl.col("n_before")
    u = pl.col("rank_sum") - n * (n + 1) / 2
    deviation = (n * m * (n + m + 1) / 12).sqrt()
    return pl.when(deviation > 0).then((u - n * m / 2) / deviation)


def _shares_z() -> pl.Expr:
    n, m = pl.col("count_after").cast(pl.Float64), pl.col("count_before").cast(pl.Float64)
    failed, before = pl.col("errors_after").cast(pl.Float64), pl.col("errors_before").cast(pl.Float64)
    pooled = (failed + before) / (n + m)
    deviation = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    return pl.when(deviation > 0).then((failed / n - before / m) / deviation)


def _seconds(capture: Capture) -> float:
    return max((capture.info()["duration_ns"] or 0) / 1e9, 1e-3)


def _traffic(before: Capture, after: Capture) -> pl.DataFrame:
    """Servers whose traffic a second changed much; there is no test of it."""
    parts = []
    for side, capture in zip(_SIDES, (before, after), strict=True):
        volume = (pl.col("bytes_c2s") + pl.col("bytes_s2c")).sum()
        part = _table(capture, "flows").drop_nulls("server_port").group_by(
            whom=endpoint("server_ip", "server_port")
        ).agg(
            volume.cast(pl.UInt64).alias(f"bytes_{side}"), pl.len().cast(pl.UInt64).alias(f"count_{side}")
        )  # fmt: skip
        parts.append(part.with_columns((pl.col(f"bytes_{side}") / _seconds(capture)).alias(f"rate_{side}")))
    old, new = pl.col("rate_before"), pl.col("rate_after")
    most, least = pl.max_horizontal("bytes_before", "bytes_after"), pl.min_horizontal(old, new)
    return (
        parts[0]
        .join(parts[1], on="whom")
        .filter(most >= _VOLUME_BYTES, pl.max_horizontal(old, new) >= _VOLUME_FACTOR * least)
        .with_columns(
            kind=pl.lit("traffic"),
            change=pl.when(new > old).then(pl.lit("more")).otherwise(pl.lit("less")),
            finding=pl.format(
                "{}: {} kB a second, before {}.", "whom", (new / 1e3).round(1), (old / 1e3).round(1)
            ),
        )
        .drop("rate_before", "rate_after")
        .collect()
    )


def _who(before: Capture, after: Capture) -> pl.DataFrame:
    """Servers and programs that are only in one of both."""
    parts = []
    for side, capture in zip(_SIDES, (before, after), strict=True):
        peers = _table(capture, "flows").drop_nulls("server_port").select(
            kind=pl.lit("peer"), whom=endpoint("server_ip", "server_port")
        )  # fmt: skip
        programs = _table(capture, "processes").select(
            kind=pl.lit("process"), whom=pl.coalesce("path", "comm").cast(pl.String)
        )
        both = pl.concat([peers, programs]).drop_nulls()
        parts.append(both.group_by("kind", "whom").agg(pl.len().cast(pl.UInt64).alias(f"count_{side}")))
    joined = parts[0].join(parts[1], on=["kind", "whom"], how="full", coalesce=True)
    seen = [pl.col(f"count_{side}").fill_null(0) for side in _SIDES]
    is_new = pl.col("count_before").is_null()
    word = pl.when(pl.col("kind") == "peer").then(pl.lit("server")).otherwise(pl.lit("program"))
    return (
        joined.filter(pl.any_horizontal(pl.col("count_before", "count_after").is_null()))
        .with_columns(
            *seen,
            change=pl.when(is_new).then(pl.lit("new")).otherwise(pl.lit("gone")),
            finding=pl.when(is_new)
            .then(pl.format("{} is a {} that was not there before.", "whom", word))
            .otherwise(pl.format("{} is a {} that is no longer there.", "whom", word)),
        )
        .collect()
    )


def _alone(_capture: Capture, _: Options) -> pl.LazyFrame:
    """Of one capture there is nothing to tell."""
    return pl.LazyFrame(schema=polars_schema(COLUMNS))


DIFF = Report(
    name="diff",
    title="What changed",
    doc="Changes that are too large for chance, the worst first; below, who is new and who is gone.",
    place=0,
    needs=(),
    columns=COLUMNS,
    build=_alone,
    narrow=("finding", "count_before", "count_after", "p_value"),
    prose=True,
)
