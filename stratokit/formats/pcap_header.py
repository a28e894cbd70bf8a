"""The header of a pcap file, and what it says about the records; light, as `stratokit info` needs no more.

magic 4, version 2+2, unused 8, snap length 4, link type 4 (FCS length 4 bits, FCS present 1 bit at bit 26)
"""

from __future__ import annotations

import dataclasses
import struct

# magic: fraction of a second in ns, bytes of a record header
RECORD = 16
MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
VARIANTS = {
    MICROSECONDS: (1000, RECORD),
    NANOSECONDS: (1, RECORD),
    0xA1B2CD34: (1000, 24),  # Kuznetzov: interface 4, protocol 2, packet type 1, padding 1
}
HEADER = 24
LINK_TYPE_MASK = 0xFFFF
FCS_PRESENT = 1 << 26
# The longest frame that libpcap and Wireshark take; a record that claims more is damage. D-Bus messages may
# be longer.
FRAME_MAX = 262144
LONG_FRAMES = {231: 128 << 20}
# Files before version 2.3 have the two lengths the other way round; with 2.3 both orders were written.
NOT_SWAPPED, SWAPPED, PERHAPS = 0, 1, 2

IMPOSSIBLE = "a record claims an impossible length"
CUT = "the file ends inside a record"


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What a header says: `fcs_bytes` of a checksum end each frame, `record` bytes of header begin it."""

    link_type: int
    snaplen: int
    unit_ns: int
    fcs_bytes: int = 0
    big: bool = False
    record: int = RECORD
    swapped: int = NOT_SWAPPED

    @property
    def frame_max(self) -> int:
        """The longest frame of this link type."""
        return LONG_FRAMES.get(self.link_type, FRAME_MAX)


def is_pcap(head: bytes) -> bool:
    """Whether a file begins as one."""
    return len(head) >= 4 and any(struct.unpack(o + "I", head[:4])[0] in VARIANTS for o in "<>")


def parse(head: bytes) -> Header | None:
    """The header at the beginning of `head`; None when it is not whole or of no pcap file."""
    if len(head) < HEADER or not is_pcap(head):
        return None
    order = "<" if struct.unpack("<I", head[:4])[0] in VARIANTS else ">"
    magic, *version, snaplen, network = struct.unpack(order + "IHH8xII", head[:HEADER])
    swapped = SWAPPED if version < [2, 3] else PERHAPS if version == [2, 3] else NOT_SWAPPED
    # The four highest bits count words of 16 bits.
    fcs_bytes = 2 * (network >> 28) if network & FCS_PRESENT else 0
    unit_ns, record = VARIANTS[magic]
    return Header(network & LINK_TYPE_MASK, snaplen, unit_ns, fcs_bytes, order == ">", record, swapped)


def pack(header: Header) -> bytes:
    """The header as it begins a little-endian file."""
    magic = NANOSECONDS if header.unit_ns == 1 else MICROSECONDS
    checksum = header.fcs_bytes // 2 << 28 | FCS_PRESENT if header.fcs_bytes else 0
    return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, header.snaplen, header.link_type | checksum)
