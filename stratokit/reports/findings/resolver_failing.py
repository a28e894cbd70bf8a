"""A resolver that answers with an error of its own, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.protocols import dns
from stratokit.reports.findings.base import Rule, address, endpoint, evidence, finding

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST, _SHARE = 3, 0.1
_SERVFAIL, _REFUSED = 2, 5


def find(capture: Capture) -> pl.LazyFrame:
    """At least 3 questions of a resolver, and one in ten, failed."""
    errors = pl.col("rcode").is_in([_SERVFAIL, _REFUSED])
    failed = (errors | pl.col("rcode").is_null()).fill_null(value=True)
    return (
        capture.table("dns")
        .filter(pl.col("query_frame").is_not_null(), pl.col("server_ip").is_not_null(), ~dns.TO_GROUP)
        .group_by("server_ip", "server_port")
        .agg(
            *evidence(failed, "ts_query", "query_frame"),
            servfail=(pl.col("rcode") == _SERVFAIL).sum(),
            refused=(pl.col("rcode") == _REFUSED).sum(),
            unanswered=pl.col("rcode").is_null().sum(),
        )
        .filter(pl.col("count") >= _LEAST, pl.col("count") >= _SHARE * pl.col("of"))
        .select(
            finding(
                "dns",
                endpoint("server_ip", "server_port"),
                pl.format(
                    "The resolver {} failed {} of {} questions: {} SERVFAIL, {} REFUSED, {} unanswered.",
                    endpoint("server_ip", "server_port"),
                    "count",
                    "of",
                    "servfail",
                    "refused",
                    "unanswered",
                ),
                pl.format(
                    "{} && udp.port == {} && (dns.flags.rcode in {} || !dns.flags.rcode)",
                    address("server_ip"),
                    "server_port",
                    pl.lit(f"{{{_SERVFAIL}, {_REFUSED}}}"),
                ),
            )
        )
    )


RULE = Rule("resolver-failing", find.__doc__ or "", ("dns",), find)
