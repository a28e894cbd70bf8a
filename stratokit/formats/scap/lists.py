"""The lists that stand before the events, as current writers make them and every reader takes them."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence

from stratokit.formats.scap import blocks
from stratokit.formats.scap import metadata as md

# Longer texts make readers refuse the whole file.
TEXT_MAX, LIST_MAX, NAME_MAX = 1024, 4096, 255
# A block of this size is far from any reader's limit.
BLOCK_BYTES = 1 << 20
THREAD_FLAGS = 0x2001  # CLONE_THREAD and CLONE_FILES: its descriptors are those of the process
NO_LOGIN = 0xFFFFFFFF
SPEED_UNKNOWN = 0


def block(kind: int, body: bytes) -> bytes:
    """A whole block."""
    body += bytes(-len(body) % 4)
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def section() -> bytes:
    """The section header; options in it would keep old readers out."""
    return block(
        blocks.SECTION, struct.pack("<IHHQ", blocks.ORDER_MAGIC, blocks.MAJOR, blocks.MINOR, (1 << 64) - 1)
    )


def machine(host: md.Machine) -> bytes:
    """Block 201."""
    name = host.hostname.encode()[:127]
    numbers = struct.pack("<IQQ", host.num_cpus, host.memory_bytes, host.max_pid)
    return block(
        blocks.MACHINE, numbers + name.ljust(128, b"\0") + struct.pack("<QQQQ", host.boot_ns, 0, 0, 0)
    )


def _sized(text: bytes, most: int = TEXT_MAX) -> bytes:
    text = text[:most]
    return struct.pack("<H", len(text)) + text


def _cut_list(text: bytes) -> bytes:
    """Whole texts of a list, as many as may be."""
    return text if len(text) <= LIST_MAX else text[: text.rfind(b"\0", 0, LIST_MAX) + 1]


def _counted(entry: bytes) -> bytes:
    return struct.pack("<I", len(entry) + 4) + entry


def _blocks(kind: int, entries: Iterable[bytes], head: bytes = b"") -> list[bytes]:
    """Entries in blocks of a fair size; nothing when there are none."""
    found, body = [], b""
    for entry in entries:
        if len(body) + len(entry) > BLOCK_BYTES:
            found.append(block(kind, head + body))
            body = b""
        body += entry
    return [*found, block(kind, head + body)] if body else found


def processes(threads: Iterable[md.Process]) -> list[bytes]:
    """Process lists; the short end of an entry is the one that every reader takes."""
    return _blocks(blocks.PROCESSES, (_process(thread) for thread in threads))


def _process(thread: md.Process) -> bytes:
    flags = thread.flags | (THREAD_FLAGS if thread.tid != thread.pid else 0)
    cwd = thread.cwd if thread.cwd.endswith(b"/") else thread.cwd + b"/"
    return _counted(
        struct.pack("<QQQqq", thread.tid, thread.pid, thread.ptid, thread.sid, thread.vpgid)
        + _sized(thread.comm)
        + _sized(thread.exe)
        + _sized(thread.exepath)
        + _sized(_cut_list(thread.args), LIST_MAX)
        + _sized(cwd)
        + struct.pack("<QIII", 1024, flags, thread.uid, thread.gid)
        + bytes(28)
        + _sized(_cut_list(thread.env), LIST_MAX)
        + struct.pack("<qq", thread.tid, thread.pid)
        + _sized(_cut_list(thread.cgroups), LIST_MAX)
        + _sized(thread.root or b"/")
        + struct.pack("<IBQQQ", NO_LOGIN, 0, 0, 0, 0)
    )


def descriptors(tid: int, found: Iterable[md.Descriptor]) -> list[bytes]:
    """Descriptors of one process."""
    return _blocks(blocks.FDS, (_descriptor(item) for item in found), struct.pack("<Q", tid))


def _descriptor(item: md.Descriptor) -> bytes:
    head = struct.pack("<QQB", item.fd, item.inode, item.kind)
    ports = struct.pack("<HHB", item.local_port, item.remote_port, item.l4)
    if item.kind == md.IPV4:
        return _counted(head + item.local[12:] + item.remote[12:] + ports)
    if item.kind == md.IPV6:
        return _counted(head + item.local + item.remote + ports)
    if item.kind in (md.IPV4_SERVER, md.IPV6_SERVER):
        local = item.local[12:] if item.kind == md.IPV4_SERVER else item.local
        return _counted(head + local + struct.pack("<HB", item.local_port, item.l4))
    if item.kind == md.UNIX:
        return _counted(head + bytes(16) + _sized(item.name, TEXT_MAX - 1))
    if item.kind == md.FILE_V2:
        return _counted(
            head + struct.pack("<I", 0) + _sized(item.name, TEXT_MAX - 1) + struct.pack("<I", item.device)
        )
    return _counted(head + _sized(item.name, TEXT_MAX - 1))


def interfaces(named: Iterable[tuple[str, Sequence[str]]]) -> list[bytes]:
    """Interfaces by name with their addresses and prefix lengths."""
    entries = []
    for name, addresses in named:
        for text in addresses:
            at = ipaddress.ip_interface(text)
            last = at.network.broadcast_address if at.version == 4 else at.network.network_address
            raw = name.encode()[: TEXT_MAX - 1]
            entry = struct.pack("<HH", 1 if at.version == 4 else 2, len(raw))
            entry += at.ip.packed + at.netmask.packed + last.packed + struct.pack("<Q", SPEED_UNKNOWN) + raw
            entries.append(struct.pack("<I", len(entry)) + entry)
    return _blocks(blocks.INTERFACES, entries)


def users(found: Iterable[md.User]) -> list[bytes]:
    """Users and groups by name."""
    entries = []
    for user in found:
        name = _sized(user.name.encode(), NAME_MAX)
        if user.is_group:
            entries.append(_counted(struct.pack("<BI", 1, user.gid) + name))
        else:
            entries.append(_counted(struct.pack("<BII", 0, user.uid, user.gid) + name + bytes(4)))
    return _blocks(blocks.USERS, entries)
