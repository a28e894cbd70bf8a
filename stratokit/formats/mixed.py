"""Whether a pcapng file holds both, packets and events of sysdig."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

from stratokit.formats.scap import blocks
from stratokit.formats.source import open_source

if TYPE_CHECKING:
    from pathlib import Path

# Told by the beginning of the file.
HEAD_BYTES = 1 << 20
BLOCKS_MAX = 4096
_OF_PACKETS = frozenset((1, *blocks.PACKETS))  # an interface, too, is there for packets


def holds_both(path: Path) -> bool:
    """Whether a pcapng section, or a scap file, begins with blocks of packets and of sysdig."""
    with contextlib.closing(open_source(path)) as source:
        head = source.window(0, HEAD_BYTES).tobytes()
    packets = events = False
    at = 0
    for _ in range(BLOCKS_MAX):
        if at + 12 > len(head) or (packets and events) or head[:4] != blocks.SECTION_MAGIC:
            break
        kind, length = struct.unpack_from("<II", head, at)
        if length < 12:
            break
        packets |= kind in _OF_PACKETS
        events |= blocks.is_scap(kind)
        at += length
    return packets and events
