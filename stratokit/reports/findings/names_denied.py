"""Names that do not exist, asked for again and again, as search domains make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, address, evidence, finding, folded

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_NXDOMAIN = 3
_LEAST, _SHARE = 5, 0.5


def find(capture: Capture) -> pl.LazyFrame:
    """At least 5 questions of a client, and half of all, were for names that do not exist."""
    denied = (pl.col("rcode") == _NXDOMAIN).fill_null(value=False)
    searched = pl.col("search_id").is_not_null() & denied
    often = (pl.col("count") >= _LEAST) & (pl.col("count") >= _SHARE * pl.col("of"))
    several = pl.col("clients") > 1
    return (
        capture.table("dns")
        .filter(pl.col("client_ip").is_not_null())
        .group_by("client_ip")
        .agg(
            *evidence(denied, "ts_query", "query_frame"),
            searched=searched.sum(),
            example=pl.col("qname").filter(denied).mode().sort().first(),
        )
        .with_columns(searched=pl.when(often.sum() > 1).then(pl.col("searched").sum()).otherwise("searched"))
        .pipe(folded("client_ip", (), often))
        .select(
            finding(
                "dns",
                pl.when(several).then(pl.lit("several clients")).otherwise("client_ip"),
                pl.format(
                    "{} of {} questions of {} were for names that do not exist (as {}), {} of them by trying "
                    "search domains.",
                    "count",
                    "of",
                    pl.when(several)
                    .then(pl.format("{} clients, most of them of {},", "clients", "client_ip"))
                    .otherwise("client_ip"),
                    "example",
                    "searched",
                ),
                pl.when(several)
                .then(pl.lit("dns.flags.rcode == 3"))
                .otherwise(pl.format("{} && dns.flags.rcode == 3", address("client_ip"))),
            )
        )
    )


RULE = Rule("names-denied", find.__doc__ or "", ("dns",), find)
