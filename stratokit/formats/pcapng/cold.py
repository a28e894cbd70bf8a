"""The rare blocks of a pcapng file, kept to be written again: little-endian, and where among the packets.

They go through capture.parquet as metadata `pcapng`, JSON:

    {"packets_before": [...], "types": [...], "bodies": [base64, ...]}

A body is a block without type and lengths. What its numbers are is only of interest where a big-endian file
has them the other way round.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import struct
from typing import TYPE_CHECKING, Any

from stratokit.formats.pcapng import blocks
from stratokit.formats.pcapng.raw_options import DARWIN_WORDS, PRIVATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stratokit.formats.frames import Interface

METADATA_KEY = "pcapng"
# More than this in all is not kept: the file is then written anew from its rows, as a recording is.
BYTES_MAX = 32 << 20

# Widths of the numbers at the beginning of a body, and of those in the values of options, as struct has them.
HEADS = {
    blocks.SECTION: "IHHq",
    blocks.INTERFACE: "HHI",
    blocks.STATISTICS: "III",
    blocks.SECRETS: "II",
    blocks.PROCESS: "I",
    blocks.CUSTOM[0]: "I",
    blocks.CUSTOM[1]: "I",
}
OPTIONS: dict[int, dict[int, str]] = {
    # speed, time offset, speeds of sending and receiving
    blocks.INTERFACE: {8: "Q", 14: "q", 16: "Q", 17: "Q", 0x8001: "I"},
    # two times as high and low word, then five counters
    blocks.STATISTICS: {2: "II", 3: "II", **dict.fromkeys(range(4, 9), "Q")},
}
BYTE_ORDER_MAGIC = 0x1A2B3C4D


@dataclasses.dataclass(frozen=True, slots=True)
class ColdBlock:
    """A block that is no packet; `before` is the number of packets before it in the file."""

    kind: int
    before: int
    body: bytes


def _turned(data: bytes, widths: str, order: str) -> bytes:
    """Numbers at the beginning of `data` little-endian; the rest, or all that is too short, as it is."""
    size = struct.calcsize(order + widths)
    if len(data) < size:
        return data
    return struct.pack("<" + widths, *struct.unpack(order + widths, data[:size])) + data[size:]


def _options(data: bytes, order: str, known: dict[int, str]) -> bytes:
    parts, at = [], 0
    while at + 4 <= len(data):
        code, length = struct.unpack(order + "HH", data[at : at + 4])
        value = data[at + 4 : at + 4 + length]
        if code == blocks.OPT_END or len(value) < length:
            break
        widths = known.get(code, "I" if code in PRIVATE or code in DARWIN_WORDS else "")
        if struct.calcsize("<" + widths) <= length:
            value = _turned(value, widths, order)
        parts.append(option(code, value))
        at += 4 + (length + 3 & ~3)
    return b"".join([*parts, bytes(4)]) if parts else b""


def option(code: int, value: bytes) -> bytes:
    """An option, padded."""
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _names(body: bytes, order: str) -> bytes:
    """Records as options have it: type 2, length 2, value; one of type 0 ends them, options follow."""
    parts, at = [], 0
    while at + 4 <= len(body):
        kind, length = struct.unpack(order + "HH", body[at : at + 4])
        value = body[at + 4 : at + 4 + length]
        at += 4 + (length + 3 & ~3)
        if kind == 0 or len(value) < length:
            break
        parts.append(option(kind, value))
    return b"".join([*parts, bytes(4), _options(body[at:], order, {})])


def little(kind: int, body: bytes, order: str) -> bytes:
    """The body of a block in little-endian order, padding and all."""
    if kind == blocks.NAMES:
        return _names(body, order)
    widths = HEADS.get(kind, "")
    size = struct.calcsize("<" + widths)
    head = _turned(body[:size], widths, order)
    if kind == blocks.SECTION:
        head = struct.pack("<IHHq", BYTE_ORDER_MAGIC, *struct.unpack("<HH", head[4:8]), -1)
    elif kind == blocks.SECRETS and len(head) == size:
        size += struct.unpack("<I", head[4:8])[0] + 3 & ~3
        head += body[8:size]
    elif kind in blocks.CUSTOM or kind == blocks.JOURNAL:
        return head + body[size:]
    return head + _options(body[size:], order, OPTIONS.get(kind, {}))


def framed(kind: int, body: bytes) -> bytes:
    """A block as it stands in a file."""
    body += bytes(-len(body) % 4)
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


def of_one_interface(interface: Interface, digits: int) -> list[ColdBlock]:
    """Blocks that say what the header of a file of one interface does; times count 10^-digits seconds."""
    section = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)
    options = [*interface.options, (blocks.IF_TSRESOL, bytes([digits]))]
    head = struct.pack("<HHI", interface.link_type, 0, interface.snaplen)
    body = head + b"".join(option(*pair) for pair in options) + bytes(4)
    return [ColdBlock(blocks.SECTION, 0, section), ColdBlock(blocks.INTERFACE, 0, body)]


def interfaces(metadata: Mapping[str, str]) -> list[bytes]:
    """Bodies of the interface descriptions that the metadata of a capture hold."""
    found = from_text(metadata.get(METADATA_KEY, ""))
    return [block.body for block in found if block.kind == blocks.INTERFACE]


def to_text(found: list[ColdBlock]) -> str:
    """For the metadata of a capture."""
    return json.dumps(
        {
            "packets_before": [block.before for block in found],
            "types": [block.kind for block in found],
            "bodies": [base64.b64encode(block.body).decode() for block in found],
        }
    )


def from_text(text: str) -> list[ColdBlock]:
    """From the metadata of a capture; empty when they are not what `to_text` wrote."""
    try:
        value: dict[str, Any] = json.loads(text)
        columns = (value["types"], value["packets_before"], value["bodies"])
        found = [
            ColdBlock(int(kind), int(before), base64.b64decode(body))
            for kind, before, body in zip(*columns, strict=True)
        ]
    except (ValueError, KeyError, TypeError, binascii.Error):
        return []
    if not found or found[0].kind != blocks.SECTION:
        return []
    return (
        found
        if all(len(block.body) >= struct.calcsize("<" + HEADS.get(block.kind, "")) for block in found)
        else []
    )
