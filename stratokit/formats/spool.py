"""The spool: what the recorder appends to while it runs. Writer and reader.

A spool is a row of chunks, each a 32-byte head and a payload padded with zeros to 8 bytes:

    0   4  magic "SPK1"
    4   2  type (the constants below)
    6   2  version of this layout
    8   8  sequence number from 0, so a missing chunk is seen
    16  8  payload length in bytes, without padding
    24  4  CRC-32 of the payload
    28  4  CRC-32 of the 28 bytes before

All little-endian. EVENTS payloads are spans of the kernel's ring buffer as they are: records of an 8-byte
head (u32 length with bit 31 busy and bit 30 discarded, u32 unused) and a body padded to 8 bytes. The other
payloads are JSON objects. A reader goes on after damage at the next head whose own checksum holds. Only the
standard library is imported here, because the recorder imports this module. The file may have blocks behind
its end that are not written yet.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import json
import mmap
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

from stratokit.errors import FormatError
from stratokit.formats.crc32 import crc32

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Sequence

MAGIC = b"SPK1"
VERSION = 1
HEAD = struct.Struct("<4sHHQQI")
CHECK = struct.Struct("<I")
HEAD_BYTES = HEAD.size + CHECK.size
PIECE_BYTES = 256 << 10
# Blocks are asked for in such steps, which takes a quarter off the cost of writing; where a step is more than
# this share of what is free, as they are needed.
RESERVE_BYTES = 32 << 20
RESERVE_SHARE = 64
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE (include/uapi/linux/falloc.h)

OPENING = 1  # host, options, layout of the events: first in the file
EVENTS = 2
CLOCK = 3  # one pair of clock readings
TABLE = 4  # {"table": name, "rows": [...]}: processes, sockets, descriptors, interfaces, cgroups
COUNTERS = 5  # totals so far, by name
CLOSING = 6  # why and when it ended: last in the file
BEGIN = 7  # counters so far; the rows of this segment begin here, see SpoolChain


class SpoolWriter:
    """Appends chunks to a new file. A chunk that does not fit on the disk is taken back whole."""

    def __init__(self, path: pathlib.Path, in_memory: bool = False) -> None:
        """`in_memory`: no file is made; `path` is then what a process that inherits `fileno` opens."""
        import fcntl  # not where there is no recorder either

        if in_memory:
            self._fd = os.memfd_create(path.name)
            path = path.__class__(f"/proc/self/fd/{self._fd}")
        else:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.path = path
        self.in_memory = in_memory
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._sequence = 0
        self._reserves = not in_memory
        self._reserved = 0  # the file has blocks up to here
        self.bytes_written = 0

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def write(self, chunk_type: int, payload: bytes | memoryview) -> None:
        """Append one chunk.

        Raises:
            OSError: the chunk could not be written whole; the file then ends with the chunk before it.
        """
        view = memoryview(payload)
        at = self.bytes_written + HEAD_BYTES
        self._reserve(at + len(view))
        checksum = start = 0
        try:
            # Piece by piece, so that what the checksum has read is still in the processor's cache for the
            # copy; they end where large pages of the file do. The head comes last: a reader takes a chunk
            # without one for a cut.
            while start < len(view):
                end = start + PIECE_BYTES - (at + start) % PIECE_BYTES
                piece = view[start:end]
                checksum = crc32(piece, checksum)
                self._put(piece, at + start)
                start = end
            padding = -len(view) % 8
            self._put(bytes(padding), at + len(view))
            head = HEAD.pack(MAGIC, chunk_type, VERSION, self._sequence, len(view), checksum)
            self._put(head + CHECK.pack(zlib.crc32(head)), self.bytes_written)
        except OSError:
            self._reserves = False
            os.ftruncate(self._fd, self.bytes_written)
            raise
        self._sequence += 1
        self.bytes_written = at + len(view) + padding

    def _put(self, data: bytes | memoryview, at: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written

    def _reserve(self, end: int) -> None:
        """Have blocks behind the end of a file that grows beyond RESERVE_BYTES, up to `end` or further."""
        if not self._reserves or end < max(self._reserved, RESERVE_BYTES):
            return
        begin, step = self._reserved or self.bytes_written, max(RESERVE_BYTES, end - self._reserved)
        try:
            if self.room() < RESERVE_SHARE * step:
                return
            self._reserves = _allocate(self._fd, begin, step) == 0
        except (OSError, AttributeError):
            self._reserves = False  # this C library cannot
        if self._reserves:
            self._reserved = begin + step

    def write_json(self, chunk_type: int, value: dict[str, Any]) -> None:
        """Append a chunk that holds a JSON object."""
        self.write(chunk_type, json.dumps(value, separators=(",", ":")).encode())

    def room(self) -> int:
        """Bytes that the file system still has for us."""
        found = os.fstatvfs(self._fd)
        return found.f_bavail * found.f_frsize

    def close(self) -> None:
        """Close the file, without blocks behind its end; what is in memory is gone then."""
        if self._fd >= 0:
            if self._reserved:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self.bytes_written)
            os.close(self._fd)
        self._fd = -1


def _allocate(fd: int, begin: int, size: int) -> int:
    """fallocate(2), which os has only in a way that changes the file's size."""
    call = ctypes.CDLL(None).fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return int(call(fd, _KEEP_SIZE, begin, size))


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk whose checksums hold: `payload` is a view into the mapped file.

    `lead`: it only helps to understand what follows, and its events are no rows.
    """

    type: int
    offset: int
    payload: memoryview
    lead: bool = False

    def json(self) -> dict[str, Any]:
        """The JSON object of a chunk that is not EVENTS."""
        value = json.loads(bytes(self.payload))
        if not isinstance(value, dict):
            raise FormatError(f"chunk at byte {self.offset} of the spool does not hold an object")
        return value


@dataclasses.dataclass(slots=True)
class Damage:
    """What could not be read: chunks left out by a bad checksum, bytes cut at the end, segments missing in a
    chain, whether an end was written.
    """

    chunks: int = 0
    cut_bytes: int = 0
    finished: bool = False
    segments: int = 0


def is_being_written(path: pathlib.Path) -> bool:
    """True when a recorder that lives has this spool open."""
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def sniff(head: bytes) -> bool:
    """True when a file that starts with `head` is a spool."""
    return head[:4] == MAGIC


class SpoolReader:
    """Walks the chunks of a spool, of one that is still growing or was cut by a crash too."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.damage = Damage()
        with path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            if self.size < HEAD_BYTES or not sniff(file.read(4)):
                raise FormatError(f"{path} is not a stratokit spool")
            self._map = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)

    def chunks(self) -> Iterator[Chunk]:
        """Chunks in file order; `damage` is complete when the iteration ends."""
        view = memoryview(self._map)
        self.damage = Damage()
        offset = 0
        while offset < self.size:
            length = self._payload_length(offset)
            if length is None:
                following = self._next_head(offset + 1)
                if following is None:
                    self.damage.cut_bytes += self.size - offset
                    return
                self.damage.chunks += 1
                offset = following
                continue
            start = offset + HEAD_BYTES
            if start + length > self.size:
                self.damage.cut_bytes += self.size - offset
                return
            payload = view[start : start + length]
            chunk_type, checksum = HEAD.unpack_from(self._map, offset)[1::4]
            if crc32(payload) == checksum:
                self.damage.finished = self.damage.finished or chunk_type == CLOSING
                yield Chunk(chunk_type, offset, payload)
            else:
                self.damage.chunks += 1
            offset = start + length + -length % 8

    def _payload_length(self, offset: int) -> int | None:
        """Payload length from the head at `offset`, None where no whole and valid head stands."""
        if offset + HEAD_BYTES > self.size:
            return None
        head = self._map[offset : offset + HEAD.size]
        (check,) = CHECK.unpack_from(self._map, offset + HEAD.size)
        if head[:4] != MAGIC or zlib.crc32(head) != check:
            return None
        return int(HEAD.unpack(head)[4])

    def _next_head(self, offset: int) -> int | None:
        while (offset := self._map.find(MAGIC, offset)) >= 0:
            if self._payload_length(offset) is not None:
                return offset
            offset += 1
        return None


class SpoolChain:
    """Segments of one recording, read as one spool.

    The recorder writes a segment from before its rows begin: while it notes what is there (processes,
    descriptors, sockets), events go to the segment before and to this one. So a segment can be read alone:
    what was there when its first row was made stands in its tables and in the events that lead to BEGIN. In a
    chain only the first segment needs these; of the others all before BEGIN is passed over but what is new.
    """

    # Tables that grow; the others say what there was before the first row.
    _GROWING = frozenset(("cgroups", "containers", "interfaces", "triggers"))

    def __init__(self, paths: Sequence[pathlib.Path], since_ns: int | None = None) -> None:
        """`since_ns` (CLOCK_MONOTONIC): rows begin at the first sample of counters from then on."""
        self._readers = [SpoolReader(path) for path in paths]
        self._since_ns = since_ns
        if len(paths) > 1:
            self._readers.sort(key=lambda reader: segment_of(reader)[1])
        self.path = self._readers[0].path
        self.size = sum(reader.size for reader in self._readers)
        self.damage = Damage()
        self.is_cut = since_ns is not None  # so its first segment is not whole
        self.last_number = 0  # of the last segment, once it was read

    def chunks(self) -> Iterator[Chunk]:
        """As those of one spool; offsets count through all segments."""
        self.damage = Damage()
        offset = 0
        before: int | None = None
        for reader in self._readers:
            first, last = reader is self._readers[0], reader is self._readers[-1]
            number = None
            for chunk in self._of_segment(reader, first):
                if chunk.type == OPENING:
                    number = chunk.json().get("segment", {}).get("number", 0)
                    if not first:
                        continue
                if not last and (chunk.type == CLOSING or _is_table(chunk, "open_calls")):
                    continue
                yield dataclasses.replace(chunk, offset=offset + chunk.offset)
            if before is not None and number is not None:
                self.damage.segments += max(number - before - 1, 0)
            before = before if number is None else number
            self.last_number = before or 0
            offset += reader.size
            self.damage.chunks += reader.damage.chunks
            self.damage.cut_bytes += reader.damage.cut_bytes
            self.damage.finished = reader.damage.finished

    def _of_segment(self, reader: SpoolReader, first: bool) -> Iterator[Chunk]:
        lead = False
        waits = first and self._since_ns is not None
        for chunk in reader.chunks():
            if chunk.type == OPENING:
                lead = bool(chunk.json().get("segment", {}).get("leads"))
            elif chunk.type == BEGIN:
                lead = False
                if first:
                    yield dataclasses.replace(chunk, lead=waits)
                continue
            if waits and not lead and chunk.type == COUNTERS:
                sample = chunk.json()
                if sample["monotonic_ns"] >= (self._since_ns or 0):
                    waits = False
                    yield dataclasses.replace(chunk, type=BEGIN)
                    continue
            if lead and not first:
                growing = chunk.type == TABLE and chunk.json()["table"] in self._GROWING
                if chunk.type not in (OPENING, CLOCK) and not growing:
                    continue
            yield dataclasses.replace(chunk, lead=lead or waits)


def _is_table(chunk: Chunk, name: str) -> bool:
    return chunk.type == TABLE and chunk.json()["table"] == name


def segment_of(reader: SpoolReader) -> tuple[str, int]:
    """Which recording a spool belongs to, and its number there; an empty name for one that stands alone."""
    opening = next((chunk.json() for chunk in reader.chunks() if chunk.type == OPENING), {})
    found = opening.get("segment") or {}
    return str(found.get("recording", "")), int(found.get("number", 0))


def is_disk_full(error: OSError) -> bool:
    """True when `error` says that the disk or the user's share of it is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
