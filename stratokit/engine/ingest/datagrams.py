"""Ends of datagram sockets. No event of the kernel tells them: the local one is in the socket's packets, the
remote one is what it was connected to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.addresses import address_column, versions_of
from stratokit.formats import events

if TYPE_CHECKING:
    from stratokit.formats.events import Batch

UDP = 17
_IN = 1
_TO_HOST, _OUTGOING = 0, 4  # packet_type: not what was sent to many
# As much of a packet as holds an IPv4 header with options, or an IPv6 header, and both ports.
_HEAD_BYTES = 64
_INET, _INET6 = 2, 10
_KEY: dict[str, Any] = {"socket_cookie": pl.UInt64}
LOCAL = _KEY | {"src_ip": pl.String, "src_port": pl.UInt16}
REMOTE = _KEY | {"ts": pl.Int64, "dst_ip": pl.String, "dst_port": pl.UInt16}


class Datagrams:
    """Both ends of datagram sockets: the local one that the first packet of each shows, and the last one that
    it was connected to. Memory: one row a socket.
    """

    def __init__(self) -> None:
        self._known = np.zeros(0, np.uint64)
        self._local = [pl.DataFrame(schema=LOCAL)]
        self._remote = [pl.DataFrame(schema=REMOTE)]

    def packets(self, batch: Batch) -> None:
        """Take what packets of sockets that were not seen before say."""
        fixed = batch.fixed
        own = (fixed["socket_cookie"] != 0) & np.isin(fixed["packet_type"], (_TO_HOST, _OUTGOING))
        chosen = np.flatnonzero(own)
        cookies, first = np.unique(fixed["socket_cookie"][chosen], return_index=True)
        new = ~np.isin(cookies, self._known)
        cookies, chosen = cookies[new], chosen[first[new]]
        if cookies.size:
            self._known = np.union1d(self._known, cookies)
            heads = _heads(batch.data, *(part[chosen] for part in batch.sections["data"]))
            self._local.append(_local(cookies, heads, fixed["direction"][chosen] == _IN))

    def connected(self, cookies: Any, ts: Any, data: np.ndarray, start: Any, length: Any) -> None:
        """Take the addresses (struct sockaddr at `start`) that sockets were connected to."""
        heads = _heads(data, start, length)
        family = heads[:, 0].astype(np.int64) | heads[:, 1].astype(np.int64) << 8
        wide = (family == _INET6) & (length >= 24)
        chosen = np.flatnonzero(wide | ((family == _INET) & (length >= 8)))
        heads, wide = heads[chosen], wide[chosen]
        ips = _mapped(heads[:, 4:8], heads[:, 8:24], wide)
        port = heads[:, 2].astype(np.uint16) << 8 | heads[:, 3]
        found = {"socket_cookie": cookies[chosen], "ts": ts[chosen], "dst_ip": _text(ips), "dst_port": port}
        self._remote.append(pl.DataFrame(found, schema=REMOTE))

    def rows(self, sockets: pl.DataFrame) -> pl.DataFrame:
        """Rows like those of kind socket, one for each datagram socket that `sockets` do not have."""
        last = pl.concat(self._remote).sort("ts").unique("socket_cookie", keep="last").drop("ts")
        local = pl.concat(self._local).join(sockets.select("socket_cookie"), on="socket_cookie", how="anti")
        found = local.join(last, on="socket_cookie", how="left", maintain_order="left")
        return found.with_columns(ts=pl.lit(0, pl.Int64), ip_proto=pl.lit(UDP, pl.UInt8))


def _heads(data: np.ndarray, start: Any, length: Any) -> np.ndarray:
    """The first bytes at each place, zero behind its length."""
    sizes = np.minimum(length, _HEAD_BYTES).astype(np.int64)
    found, _ = events.gather(data, start, sizes)
    heads = np.zeros((sizes.size, _HEAD_BYTES), np.uint8)
    heads[np.arange(_HEAD_BYTES) < sizes[:, None]] = found
    return heads


def _mapped(narrow: np.ndarray, wide: np.ndarray, is_wide: np.ndarray) -> np.ndarray:
    """16 bytes an address, IPv4 as ::ffff:a.b.c.d."""
    ips = wide.copy()
    ips[~is_wide] = 0
    ips[~is_wide, 10:12] = 255
    ips[~is_wide, 12:16] = narrow[~is_wide]
    return ips


def _text(ips: np.ndarray) -> pl.Series:
    found = pl.from_arrow(address_column(ips, versions_of(ips)))
    assert isinstance(found, pl.Series)
    return found.cast(pl.String)


def _local(cookies: np.ndarray, heads: np.ndarray, inbound: np.ndarray) -> pl.DataFrame:
    """Local ends of those packets that begin a UDP datagram (RFC 791 3.1, RFC 8200 3, RFC 768)."""
    version = heads[:, 0] >> 4
    whole = (heads[:, 6] & 0x1F == 0) & (heads[:, 7] == 0)  # only the first fragment has ports
    wide = (version == 6) & (heads[:, 6] == UDP)
    chosen = np.flatnonzero(wide | ((version == 4) & (heads[:, 9] == UDP) & whole))
    heads, wide, inbound = heads[chosen], wide[chosen], inbound[chosen]
    narrow = np.where(inbound[:, None], heads[:, 16:20], heads[:, 12:16])
    ips = _mapped(narrow, np.where(inbound[:, None], heads[:, 24:40], heads[:, 8:24]), wide)
    at = np.where(wide, 40, 4 * (heads[:, 0] & 15).astype(np.int64)) + 2 * inbound
    row = np.arange(chosen.size)
    port = heads[row, at].astype(np.uint16) << 8 | heads[row, at + 1]
    known = port > 0  # else it was cut before its ports
    found = {"socket_cookie": cookies[chosen], "src_ip": _text(ips), "src_port": port}
    return pl.DataFrame(found, schema=LOCAL).filter(pl.Series(known))
