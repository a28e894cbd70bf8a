"""The lists before the events: machine, interfaces, users, processes, descriptors; every version of them."""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from collections.abc import Iterator
from typing import Any

from stratokit.formats.scap import blocks
from stratokit.formats.scap.process_list import Process, processes

__all__ = [
    "CutError", "Descriptor", "InterfaceEntry", "Machine", "Process", "User", "read",
]  # fmt: skip

# Kinds of descriptors in fd lists.
FILE, DIRECTORY, IPV4, IPV6, IPV4_SERVER, IPV6_SERVER, FIFO, UNIX, EVENTFD = 1, 2, 3, 4, 5, 6, 7, 8, 9
UNSUPPORTED, SIGNALFD, EVENTPOLL, INOTIFY, TIMERFD, NETLINK, FILE_V2 = 10, 11, 12, 13, 14, 15, 16
L4_NAMES = {2: "tcp", 3: "udp", 4: "icmp", 5: "raw"}


_NUMBERS = {code: struct.Struct("<" + code) for code in "BHIQq"}


class CutError(ValueError):
    """A list ends in the middle of an entry."""


class Cursor:
    """Takes numbers and texts from the bytes of a list, one behind the other."""

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data, self.at = data, at
        self.end = len(data) if end is None else end

    @property
    def left(self) -> int:
        """Bytes that were not taken yet."""
        return self.end - self.at

    def raw(self, size: int) -> bytes:
        """The next bytes."""
        if size > self.left:
            raise CutError(f"a list ends {size - self.left} bytes too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> int:
        """The next number, by its code of `struct`."""
        form = _NUMBERS[code]
        if form.size > self.left:
            raise CutError(f"a list ends {form.size - self.left} bytes too early")
        self.at += form.size
        value: int = form.unpack_from(self.data, self.at - form.size)[0]
        return value

    def sized(self) -> bytes:
        """Bytes behind their length of 2."""
        return self.raw(self.number("H"))

    def entries(self, counts_itself: bool) -> Iterator[Cursor]:
        """Entries that begin with their length of 4; each has a cursor of its own, so it may grow."""
        while self.left >= 4:
            size = self.number("I") - (4 if counts_itself else 0)
            if size < 0 or size > self.left:
                raise CutError("an entry of a list claims an impossible length")
            yield Cursor(self.data, self.at, self.at + size)
            self.at += size


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """The host; zero is unknown."""

    num_cpus: int = 0
    memory_bytes: int = 0
    max_pid: int = 0
    hostname: str = ""
    boot_ns: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Descriptor:
    """A descriptor of the fd list; addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d, the local one first."""

    tid: int
    fd: int
    inode: int
    kind: int
    name: bytes = b""
    local: bytes = bytes(16)
    remote: bytes = bytes(16)
    local_port: int = 0
    remote_port: int = 0
    l4: int = 0
    device: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class InterfaceEntry:
    """An interface with its address and prefix length as text."""

    name: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """A user, or a group when `is_group`."""

    is_group: bool
    uid: int
    gid: int
    name: str


def machine(body: bytes) -> Machine:
    """From block 201."""
    cursor = Cursor(body)
    cpus, memory, max_pid = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
    host = cursor.raw(128).split(b"\0")[0].decode("utf-8", "replace")
    return Machine(cpus, memory, max_pid, host, cursor.number("Q") if cursor.left >= 8 else 0)


def _address(cursor: Cursor, size: int) -> bytes:
    raw = cursor.raw(size)
    return raw if size == 16 else bytes(10) + b"\xff\xff" + raw


def _descriptor(cursor: Cursor, tid: int, version: int) -> Descriptor:
    fd, inode, kind = cursor.number("Q"), cursor.number("Q"), cursor.number("B")
    if kind in (IPV4, IPV6):
        size = 4 if kind == IPV4 else 16
        local, remote = _address(cursor, size), _address(cursor, size)
        ports = cursor.number("H"), cursor.number("H")
        return Descriptor(tid, fd, inode, kind, b"", local, remote, *ports, cursor.number("B"))
    if kind in (IPV4_SERVER, IPV6_SERVER):
        local = _address(cursor, 4 if kind == IPV4_SERVER else 16)
        port, l4 = cursor.number("H"), cursor.number("B")
        return Descriptor(tid, fd, inode, kind, local=local, local_port=port, l4=l4)
    if kind == UNIX:
        cursor.raw(16)  # addresses of the two ends in the kernel
        return Descriptor(tid, fd, inode, kind, cursor.sized())
    if kind == FILE_V2:
        cursor.raw(4)  # flags it was opened with
        name = cursor.sized()
        device = cursor.number("I") if version >= 2 and cursor.left >= 4 else 0
        return Descriptor(tid, fd, inode, kind, name, device=device)
    return Descriptor(tid, fd, inode, kind, cursor.sized())


def descriptors(body: bytes, version: int) -> Iterator[Descriptor]:
    """From a fd list, which is of one thread."""
    cursor = Cursor(body)
    tid = cursor.number("Q")
    if version >= 2:
        for entry in cursor.entries(counts_itself=True):
            yield _descriptor(entry, tid, version)
        return
    while cursor.left >= 17:
        yield _descriptor(cursor, tid, version)


def _interface(cursor: Cursor) -> InterfaceEntry:
    kind, length = cursor.number("H"), cursor.number("H")
    size = 4 if kind in (1, 3) else 16
    address, mask, _ = cursor.raw(size), cursor.raw(size), cursor.raw(size)
    if kind in (1, 2):
        cursor.raw(8)  # speed
    name = cursor.raw(length).decode("utf-8", "replace")
    prefix = int.from_bytes(mask, "big").bit_count()
    return InterfaceEntry(name, f"{ipaddress.ip_address(address)}/{prefix}")


def interfaces(body: bytes, version: int) -> Iterator[InterfaceEntry]:
    """From an interface list."""
    cursor = Cursor(body)
    if version >= 2:
        for entry in cursor.entries(counts_itself=False):
            yield _interface(entry)
        return
    while cursor.left >= 4:
        yield _interface(cursor)


def _user(cursor: Cursor) -> User:
    if cursor.number("B"):
        return User(True, 0, cursor.number("I"), cursor.sized().decode("utf-8", "replace"))
    uid, gid = cursor.number("I"), cursor.number("I")
    found = User(False, uid, gid, cursor.sized().decode("utf-8", "replace"))
    cursor.sized(), cursor.sized()  # home, shell
    return found


def users(body: bytes, version: int) -> Iterator[User]:
    """From a list of users and groups."""
    cursor = Cursor(body)
    if version >= 2:
        for entry in cursor.entries(counts_itself=True):
            yield _user(entry)
        return
    while cursor.left >= 4:
        yield _user(cursor)


def read(kind: int, body: bytes) -> Any:
    """What a list holds, as (name, values), or None for a block that is no list.

    Raises:
        CutError: its entries contradict their lengths.
    """
    if kind in blocks.MACHINE_BLOCKS:
        return "machine", machine(body)
    if kind in blocks.PROCESS_BLOCKS:
        found = processes(body, blocks.PROCESS_BLOCKS[kind])
        if found is None:
            raise CutError("an entry of a process list contradicts its length")
        return "processes", found
    for name, versions, parse in (
        ("descriptors", blocks.FD_BLOCKS, descriptors),
        ("interfaces", blocks.INTERFACE_BLOCKS, interfaces),
        ("users", blocks.USER_BLOCKS, users),
    ):
        if kind in versions:
            return name, list(parse(body, versions[kind]))
    return None
