"""What else stood in a scap file, kept in a capture's metadata: blocks of lists, with their place."""

from __future__ import annotations

import base64
import dataclasses
import struct
import zlib
from collections.abc import Iterable

METADATA_KEY = "scap"
# More than this is not kept: lists of a hundred thousand processes are far below.
BYTES_MAX = 64 << 20
_HEAD = struct.Struct("<QI")


@dataclasses.dataclass(frozen=True, slots=True)
class Carried:
    """A block as it stood there, and how many events came before it."""

    events_before: int
    block: bytes


def to_text(blocks: Iterable[Carried]) -> str:
    """As text for metadata."""
    parts = (_HEAD.pack(b.events_before, len(b.block)) + b.block for b in blocks)
    return base64.b64encode(zlib.compress(b"".join(parts))).decode()


def from_text(text: str) -> list[Carried]:
    """Back from `to_text`; what is no such text gives nothing."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text), BYTES_MAX)
    except (ValueError, zlib.error):
        return []
    found, at = [], 0
    while at + _HEAD.size <= len(data):
        before, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        found.append(Carried(before, data[at : at + size]))
        at += size
    return found
