"""An HTTP endpoint that answers with server errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, evidence, finding, quoted

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_LEAST, _SHARE = 3, 0.05


def find(capture: Capture) -> pl.LazyFrame:
    """At least 3 requests of a host, and one in twenty, were answered with status 500 or above."""
    failed = (pl.col("status") >= 500).fill_null(value=False)
    return (
        capture.table("http")
        .filter(pl.col("host").is_not_null())
        .group_by("host")
        .agg(
            *evidence(failed, "ts_request", "response_frame"),
            status=pl.col("status").filter(failed).mode().sort().first(),
            path=pl.col("path").filter(failed).mode().sort().first(),
        )
        .filter(pl.col("count") >= _LEAST, pl.col("count") >= _SHARE * pl.col("of"))
        .select(
            finding(
                "http",
                pl.col("host"),
                pl.format(
                    "{} answered {} of {} requests with a server error, most often {}, as for {}.",
                    "host",
                    "count",
                    "of",
                    "status",
                    "path",
                ),
                pl.format("http.host == {} && http.response.code >= 500", quoted("host")),
            )
        )
    )


RULE = Rule("server-errors", find.__doc__ or "", ("http",), find)
