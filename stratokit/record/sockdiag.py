"""Sockets that exist when a recording starts: cookie, inode, state and addresses, from NETLINK_SOCK_DIAG
(sock_diag(7)).
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _DUMP = 0x1, 0x300
_HEADER = struct.Struct("<IHHII")
# struct inet_diag_req_v2: family, protocol, extensions, pad, states, then 48 bytes of struct inet_diag_sockid
_QUERY = struct.Struct("<BBBBI48x")
# struct inet_diag_msg: family state timer retrans | sport dport (network order) src[16] dst[16] ifindex
# cookie[2] | expires rqueue wqueue uid inode
_MESSAGE = struct.Struct("<4B")
_PORTS = struct.Struct(">HH16s16s")
_REST = struct.Struct("<IQIIIII")
# Bits by state number. TIME_WAIT (6) is left out: no process holds such a socket, and there may be thousands.
_STATES = 0xFFFFFFFF & ~(1 << 6)


def _query(connection: socket.socket, family: int, protocol: int) -> list[dict[str, Any]]:
    body = _QUERY.pack(family, protocol, 0, 0, _STATES)
    connection.send(
        _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, 1, 0) + body
    )
    rows: list[dict[str, Any]] = []
    while True:
        data = connection.recv(1 << 18)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, at)
            if kind == _NLMSG_DONE:
                return rows
            if kind == _NLMSG_ERROR:
                (code,) = struct.unpack_from("<i", data, at + _HEADER.size)
                if -code == errno.ENOENT:
                    return rows  # no diagnostics for this protocol in this kernel
                raise OSError(-code, "sock_diag")
            rows.append(_row(data, at + _HEADER.size, protocol))
            at += (length + 3) & ~3


def _row(data: bytes, at: int, protocol: int) -> dict[str, Any]:
    family, state, _, _ = _MESSAGE.unpack_from(data, at)
    local_port, remote_port, local, remote = _PORTS.unpack_from(data, at + 4)
    _, cookie, _, _, _, uid, inode = _REST.unpack_from(data, at + 40)
    size = 4 if family == socket.AF_INET else 16
    return {
        "socket_cookie": cookie,
        "inode": inode,
        "protocol": protocol,
        "state": state,
        "local_ip": socket.inet_ntop(family, local[:size]),
        "local_port": local_port,
        "remote_ip": socket.inet_ntop(family, remote[:size]),
        "remote_port": remote_port,
        "uid": uid,
    }


def snapshot() -> list[dict[str, Any]]:
    """TCP and UDP sockets of this network namespace; empty where the kernel has no diagnostics."""
    rows: list[dict[str, Any]] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as connection:
            connection.settimeout(5)
            for family in (socket.AF_INET, socket.AF_INET6):
                for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
                    rows += _query(connection, family, protocol)
    except OSError:
        pass
    return rows
