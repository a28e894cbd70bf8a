"""Whether a pcapng file holds both, packets and events of sysdig."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from stratokit.formats.scap import blocks
from stratokit.formats.scap.walk import kinds_of
from stratokit.formats.source import MappedSource, open_source

if TYPE_CHECKING:
    from pathlib import Path

# Told by the beginning of the file; of one that must be unpacked a shorter one. Blocks of the other kind that
# begin behind it are passed over and counted.
HEAD_BYTES, UNPACKED_BYTES = 16 << 20, 1 << 20


def holds_both(path: Path) -> bool:
    """Whether a pcapng section, or a scap file, begins with blocks of packets and of sysdig."""
    with contextlib.closing(open_source(path)) as source:
        size = HEAD_BYTES if isinstance(source, MappedSource) else UNPACKED_BYTES
        head = source.window(0, size)
        if head[:4].tobytes() != blocks.SECTION_MAGIC:
            return False
        packets, events = kinds_of(np.ascontiguousarray(head))
        return bool(packets and events)
