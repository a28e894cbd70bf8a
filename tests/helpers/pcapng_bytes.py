"""pcapng files block by block, in either byte order, with nothing but struct."""

from __future__ import annotations

import struct


class Section:
    """A section that is written by hand; every method returns the bytes of one block."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def block(self, kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack(self.order + "I", 12 + len(body))
        return struct.pack(self.order + "I", kind) + size + body + size

    def options(self, *pairs: tuple[int, bytes]) -> bytes:
        if not pairs:
            return b""
        parts = [struct.pack(self.order + "HH", c, len(v)) + v + bytes(-len(v) % 4) for c, v in pairs]
        return b"".join(parts) + bytes(4)

    def number(self, value: int, size: int = 4) -> bytes:
        return value.to_bytes(size, "little" if self.order == "<" else "big")

    def header(self, *pairs: tuple[int, bytes], version: int = 1) -> bytes:
        fixed = struct.pack(self.order + "IHHq", 0x1A2B3C4D, version, 0, -1)
        return self.block(0x0A0D0D0A, fixed + self.options(*pairs))

    def interface(self, *pairs: tuple[int, bytes], link_type: int = 1, snaplen: int = 0) -> bytes:
        return self.block(1, struct.pack(self.order + "HHI", link_type, 0, snaplen) + self.options(*pairs))

    def packet(
        self,
        frame: bytes,
        *pairs: tuple[int, bytes],
        interface: int = 0,
        time: int = 0,
        orig_len: int | None = None,
        cap_len: int | None = None,
    ) -> bytes:
        lens = (len(frame) if cap_len is None else cap_len, len(frame) if orig_len is None else orig_len)
        head = struct.pack(self.order + "IIIII", interface, time >> 32, time & 0xFFFFFFFF, *lens)
        return self.block(6, head + frame + bytes(-len(frame) % 4) + self.options(*pairs))

    def simple_packet(self, frame: bytes, orig_len: int | None = None) -> bytes:
        size = len(frame) if orig_len is None else orig_len
        return self.block(3, struct.pack(self.order + "I", size) + frame)

    def obsolete_packet(self, frame: bytes, *pairs: tuple[int, bytes], time: int = 0) -> bytes:
        head = struct.pack(self.order + "HHIIII", 0, 7, time >> 32, time & 0xFFFFFFFF, len(frame), len(frame))
        return self.block(2, head + frame + bytes(-len(frame) % 4) + self.options(*pairs))

    def process(self, pid: int, name: bytes) -> bytes:
        return self.block(0x80000001, self.number(pid) + self.options((2, name)))
