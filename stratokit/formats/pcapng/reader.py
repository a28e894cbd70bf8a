"""Reads pcapng: packets in windows, and what rare blocks say of sections, interfaces, processes and names."""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from typing import TYPE_CHECKING

import numpy as np

from stratokit.errors import FormatError
from stratokit.formats.frames import Damage, FrameBatch, Interface
from stratokit.formats.pcapng import blocks, cold, walk
from stratokit.formats.source import WINDOW_BYTES, SourceReader

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

BATCH_FRAMES = 1 << 18
# So many of one section are more than any file has for a reason; what each costs is bounded by this.
INTERFACES_MAX = PROCESSES_MAX = 1 << 20
# Of the whole file; packets of all further ones stand under one interface without a name.
INTERFACES_KEPT = 1 << 16
# What a block costs beside its body.
COLD_OVERHEAD = 300
Options = list[tuple[int, bytes]]
ClockRow = tuple[int, int, int, int, int]
_NO_INTERFACE: tuple[tuple[bytes, str], tuple[Interface, ClockRow]] = ((b"", ""), (Interface(), (0,) * 5))

# Without if_tsresol times count microseconds.
MICROSECONDS = 6
# More digits than 64 bits have; a finer clock than that has not moved yet.
DIGITS_MAX = 19


@dataclasses.dataclass(frozen=True, slots=True)
class Statistics:
    """An interface statistics block: interface, time, and its options as they stood there."""

    interface: int
    ts_ns: int
    options: tuple[tuple[int, bytes], ...]


class PcapngReader(SourceReader):
    """Reads a pcapng file in windows.

    `interfaces`, `processes` (pid, name), `names` (by address), `statistics`, `secrets` (type, bytes) and
    `sections` (options) grow while `batches` goes on. When the file ends early, `damage` says where and why;
    `skipped_blocks` counts blocks of types that are not known. `cold` are all blocks but packets, as they can
    be written again; empty when they were more than cold.BYTES_MAX.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.interfaces: list[Interface] = []
        self.processes: list[tuple[int, str]] = []
        self.names: dict[str, list[str]] = {}
        self.statistics: list[Statistics] = []
        self.secrets: list[tuple[int, bytes]] = []
        self.sections: list[Options] = []
        self.cold: list[cold.ColdBlock] = []
        self._cold_bytes = 0
        self._packets_before = 0
        self.damage: Damage | None = None
        self.skipped_blocks = 0
        self.big = False
        self._clocks = np.zeros(8, walk.CLOCK)
        self._clock_count = 0
        # Counted over all sections.
        self._first_interface = self._interface_count = 0
        # Files that describe very many interfaces describe the same one again and again.
        self._last_interface: tuple[tuple[bytes, str], tuple[Interface, ClockRow]] = _NO_INTERFACE
        head = self._source.window(0, 28).tobytes()
        if len(head) < 28 or byte_order(head) is None:
            self._source.close()
            raise FormatError(f"{self._source.path} is no pcapng file: it has no complete section header")

    def batches(self) -> Iterator[FrameBatch]:
        """All packets, at most BATCH_FRAMES at once, those of a batch from one section."""
        start, at, size = 0, 0, WINDOW_BYTES
        window = self._source.window(start, size)
        packets = _Packets()
        while True:
            at, state = self._walk(window, at, packets)
            if state == walk.COLD:
                end, problem = self._cold(window, at, self._packets_before + packets.count)
                if problem:
                    self.damage = Damage("file_damaged", start + at, problem)
                    break
                if end is not None:
                    at = end
                    continue
                state = walk.MORE
            if state == walk.BAD:
                self.damage = Damage("file_damaged", start + at, "a block contradicts itself")
                break
            if packets.count:
                self._packets_before += packets.count
                yield self._given(packets, window)
                packets = _Packets()
            if state == walk.MORE:
                if at == 0 and len(window) < size:
                    if len(window) or self._source.broken:
                        reason = self._source.broken or "the file ends inside a block"
                        self.damage = Damage("file_cut", start, reason)
                    return
                # A block that does not fit the window gets a larger one.
                size = WINDOW_BYTES if at else 2 * size
                start, at = start + at, 0
                window = self._source.window(start, size)
        if packets.count:
            yield self._given(packets, window)

    def _given(self, packets: _Packets, window: np.ndarray) -> FrameBatch:
        batch = packets.batch(window)
        if self._interface_count > INTERFACES_KEPT:
            np.minimum(batch.interfaces, INTERFACES_KEPT, out=batch.interfaces)
        return batch

    def _walk(self, window: np.ndarray, at: int, packets: _Packets) -> tuple[int, int]:
        packets.count, at, state, skipped = walk.walk(
            window,
            at,
            self.big,
            self._clocks,
            self._clock_count,
            self._first_interface,
            packets.rows,
            packets.count,
            self._is_full,
        )
        self.skipped_blocks += skipped
        return at, state

    def _cold(self, window: np.ndarray, at: int, packets_before: int) -> tuple[int | None, str]:
        """Take in a rare block: its end (None when the window ends before), or what is wrong."""
        head = window[at : at + 12].tobytes()
        order = byte_order(head)
        if order is None:
            order = ">" if self.big else "<"
            if head[:4] == blocks.SECTION_MAGIC:
                return None, "a section header has no byte order" if len(head) == 12 else ""
        kind, length = struct.unpack(order + "II", head[:8])
        if length < 12 or length & 3 or length > walk.BLOCK_MAX:
            return None, "a block claims an impossible length"
        if at + length > len(window):
            return None, ""
        body = window[at + 8 : at + length - 4].tobytes()
        if window[at + length - 4 : at + length].tobytes() != head[4:8]:
            return None, "the two lengths of a block differ"
        problem = _BLOCKS[kind](self, body, order)
        if not problem and not self._is_full:
            self._keep(cold.ColdBlock(kind, packets_before, cold.little(kind, body, order)))
        return at + length, problem

    @property
    def _is_full(self) -> bool:
        """No more rare blocks are kept; those that no packet needs are passed over."""
        return self._cold_bytes > cold.BYTES_MAX

    def _keep(self, block: cold.ColdBlock) -> None:
        """Keep a block to be written again, or none of them when they are too many."""
        self._cold_bytes += len(block.body) + COLD_OVERHEAD
        if self._cold_bytes > cold.BYTES_MAX:
            self.cold.clear()
        else:
            self.cold.append(block)

    def _section(self, body: bytes, order: str) -> str:
        if len(body) < 16:
            return "a section header is too short"
        if struct.unpack(order + "H", body[4:6])[0] != 1:
            return "a section has an unknown version"
        self.big = order == ">"
        self._first_interface = self._interface_count
        self._clock_count = 0
        if not self._is_full:
            self.sections.append(parse_options(body[16:], order))
        return ""

    def _interface(self, body: bytes, order: str) -> str:
        if len(body) < 8:
            return "an interface description is too short"
        if self._clock_count >= INTERFACES_MAX:
            return f"a section describes more than {INTERFACES_MAX} interfaces"
        if self._last_interface[0] != (body, order):
            self._last_interface = ((body, order), read_interface(body, order))
        interface, row = self._last_interface[1]
        number = self._interface_count
        self._interface_count += 1
        if number < INTERFACES_KEPT:
            self.interfaces.append(dataclasses.replace(interface, ifindex=number))
        elif number == INTERFACES_KEPT:
            self.interfaces.append(Interface(ifindex=number, link_type=interface.link_type))
        else:
            self.skipped_blocks += 1
        if self._clock_count == len(self._clocks):
            self._clocks = np.concatenate([self._clocks, np.zeros_like(self._clocks)])
        self._clocks[self._clock_count] = row
        self._clock_count += 1
        return ""

    def _names(self, body: bytes, order: str) -> str:
        at = 0
        while at + 4 <= len(body):
            kind, length = struct.unpack(order + "HH", body[at : at + 4])
            value = body[at + 4 : at + 4 + length]
            size = {1: 4, 2: 16}.get(kind, 0)
            if kind == 0 or len(value) < length:
                break
            if size and length > size:
                known = self.names.setdefault(str(ipaddress.ip_address(value[:size])), [])
                known += [_text(name) for name in value[size:].split(b"\0") if name]
            at += 4 + (length + 3 & ~3)
        return ""

    def _statistics(self, body: bytes, order: str) -> str:
        if len(body) < 12:
            return "interface statistics are too short"
        number, high, low = struct.unpack(order + "III", body[:12])
        if number >= self._clock_count:
            return "statistics are of an unknown interface"
        row = self._clocks[number]
        time = nanoseconds(high << 32 | low, int(row["mode"]), int(row["factor"]), int(row["offset_ns"]))
        options = tuple(parse_options(body[12:], order))
        self.statistics.append(Statistics(self._first_interface + number, time, options))
        return ""

    def _secrets(self, body: bytes, order: str) -> str:
        if len(body) < 8:
            return "secrets are too short"
        kind, length = struct.unpack(order + "II", body[:8])
        self.secrets.append((kind, body[8 : 8 + length]))
        return ""

    def _other(self, body: bytes, order: str) -> str:  # noqa: ARG002
        """Custom blocks and journal entries: kept, not understood."""
        self.skipped_blocks += 1
        return ""

    def _process(self, body: bytes, order: str) -> str:
        if len(body) < 4:
            return "process information is too short"
        if len(self.processes) >= PROCESSES_MAX:
            return f"more than {PROCESSES_MAX} processes are described"
        options = dict(reversed(parse_options(body[4:], order)))
        self.processes.append((struct.unpack(order + "I", body[:4])[0], _text(options.get(2, b""))))
        return ""


_BLOCKS = {
    blocks.SECTION: PcapngReader._section,
    blocks.INTERFACE: PcapngReader._interface,
    blocks.NAMES: PcapngReader._names,
    blocks.STATISTICS: PcapngReader._statistics,
    blocks.SECRETS: PcapngReader._secrets,
    blocks.PROCESS: PcapngReader._process,
    blocks.JOURNAL: PcapngReader._other,
    **dict.fromkeys(blocks.CUSTOM, PcapngReader._other),
}


class _Packets:
    """Room for the packets of one batch."""

    def __init__(self) -> None:
        self.count = 0
        self.rows = np.empty(BATCH_FRAMES, walk.FOUND)

    def batch(self, window: np.ndarray) -> FrameBatch:
        found = {name: self.rows[name][: self.count].copy() for name in walk.FOUND.names or ()}
        return FrameBatch(data=window, **found)


def byte_order(head: bytes) -> str | None:
    """The byte order that a section header states; None for anything else."""
    if len(head) < 12 or head[:4] != blocks.SECTION_MAGIC:
        return None
    return {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(head[8:12])


def parse_options(data: bytes, order: str) -> Options:
    """Options as (code, bytes) in order; a cut one ends the list."""
    found: Options = []
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack(order + "HH", data[at : at + 4])
        value = data[at + 4 : at + 4 + length]
        if code == blocks.OPT_END or len(value) < length:
            break
        found.append((code, value))
        at += 4 + (length + 3 & ~3)
    return found


def read_interface(body: bytes, order: str) -> tuple[Interface, ClockRow]:
    """An interface description, and how times of its packets are to be read: a row of walk.CLOCK."""
    link_type, _, snaplen = struct.unpack(order + "HHI", body[:8])
    options = parse_options(body[8:], order)
    first: dict[int, bytes] = {}
    for code, value in options:
        first.setdefault(code, value)
    interface = Interface(
        name=_text(first.get(blocks.IF_NAME, b"")),
        link_type=link_type,
        snaplen=snaplen,
        description=_text(first.get(blocks.IF_DESCRIPTION, b"")),
        mac=_mac(first.get(blocks.IF_MAC, b"")),
        addresses=tuple(_addresses(options)),
        options=tuple(options),
    )
    resolution = first.get(blocks.IF_TSRESOL, b"")[:1]
    offset = first.get(blocks.IF_TSOFFSET, b"")
    seconds = struct.unpack(order + "q", offset)[0] if len(offset) == 8 else 0
    mode, factor = clock(resolution[0] if resolution else MICROSECONDS)
    return interface, (link_type, snaplen, mode, factor, _wrap(seconds * 10**9))


def _mac(value: bytes) -> str:
    return value.hex(":") if len(value) == 6 else ""


def _addresses(options: Options) -> Iterator[str]:
    """if_IPv4addr: address 4, mask 4; if_IPv6addr: address 16, prefix length 1."""
    for code, value in options:
        if code == blocks.IF_IPV4 and len(value) == 8:
            bits = int.from_bytes(value[4:], "big").bit_count()
            yield f"{ipaddress.IPv4Address(value[:4])}/{bits}"
        elif code == blocks.IF_IPV6 and len(value) == 17:
            yield f"{ipaddress.IPv6Address(value[:16])}/{value[16]}"


def clock(resolution: int) -> tuple[int, int]:
    """How times of an if_tsresol become nanoseconds: bit 7 chooses powers of 2 or of 10."""
    exponent = resolution & 0x7F
    if resolution & 0x80:
        # With 2^-64 and finer, 64 bits do not reach the first second.
        return (walk.SHIFT, exponent) if exponent < 64 else (walk.DIVIDE, 10**DIGITS_MAX)
    if exponent <= 9:
        return walk.MULTIPLY, 10 ** (9 - exponent)
    return walk.DIVIDE, 10 ** min(exponent - 9, DIGITS_MAX)


def in_microseconds(clock: ClockRow) -> bool:
    """Whether microseconds tell every time of an interface (a row of walk.CLOCK)."""
    _, _, mode, factor, _ = clock
    return mode == walk.MULTIPLY and factor % 1000 == 0


def nanoseconds(time: int, mode: int, factor: int, offset_ns: int) -> int:
    """What `walk.nanoseconds` computes for packets."""
    if mode == walk.MULTIPLY:
        time *= factor
    elif mode == walk.DIVIDE:
        time //= factor
    else:
        time = time * 10**9 >> factor
    return _wrap(time + offset_ns)


def _wrap(value: int) -> int:
    """A number brought into 64 bits the way machine arithmetic does."""
    return (value + 2**63) % 2**64 - 2**63


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
