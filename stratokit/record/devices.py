"""Network devices whose frames are recorded: AF_PACKET sockets (packet(7)) with the program of bpf/devices.c.

The program hands frames to the ring buffer and lets none into its socket, so a socket is only what holds the
program to a device: closed with the recorder, however that ends, nothing stays behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import difflib
import fcntl
import os
import pathlib
import socket
import struct
from typing import TYPE_CHECKING, Any

from stratokit.errors import RecordError
from stratokit.record import netns, rtnetlink

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY = "any"
_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL
_SOL_PACKET, _ADD_MEMBERSHIP, _PROMISCUOUS = 263, 1, 1
_SO_ATTACH_BPF = 50
_SIOCGIFNAME, _SIOCGIFFLAGS, _SIOCGIFINDEX = 0x8910, 0x8913, 0x8933
_IFF_UP = 1
_IFNAMSIZ = 16
_ADDRESS = struct.Struct("=H2siHBB8x")  # struct sockaddr_ll; the protocol is in network order
_REQUEST = struct.Struct("=16si20x")  # struct ifreq
_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(slots=True)
class _Tap:
    """A socket with the program on one device, or on all of a namespace (`name` is ANY, `index` 0)."""

    name: str
    where: str
    socket: socket.socket
    index: int = 0
    up: bool = True

    def bind(self, index: int) -> None:
        """From now on frames of this device; also again, after an earlier one went away."""
        address = _ADDRESS.pack(socket.AF_PACKET, _ALL_PROTOCOLS.to_bytes(2, "big"), index, 0, 0, 0)
        # Python's own bind takes no index, which is what stands for all devices.
        if _libc.bind(self.socket.fileno(), address, len(address)):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self.index = index
        if index:
            membership = struct.pack("=iHH8x", index, _PROMISCUOUS, 0)
            with contextlib.suppress(OSError):  # a device without such a mode
                self.socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, membership)

    def look(self) -> tuple[bool, bool]:
        """Whether the device is there and up now; one of the same name takes the place of one that went."""
        if not self.name_of(self.index):
            self.index = 0
            if found := self._ask(_SIOCGIFINDEX, self.name):
                with contextlib.suppress(OSError):  # gone once more
                    self.bind(found)
        if not self.index:
            return False, False
        name = self.name_of(self.index)
        return bool(name), bool(name and self._ask(_SIOCGIFFLAGS, name) & _IFF_UP)

    def name_of(self, index: int) -> str:
        """Name of the device with that index, empty when there is none."""
        try:
            answer = fcntl.ioctl(self.socket, _SIOCGIFNAME, _REQUEST.pack(b"", index))
        except OSError:
            return ""
        return answer[:_IFNAMSIZ].rstrip(b"\0").decode(errors="surrogateescape")

    def _ask(self, what: int, name: str) -> int:
        try:
            answer = fcntl.ioctl(self.socket, what, _REQUEST.pack(os.fsencode(name), 0))
        except OSError:
            return 0
        value = int(struct.unpack_from("=i", answer, _IFNAMSIZ)[0])
        return value & 0xFFFF if what == _SIOCGIFFLAGS else value


class Devices:
    """The devices of one recording. `counts` has what became of them, by counter."""

    def __init__(self, interfaces: tuple[str, ...], namespaces: tuple[str, ...]) -> None:
        # With all devices of a namespace single ones would be seen twice.
        self._interfaces = (ANY,) if ANY in interfaces else tuple(dict.fromkeys(interfaces))
        self._namespaces = tuple(dict.fromkeys(namespaces))
        self._taps: list[_Tap] = []
        self._news: list[_News] = []
        self.counts: dict[str, int] = {}

    def open(self, program_fd: int) -> None:
        """Put the program on every device.

        Raises:
            RecordError: a device or namespace is not there, or the kernel refuses.
        """
        found: set[str] = set()
        names: list[str] = []
        places: set[int | None] = set()
        for given, path in self._places():
            try:
                with netns.inside(path) if path else contextlib.nullcontext():
                    news = _News()
                    self._news.append(news)
                    if news.where["netns_inode"] in places:
                        continue  # the same namespace by another name
                    places.add(news.where["netns_inode"])
                    names += (row["interface"] for row in news.known)
                    found |= {name for name in self._interfaces if self._open_one(name, given, program_fd)}
            except OSError as error:
                raise RecordError(_refused(given, error)) from error
        for name in self._interfaces:
            if name not in found:
                raise RecordError(f"there is no network device {name}{self._where()}{_near(name, names)}")

    def _open_one(self, name: str, where: str, program_fd: int) -> bool:
        try:
            index = 0 if name == ANY else socket.if_nametoindex(name)
        except OSError:
            return False
        if any(tap.index == index and tap.where == where for tap in self._taps):
            return True  # the same device by another name
        # Protocol 0: it gets nothing before the program is in place and it is bound.
        tap = _Tap(name, where, socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0))
        self._taps.append(tap)
        tap.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program_fd)
        tap.bind(index)
        if index:
            _, tap.up = tap.look()
            if not tap.up:
                self._count("device_down")
        return True

    def _places(self) -> Iterator[tuple[str, pathlib.Path | None]]:
        if not self._namespaces:
            yield "", None
        for name in self._namespaces:
            yield name, namespace_path(name)

    def _where(self) -> str:
        return f" in the network namespace {' or '.join(self._namespaces)}" if self._namespaces else ""

    def poll(self) -> list[dict[str, Any]]:
        """Rows of interfaces that came or were renamed since the last look; counts devices that went."""
        rows: list[dict[str, Any]] = []
        changed = False
        for news in self._news:
            more, missed = news.read()
            rows += [] if more is None else more
            changed = changed or more is not None
            self._count("device_events_missed", missed)
        for tap in self._taps if changed else ():
            if tap.name == ANY:
                continue
            was_there, was_up = bool(tap.index), tap.up
            there, tap.up = tap.look()
            if was_there and not there:
                self._count("device_gone")
            elif was_up and not tap.up and there:
                self._count("device_down")
        return rows

    def _count(self, counter: str, amount: int = 1) -> None:
        if amount:
            self.counts[counter] = self.counts.get(counter, 0) + amount

    def close(self) -> None:
        """Let go of all devices."""
        for tap in self._taps:
            tap.socket.close()
        for news in self._news:
            news.close()
        self._taps, self._news = [], []


class _News:
    """What changes among the devices of the present namespace (rtnetlink(7), group RTMGRP_LINK)."""

    def __init__(self) -> None:
        self.where = netns.here()
        self._socket = rtnetlink.news()
        self.known = rtnetlink.interfaces()
        self._seen = {(row["ifindex"], row["interface"]) for row in self.known}

    def read(self) -> tuple[list[dict[str, Any]] | None, int]:
        """Rows of devices not seen before, None when nothing at all changed; and how often news were lost."""
        rows: list[dict[str, Any]] | None = None
        missed = 0
        while True:
            try:
                messages = rtnetlink.read_news(self._socket)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: too many at once
                missed, messages = missed + 1, []
            rows = [] if rows is None else rows
            for row in messages:
                if (key := (row["ifindex"], row["interface"])) not in self._seen:
                    self._seen.add(key)
                    rows.append(row | self.where)
        return rows, missed

    def close(self) -> None:
        self._socket.close()


def namespace_path(name: str) -> pathlib.Path:
    """A network namespace as ip-netns(8) names it, by a process in it, or by a path.

    Raises:
        RecordError: there is none, with those that have names.
    """
    named = netns.NAMED / name
    if "/" in name:
        path = pathlib.Path(name)
    elif named.exists() or not name.isdigit():
        path = named
    else:
        path = netns.PROC / name / "ns" / "net"
    if not path.exists():
        known = sorted(entry.name for entry in netns.NAMED.iterdir()) if netns.NAMED.is_dir() else []
        what = "process" if path.is_relative_to(netns.PROC) and name.isdigit() else "network namespace"
        raise RecordError(f"there is no {what} {name}{_near(name, known)}")
    return path


def _near(name: str, known: list[str]) -> str:
    if not known:
        return ""
    near = difflib.get_close_matches(name, known, 3, 0.4) or known[:6]
    return f"; there {'is' if len(near) == 1 else 'are'} {', '.join(near)}"


def _refused(where: str, error: OSError) -> str:
    there = f" in the network namespace {where}" if where else ""
    if isinstance(error, PermissionError):
        needed = "CAP_NET_RAW" + (" and CAP_SYS_ADMIN, to enter the namespace" if where else "")
        return f"frames of network devices{there} need {needed}, or root"
    return f"the kernel refuses to record network devices{there}: {error.strerror}"
