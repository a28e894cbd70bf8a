"""pcapng, the format of Wireshark: draft-ietf-opsawg-pcapng, with process blocks as Darwin has them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stratokit.formats.pcapng.blocks import SCAP_BLOCKS, SECTION_MAGIC
from stratokit.formats.pcapng.cold import METADATA_KEY, from_text
from stratokit.formats.pcapng.reader import PcapngReader, byte_order
from stratokit.formats.pcapng.rewrite import PcapngRewriter
from stratokit.formats.pcapng.writer import PcapngWriter, write_pcapng
from stratokit.formats.registry import Format

if TYPE_CHECKING:
    import os

__all__ = ["FORMAT", "PcapngReader", "PcapngWriter", "write_pcapng"]


def _is_pcapng(head: bytes) -> bool:
    """A section header, but not one of sysdig's scap, whose section goes on with blocks of its own."""
    if not head.startswith(SECTION_MAGIC):
        return False
    order = byte_order(head) or "<"
    size = struct.unpack(order + "I", head[4:8].ljust(4, b"\0"))[0]
    following = head[size : size + 4]
    return len(following) < 4 or struct.unpack(order + "I", following)[0] not in SCAP_BLOCKS


def open_writer(
    path: str | os.PathLike[str], metadata: Mapping[str, str], *arguments: Any, **options: Any
) -> PcapngWriter | PcapngRewriter:
    """The writer for a capture: what came from a pcapng file goes back as it was."""
    known = from_text(metadata.get(METADATA_KEY, ""))
    if known:
        return PcapngRewriter(path, known)
    return PcapngWriter(path, metadata, *arguments, **options)


FORMAT = Format("pcapng", _is_pcapng, PcapngReader, open_writer)
