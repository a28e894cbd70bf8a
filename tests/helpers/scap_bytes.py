"""scap files byte by byte, written from the description of the format and not with the project's writer."""

from __future__ import annotations

import struct

U16, U32, U64 = "<H", "<I", "<Q"


def block(kind: int, body: bytes, length: int | None = None) -> bytes:
    body += bytes(-len(body) % 4)
    total = struct.pack(U32, len(body) + 12 if length is None else length)
    return struct.pack(U32, kind) + total + body + total


def section(minor: int = 2, options: bytes = b"") -> bytes:
    return block(0x0A0D0D0A, struct.pack("<IHHQ", 0x1A2B3C4D, 1, minor, 2**64 - 1) + options)


def machine(host: str = "web-1", cpus: int = 4) -> bytes:
    body = struct.pack("<IQQ128sQQQQ", cpus, 8 << 30, 32768, host.encode(), 0, 0, 0, 0)
    return block(0x201, body)


def sized(text: bytes) -> bytes:
    return struct.pack(U16, len(text)) + text


def process(
    version: int, tid: int, pid: int, comm: str, args: bytes = b"", cwd: str = "/srv/", cgroups: bytes = b"",
    ptid: int = 1, tail: bytes = b"", flags: int = 0,
) -> bytes:  # fmt: skip
    """An entry of a process list as its version has it."""
    out = struct.pack("<QQQ", tid, pid, ptid)
    out += struct.pack("<q", 7) if version >= 6 else b""
    out += struct.pack("<q", 8) if version >= 8 else b""
    out += sized(comm.encode()) + sized(f"/bin/{comm}".encode())
    out += sized(f"/usr/bin/{comm}".encode()) if version >= 7 else b""
    out += sized(args) + sized(cwd.encode()) + struct.pack("<QIII", 1024, flags, 1000, 100)
    out += bytes(28) if version >= 2 else b""
    out += sized(b"HOME=/root\0") if version >= 3 else b""
    out += struct.pack("<qq", tid, pid) + sized(cgroups) if version >= 4 else b""
    out += sized(b"/") if version >= 5 else b""
    out += tail
    return struct.pack(U32, len(out) + 4) + out if version >= 9 else out


PROCESS_BLOCKS = {1: 0x202, 2: 0x207, 3: 0x209, 4: 0x210, 5: 0x211, 6: 0x212, 7: 0x213, 8: 0x214, 9: 0x215}


def processes(version: int, *entries: bytes, kind: int = 0) -> bytes:
    return block(kind or PROCESS_BLOCKS[version], b"".join(entries))


def fd(version: int, number: int, inode: int, kind: int, info: bytes) -> bytes:
    out = struct.pack("<QQB", number, inode, kind) + info
    return struct.pack(U32, len(out) + 4) + out if version == 2 else out


def fds(version: int, tid: int, *entries: bytes, kind: int = 0) -> bytes:
    return block(kind or {1: 0x203, 2: 0x218}[version], struct.pack(U64, tid) + b"".join(entries))


def file_info(version: int, name: str) -> bytes:
    return struct.pack(U32, 1) + sized(name.encode()) + (struct.pack(U32, 0xFD01) if version == 2 else b"")


def event(
    kind: int, ts: int, tid: int, type_: int, *params: bytes, flags: int = 0, wide: bool = False,
    cpu: int = 0, length: int | None = None, count: int | None = None,
) -> bytes:  # fmt: skip
    """An event block; V1 blocks have no number of parameters, others no flags."""
    old = kind in (0x204, 0x208, 0x8010ABCD)
    lens = b"".join(struct.pack(U32 if wide else U16, len(p)) for p in params)
    size = (22 if old else 26) + len(lens) + sum(map(len, params))
    head = struct.pack("<QqIH", ts, tid, size if length is None else length, type_)
    if not old:
        head += struct.pack(U32, len(params) if count is None else count)
    flagged = struct.pack(U32, flags) if kind in (0x208, 0x217, 0x222) else b""
    return block(kind, struct.pack(U16, cpu) + flagged + head + lens + b"".join(params))


def s64(value: int) -> bytes:
    return struct.pack("<q", value)


def u32(value: int) -> bytes:
    return struct.pack(U32, value)


def u64(value: int) -> bytes:
    return struct.pack(U64, value)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def tuple4(source: str, source_port: int, target: str, target_port: int) -> bytes:
    ends = [bytes(int(part) for part in address.split(".")) for address in (source, target)]
    return bytes([2]) + ends[0] + struct.pack(U16, source_port) + ends[1] + struct.pack(U16, target_port)
