"""Both ends of datagram sockets from their packets and from connect."""

from __future__ import annotations

import ipaddress
import struct
from types import SimpleNamespace

import numpy as np
import polars as pl

from stratokit.engine.ingest.datagrams import Datagrams

FIXED = np.dtype([("socket_cookie", "<u8"), ("direction", "u1"), ("packet_type", "u1")])
IN, OUT, BROADCAST = (1, 0), (2, 4), (1, 1)


def packet(source, source_port, target, target_port, proto=17, options=0, fragment=0):
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(target)
    ports = struct.pack(">HHHH", source_port, target_port, 8, 0)
    if a.version == 6:
        return struct.pack(">IHBB", 6 << 28, 8, proto, 64) + a.packed + b.packed + ports
    head = struct.pack(">BBHHHBBH", 0x45 + options, 0, 28, 1, fragment, 64, proto, 0) + a.packed + b.packed
    return head + bytes(4 * options) + ports


def batch(*packets):
    """(cookie, (direction, packet type), bytes) each."""
    fixed = np.array([(cookie, *where) for cookie, where, _ in packets], FIXED)
    sizes = np.array([len(data) for *_, data in packets], np.int64)
    data = np.frombuffer(b"".join(data for *_, data in packets), np.uint8).copy()
    return SimpleNamespace(fixed=fixed, data=data, sections={"data": (np.cumsum(sizes) - sizes, sizes)})


def ends(found, sockets=()):
    known = pl.DataFrame({"socket_cookie": list(sockets)}, schema={"socket_cookie": pl.UInt64})
    rows = found.rows(known).sort("socket_cookie")
    names = ("socket_cookie", "src_ip", "src_port", "dst_ip", "dst_port")
    return [tuple(row[name] for name in names if name in row) for row in rows.iter_rows(named=True)]


def test_the_local_end_is_that_of_the_first_packet():
    found = Datagrams()
    found.packets(
        batch(
            (1, OUT, packet("10.0.0.1", 4000, "10.0.0.2", 53)),
            (1, OUT, packet("10.0.0.9", 4001, "10.0.0.2", 53)),
            (2, IN, packet("10.0.0.2", 53, "10.0.0.1", 5000, options=2)),
            (3, IN, packet("fe80::2", 53, "fe80::1", 6000)),
            (4, OUT, packet("10.0.0.1", 80, "10.0.0.2", 81, proto=6)),
        )
    )
    found.packets(batch((1, OUT, packet("10.0.0.7", 7, "10.0.0.2", 53))))
    assert ends(found) == [
        (1, "10.0.0.1", 4000, None, None),
        (2, "10.0.0.1", 5000, None, None),
        (3, "fe80::1", 6000, None, None),
    ]


def test_what_does_not_tell_it_is_passed_over():
    """To many, a later fragment, cut before the ports, no packet at all, and no socket."""
    whole = packet("10.0.0.1", 4000, "10.0.0.2", 53)
    found = Datagrams()
    found.packets(
        batch(
            (1, BROADCAST, packet("10.0.0.2", 67, "255.255.255.255", 68)),
            (2, OUT, packet("10.0.0.1", 4000, "10.0.0.2", 53, fragment=5)),
            (3, OUT, whole[:20]),
            (4, OUT, b""),
            (0, OUT, whole),
            (5, OUT, b"\xff" * 64),
        )
    )
    assert ends(found) == []


def test_the_remote_end_is_the_last_connect():
    found = Datagrams()
    found.packets(batch(*((n, OUT, packet("10.0.0.1", 4000 + n, "10.0.0.2", 53)) for n in (1, 2, 3))))
    addresses = [
        struct.pack("<H", 2) + struct.pack(">H4s8x", 53, ipaddress.ip_address("10.0.0.2").packed),
        struct.pack("<H", 2) + struct.pack(">H4s8x", 54, ipaddress.ip_address("10.0.0.3").packed),
        struct.pack("<H", 10) + struct.pack(">HI16sI", 55, 0, ipaddress.ip_address("fe80::9").packed, 0),
        struct.pack("<H", 1) + b"/path",
        struct.pack("<H", 2) + b"\0",
    ]
    sizes = np.array([len(address) for address in addresses])
    data = np.frombuffer(b"".join(addresses), np.uint8).copy()
    cookies, times = np.array([1, 1, 2, 3, 3], np.uint64), np.array([1, 9, 5, 1, 2])
    found.connected(cookies, times, data, np.cumsum(sizes) - sizes, sizes)
    assert ends(found) == [
        (1, "10.0.0.1", 4001, "10.0.0.3", 54),
        (2, "10.0.0.1", 4002, "fe80::9", 55),
        (3, "10.0.0.1", 4003, None, None),
    ]
    # Those that the kernel told of have rows already.
    assert [row[0] for row in ends(found, sockets=[1, 3])] == [2]
