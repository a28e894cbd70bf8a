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

WINDOW_BYTES = 16 << 20
# Of a file that must be unpacked only the beginning is looked at. Blocks of the other kind that begin behind
# it are passed over and counted.
UNPACKED_BYTES = 1 << 20


def holds_both(path: Path) -> bool:
    """Whether a pcapng section, or a scap file, has blocks of packets and of sysdig.

    The headers of all blocks are looked at until there is one of each.
    """
    with contextlib.closing(open_source(path)) as source:
        is_mapped = isinstance(source, MappedSource)
        head = source.window(0, WINDOW_BYTES if is_mapped else UNPACKED_BYTES)
        if head[:4].tobytes() != blocks.SECTION_MAGIC:
            return False
        packets, events, at = kinds_of(np.ascontiguousarray(head))
        begin, step = 0, at
        while is_mapped and step and not (packets and events):
            begin += step
            more = kinds_of(np.ascontiguousarray(source.window(begin, WINDOW_BYTES)))
            packets, events, step = packets or more[0], events or more[1], more[2]
        return bool(packets and events)
