"""A certificate that is not valid, or soon will not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stratokit.reports.findings.base import Rule, address, counted, endpoint, evidence, finding, quoted

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

_SOON_DAYS = 14


def find(capture: Capture) -> pl.LazyFrame:
    """A server showed a certificate that had expired, was not valid yet, or ended within 14 days."""
    left = pl.col("cert_not_after") - pl.col("ts")
    wrong = (left < pl.duration(days=_SOON_DAYS)) | (pl.col("cert_not_before") > pl.col("ts"))
    day = pl.col("cert_not_after").dt.strftime("%Y-%m-%d")
    state = (
        pl.when(pl.col("early"))
        .then(pl.format("is not valid before {}", pl.col("cert_not_before").dt.strftime("%Y-%m-%d")))
        .when(pl.col("left") < pl.duration(days=0))
        .then(pl.format("expired on {}", day))
        .otherwise(pl.format("expires on {}, in {}", day, counted("days_left", "day")))
    )
    return (
        capture.table("tls")
        .filter(pl.col("cert_not_after").is_not_null(), pl.col("server_ip").is_not_null())
        .group_by("server_ip", "server_port", "cert_subject", "cert_not_before", "cert_not_after")
        .agg(
            *evidence(wrong.fill_null(value=False), "ts", "client_hello_frame"),
            left=left.min(),
            early=(pl.col("cert_not_before") > pl.col("ts")).any(),
        )
        .filter(pl.col("count") > 0)
        .with_columns(days_left=pl.col("left").dt.total_days())
        .select(
            finding(
                "tls",
                endpoint("server_ip", "server_port"),
                pl.format(
                    "The certificate {} of {} {}.",
                    pl.col("cert_subject").fill_null("without a subject"),
                    endpoint("server_ip", "server_port"),
                    state,
                ),
                pl.format(
                    "{} && tcp.dstport == {} && x509sat.uTF8String == {}",
                    address("server_ip"),
                    "server_port",
                    quoted("cert_subject"),
                ),
            )
        )
    )


RULE = Rule("certificate", find.__doc__ or "", ("tls",), find)
