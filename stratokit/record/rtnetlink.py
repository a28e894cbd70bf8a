"""Interfaces of the present network namespace with their addresses (rtnetlink(7))."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEW_LINK, _GET_LINK, _GET_ADDRESS = 16, 18, 22
_GROUP_LINK = 1  # RTMGRP_LINK
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _DUMP = 0x1, 0x300
_HEADER = struct.Struct("<IHHII")
_LINK = struct.Struct("<BxHiII")  # struct ifinfomsg: family, device type, index, flags, change
_ADDRESS = struct.Struct("<BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("<HH")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU = 1, 3, 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


def interfaces() -> list[dict[str, Any]]:
    """One row an interface, in order of index; empty where the kernel does not answer."""
    rows: dict[int, dict[str, Any]] = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as connection:
            connection.settimeout(5)
            for body in _dump(connection, _GET_LINK, bytes(_LINK.size)):
                if (row := _link(body)) is not None:
                    rows[row["ifindex"]] = row
            for body in _dump(connection, _GET_ADDRESS, bytes(_ADDRESS.size)):
                family, bits, _, _, index = _ADDRESS.unpack_from(body)
                found = dict(_attributes(body, _ADDRESS.size))
                # Of a point-to-point link IFA_ADDRESS is the other end.
                address = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
                if address and index in rows and family in (socket.AF_INET, socket.AF_INET6):
                    rows[index]["addresses"].append(f"{socket.inet_ntop(family, address)}/{bits}")
    except (OSError, KeyError, struct.error):
        pass
    return [rows[index] for index in sorted(rows)]


def _link(body: bytes) -> dict[str, Any] | None:
    _, device_type, index, _, _ = _LINK.unpack_from(body)
    found = dict(_attributes(body, _LINK.size))
    if _IFLA_IFNAME not in found:
        return None
    return {
        "ifindex": index,
        "interface": found[_IFLA_IFNAME].rstrip(b"\0").decode(errors="backslashreplace"),
        "mac": found.get(_IFLA_ADDRESS, b"").hex(":"),
        "mtu": int.from_bytes(found.get(_IFLA_MTU, b""), "little"),
        "device_type": device_type,
        "addresses": [],
    }


def news() -> socket.socket:
    """A socket on which the kernel tells of changes of devices in the present namespace; it never waits."""
    connection = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    try:
        connection.bind((0, _GROUP_LINK))
    except OSError:
        connection.close()
        raise
    return connection


def read_news(connection: socket.socket) -> list[dict[str, Any]]:
    """Rows of the devices that one message is about, without addresses; none for those that went.

    Raises:
        BlockingIOError: there is no message. Another OSError: messages were lost.
    """
    links = (_link(body) for kind, body in _messages(connection.recv(1 << 18)) if kind == _NEW_LINK)
    return [row for row in links if row is not None]


def _dump(connection: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    connection.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 1, 0) + body)
    while True:
        for answer, content in _messages(connection.recv(1 << 18)):
            if answer == _NLMSG_DONE:
                return
            if answer == _NLMSG_ERROR:
                raise OSError(-struct.unpack_from("<i", content)[0], "rtnetlink")
            yield content


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, body[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
