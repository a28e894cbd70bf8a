"""Rows of kind `interface`, and which of them a packet came through: an index counts within its namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from stratokit.engine.ingest.survey import Survey

LINKTYPE_RAW, LINKTYPE_ETHERNET = 101, 1
ARPHRD_LOOPBACK = 772
# Devices by ARPHRD_ number (include/uapi/linux/if_arp.h) and the LINKTYPE_ of what stands in their frames, as
# libpcap has it. Of others the packet is kept from the network layer on.
LINK_TYPES = {
    1: LINKTYPE_ETHERNET,
    ARPHRD_LOOPBACK: LINKTYPE_ETHERNET,
    280: 227,  # CAN
    801: 105,  # IEEE 802.11
    803: 127,  # IEEE 802.11 with radiotap
    824: 253,  # netlink monitor
}
SCHEMA: dict[str, Any] = {
    "ifindex": pl.UInt32,
    "interface": pl.String,
    "mac": pl.String,
    "mtu": pl.UInt32,
    "addresses": pl.List(pl.String),
    "netns": pl.UInt64,
    "device_type": pl.UInt16,
}


def _table(found: Survey) -> pl.DataFrame:
    rows = found.tables.get("interfaces", {"rows": []})["rows"]
    frame = pl.DataFrame(
        {name: [row.get({"netns": "netns_cookie"}.get(name, name)) for row in rows] for name in SCHEMA},
        schema=SCHEMA,
    )
    # One that changed while recording was noted again.
    return frame.unique(["netns", "ifindex"], keep="last", maintain_order=True)


def rows(found: Survey) -> pl.DataFrame:
    """One row an interface; `netns` is null where the kernel gives namespaces no cookies."""
    ts = int(found.clock.utc_ns(found.tables.get("interfaces", {"monotonic_ns": 0})["monotonic_ns"]))
    link: pl.Expr = pl.lit(LINKTYPE_RAW, pl.UInt16)
    if "devices" in found.opening.get("programs", ()):  # else packets are from sockets, at the IP layer
        link = pl.col("device_type").replace_strict(LINK_TYPES, default=LINKTYPE_RAW, return_dtype=pl.UInt16)
    return _table(found).with_columns(pl.lit(ts).alias("ts"), link.alias("link_type"))


class Interfaces:
    """Names packets' interfaces."""

    def __init__(self, found: Survey) -> None:
        table = _table(found)
        self._several = table["netns"].n_unique() > 1
        self._only = None if self._several or table.is_empty() else table["netns"][0]
        self._exact = table.select("netns", "ifindex", "interface").drop_nulls("netns")
        # Where the namespace is not known, an index still tells the name if all that have it agree.
        same = table.group_by("ifindex").agg(
            pl.col("interface").first(), (pl.col("interface").n_unique() == 1).alias("agreed")
        )
        self._agreed = dict(same.filter("agreed").select("ifindex", "interface").iter_rows())
        older = [
            (row["socket_cookie"], row["netns_cookie"])
            for row in found.tables.get("sockets", {"rows": []})["rows"]
            if row.get("netns_cookie") is not None
        ]
        self._homes = (
            pl.concat(
                [
                    found.homes.filter(pl.col("netns") != 0).select("socket_cookie", "netns"),
                    pl.DataFrame(
                        older, schema={"socket_cookie": pl.UInt64, "netns": pl.UInt64}, orient="row"
                    ),
                ]
            )
            if self._several
            else found.homes.clear().select("socket_cookie", "netns")
        ).unique("socket_cookie")

    def names_at(self, namespaces: Any, indexes: Any) -> pl.Series:
        """Name of the interface with that index in the network namespace of that cookie."""
        frame = pl.DataFrame({"netns": namespaces, "ifindex": np.asarray(indexes, np.uint32)})
        named = frame.join(self._exact, on=["netns", "ifindex"], how="left", maintain_order="left")
        return named["interface"]

    def places(self, cookies: pl.Series, indexes: Any) -> tuple[pl.Series, pl.Series]:
        """Name and network namespace of packets' interfaces, by the cookie of the socket and the index."""
        frame = pl.DataFrame({"socket_cookie": cookies, "ifindex": np.asarray(indexes, np.uint32)})
        frame = frame.with_columns(
            pl.col("ifindex")
            .replace_strict(self._agreed, default=None, return_dtype=pl.String)
            .alias("agreed")
        )
        if not self._several:
            return frame["agreed"], pl.repeat(self._only, frame.height, dtype=pl.UInt64, eager=True)
        frame = frame.join(self._homes, on="socket_cookie", how="left", maintain_order="left")
        frame = frame.join(self._exact, on=["netns", "ifindex"], how="left", maintain_order="left")
        known = pl.when(pl.col("netns").is_null()).then("agreed").otherwise("interface")
        return frame.select(known).to_series(), frame["netns"]
