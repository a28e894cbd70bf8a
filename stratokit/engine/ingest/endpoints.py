"""Which socket a frame at a device belongs to: the addresses of sockets, by time.

A socket's packets are seen at the IP layer as well, where each pair of addresses is noted once. A frame
belongs to the socket that last had its addresses in the network namespace of its device; a frame that came
before its packet got to a socket, to the first that had them afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stratokit.dissect.layers import HAS_ICMP_ID, HAS_IP_PROTO, HAS_PORTS

if TYPE_CHECKING:
    from stratokit.formats.events import Batch

SCHEMA: dict[str, Any] = {"key": pl.UInt64, "ts": pl.Int64, "socket_cookie": pl.UInt64}
ECHO = (0, 8, 128, 129)  # ICMP and ICMPv6: echo and its reply, whose identifier stands for the local port
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


def _keys(local: Any, remote: Any, ports: tuple[Any, Any], proto: Any, netns: Any) -> Any:
    """One number (u64) for addresses, ports, protocol and namespace; equal ones by chance are 1 in 2^64."""
    value = netns.astype(np.uint64)
    words = [np.ascontiguousarray(address).view("<u8").reshape(-1, 2) for address in (local, remote)]
    last = ports[0].astype(np.uint64) << np.uint64(32) | ports[1].astype(np.uint64) << np.uint64(16)
    for part in (*(word[:, i] for word in words for i in (0, 1)), last | proto.astype(np.uint64)):
        value = (value ^ part) * _FACTOR
        value ^= value >> _SHIFT
    return value


def evidence(batch: Batch) -> dict[str, Any]:
    """Columns of SCHEMA from records of the event `endpoint`; times as the kernel's."""
    fixed = batch.fixed
    ports = (fixed["local_port"], fixed["remote_port"])
    keys = _keys(fixed["local_ip"], fixed["remote_ip"], ports, fixed["protocol"], fixed["netns_cookie"])
    return {"key": keys, "ts": fixed["ts_ns"].astype(np.int64), "socket_cookie": fixed["socket_cookie"]}


def cookies(ends: pl.DataFrame, found: dict[str, Any], ts: Any, outgoing: Any, netns: Any) -> pl.Series:
    """Cookie of the local socket of each dissected frame, null where none had its addresses."""
    filled = found["layers"]
    ports = [np.where(filled & HAS_PORTS, found[name], 0) for name in ("src_port", "dst_port")]
    echo = (filled & HAS_ICMP_ID != 0) & np.isin(found["icmp_type"], ECHO)
    own = np.where(echo, found["icmp_id"], np.where(outgoing, ports[0], ports[1]))
    other = np.where(outgoing, ports[1], ports[0])
    sender = outgoing[:, None]
    local = np.where(sender, found["src_ip"], found["dst_ip"])
    remote = np.where(sender, found["dst_ip"], found["src_ip"])
    frame = pl.DataFrame(
        {
            "key": _keys(local, remote, (own, other), found["ip_proto"], netns),
            "ts": ts,
            "known": (filled & HAS_IP_PROTO) != 0,
        }
    ).with_row_index("row")
    wanted = frame.filter("known").sort("ts")
    joined = [
        wanted.join_asof(ends, on="ts", by="key", strategy=strategy, check_sortedness=False)
        for strategy in ("backward", "forward")
    ]
    cookie = joined[0].select("row", pl.coalesce("socket_cookie", joined[1]["socket_cookie"]))
    return frame.join(cookie, on="row", how="left", maintain_order="left")["socket_cookie"]
