"""scap, the format of sysdig, Falco and Stratoshark: system calls with what they worked on."""

from __future__ import annotations

import struct

from stratokit.formats.registry import Format
from stratokit.formats.scap import blocks
from stratokit.formats.scap.reader import ScapReader
from stratokit.formats.scap.writer import ScapWriter

__all__ = ["FORMAT", "ScapReader", "ScapWriter"]


def _is_scap(head: bytes) -> bool:
    """A section header, followed by a block of sysdig's."""
    if not head.startswith(blocks.SECTION_MAGIC) or len(head) < 8:
        return False
    size = struct.unpack("<I", head[4:8])[0]
    following = head[size : size + 4]
    return len(following) == 4 and blocks.is_scap(struct.unpack("<I", following)[0])


FORMAT = Format("scap", _is_scap, ScapReader, ScapWriter)
