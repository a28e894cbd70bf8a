"""Blocks of scap files. A file is a pcapng section, little-endian, with blocks of sysdig's own.

0  4  type      4  4  length, of everything      8  -  body, padded to 4      -  4  length again
"""

from __future__ import annotations

SECTION = 0x0A0D0D0A
SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"
ORDER_MAGIC = 0x1A2B3C4D
MAJOR, MINOR = 1, 2

MACHINE = 0x201
PROCESSES = 0x215
FDS = 0x218
INTERFACES = 0x219
USERS = 0x220
EVENT = 0x216
EVENT_FLAGS = 0x217
EVENT_LARGE = 0x221
EVENT_FLAGS_LARGE = 0x222
# A block of first versions that current readers still take, and Wireshark does not number as a frame.
EVENT_V1_ALIAS = 0x8010ABCD

MACHINE_BLOCKS = {0x201: 1, 0x8002ABCD: 1}
PROCESS_BLOCKS = {
    0x202: 1, 0x207: 2, 0x209: 3, 0x210: 4, 0x211: 5, 0x212: 6, 0x213: 7, 0x214: 8, 0x215: 9,
    0x8000ABCD: 1, 0x8013ABCD: 2, 0x8014ABCD: 3,
}  # fmt: skip
FD_BLOCKS = {0x203: 1, 0x218: 2, 0x8001ABCD: 1}
INTERFACE_BLOCKS = {0x205: 1, 0x219: 2, 0x8011ABCD: 1}
USER_BLOCKS = {0x206: 1, 0x220: 2, 0x8012ABCD: 1}

# Event blocks: with flags before the header, and with the number of parameters in it (since V2).
V1_EVENTS = (0x204, 0x208, EVENT_V1_ALIAS)
FLAGGED_EVENTS = (0x208, 0x217, 0x222)
EVENTS = (0x204, 0x208, EVENT_V1_ALIAS, 0x216, 0x217, 0x221, 0x222)
# Larger events need a block whose type says so; readers refuse the others beyond this length.
SMALL_EVENT_MAX = 65536
# Readers of Wireshark refuse larger blocks; one that claims to be is damage.
BLOCK_MAX = 16 << 20

# Packets of a pcapng file (enhanced, obsolete, simple), which may hold events too.
PACKETS = (6, 2, 3)
INTERFACE = 1

FIRST = range(0x201, 0x223)
ALIAS_SUFFIX = 0xABCD

STATE_ONLY = 1  # flag of an event that only tells readers what had been before


def is_scap(kind: int) -> bool:
    """Whether a block of this type is sysdig's own."""
    return kind in FIRST or (kind & 0xFFFF == ALIAS_SUFFIX and kind >= 1 << 31)
