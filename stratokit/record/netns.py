"""Interfaces and sockets of every network namespace of the host, each asked inside the namespace.

An interface index means something only within its namespace. Events carry a namespace's cookie, /proc its
inode: both are noted.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import socket
import struct
from typing import TYPE_CHECKING, Any

from stratokit.record import rtnetlink, sockdiag

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = pathlib.Path("/proc")
NAMED = pathlib.Path("/run/netns")  # where `ip netns add` keeps those without a process
_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71  # since Linux 5.14
_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(slots=True)
class Networks:
    """Rows for the spool, and how many namespaces could not be entered."""

    interfaces: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    sockets: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    unreadable: int = 0


def snapshot(with_sockets: bool = True) -> Networks:
    """Interfaces and, unless not wanted, TCP and UDP sockets of all namespaces; the recorder's own first."""
    result = Networks()
    own = os.stat("/proc/self/ns/net").st_ino
    _add(result, own, with_sockets)
    for inode, path in _others(own).items():
        try:
            with inside(path):
                _add(result, inode, with_sockets)
        except FileNotFoundError:
            continue  # its last process has ended
        except OSError:
            result.unreadable += 1
    return result


def here() -> dict[str, int | None]:
    """What names the present namespace in rows of interfaces and sockets."""
    return {"netns_cookie": _cookie(), "netns_inode": os.stat("/proc/thread-self/ns/net").st_ino}


def there_are_others() -> bool:
    """Whether the host has network namespaces beside ours, as far as we may see."""
    return bool(_others(os.stat("/proc/self/ns/net").st_ino))


def _add(result: Networks, inode: int, with_sockets: bool) -> None:
    where = {"netns_cookie": _cookie(), "netns_inode": inode}
    result.interfaces += [row | where for row in rtnetlink.interfaces()]
    if with_sockets:
        result.sockets += [row | where for row in sockdiag.snapshot()]


def _others(own: int) -> dict[int, pathlib.Path]:
    found: dict[int, pathlib.Path] = {}
    numbers = [PROC / name / "ns" / "net" for name in os.listdir(PROC) if name.isdigit()]
    named = sorted(NAMED.iterdir()) if NAMED.is_dir() else []
    for path in (*numbers, *named):
        try:
            found.setdefault(path.stat().st_ino, path)
        except OSError:
            continue  # it ended, or is another user's
    found.pop(own, None)
    return found


def _cookie() -> int | None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            return int(struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])
    except OSError:
        return None


@contextlib.contextmanager
def inside(path: pathlib.Path) -> Iterator[None]:
    """This thread in another network namespace. Sockets belong to the one in which they were made."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
