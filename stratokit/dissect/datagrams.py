"""IP packets whose fragments are still coming: where they wait, and the kernel that puts them together.

- At most SLOTS packets wait at a time, each in 64 KiB of its own: 40 MiB with what is known of them, whatever
  comes. A key leads to WAYS slots; where all of them wait, the one that waits longest gives way.
- What is not whole TIMEOUT_NS after its first fragment is given up (RFC 8200 section 4.5: 60 seconds).
- Of bytes that come twice, those of the fragment that begins first count, of two that begin together those
  of the one that came first: as Wireshark does. (Hosts differ, and newer ones drop such packets: RFC 5722.)
"""

from __future__ import annotations

import os

import numpy as np

from stratokit.dissect.layers import Row, i64, u64
from stratokit.kernels import kernel, routine

WAYS, SETS = 8, 64
SLOTS = WAYS * SETS
TIMEOUT_NS = 60_000_000_000
ROOM_BYTES = 1 << 16
UNITS = ROOM_BYTES // 8
HEADER_4, HEADER_6 = 20, 40
# Lengths have 16 bits: that of IPv4 counts the header, that of IPv6 does not.
MAX_4, MAX_6 = 65535 - HEADER_4, 65535
KEY_WORDS = 6  # addresses; identification, protocol, version; VLAN, tunnel
# Hashes differ from process to process, so that no capture can be made whose datagrams all meet in one set.
SEED = int.from_bytes(os.urandom(7), "little")

# A datagram that waits: what it is known by, when it began, how much of it is there.
SLOT = np.dtype(
    [
        ("key", "<u8", KEY_WORDS),
        ("first_ns", "<i8"),
        ("got", "<u4"),  # units of 8 bytes
        ("size", "<u4"),  # of the payload, 0 until the last fragment came
        ("fragments", "<u4"),
        ("proto", "u1"),
        ("used", "u1"),
    ],
    align=True,
)
# What a fragment is, for the kernel: of packets.dissect's columns, plus where it stands.
PIECE = np.dtype(
    [
        ("key", "<u8", KEY_WORDS),
        ("ts_ns", "<i8"),
        ("at", "<i8"),
        ("size", "<u4"),
        ("offset", "<u4"),
        ("ttl", "u1"),
        ("proto", "u1"),
        ("version", "u1"),
        ("more", "u1"),
    ],
    align=True,
)


@routine
def _find(slots: np.ndarray, piece: Row, seed: int, lost: np.ndarray) -> int:
    """The slot of the datagram that `piece` belongs to, made free for it where it is the first."""
    h = u64(seed)
    for k in range(KEY_WORDS):
        h = (h ^ (h >> u64(32)) ^ piece.key[k]) * u64(0x9E3779B97F4A7C15)
    base = i64(h >> u64(58)) * WAYS
    found = base
    for s in range(base, base + WAYS):
        slot = slots[s]
        if slot.used and piece.ts_ns - slot.first_ns > TIMEOUT_NS:
            lost[0] += slot.fragments
            slot.used = 0
        if slot.used:
            same = True
            for k in range(KEY_WORDS):
                same = same and slot.key[k] == piece.key[k]
            if same:
                return s
        # A free one before one in use, among those the one that waits longest.
        best = slots[found]
        if best.used and (not slot.used or slot.first_ns < best.first_ns):
            found = s
    slot = slots[found]
    if slot.used:
        lost[0] += slot.fragments
    for k in range(KEY_WORDS):
        slot.key[k] = piece.key[k]
    slot.first_ns = piece.ts_ns
    slot.got = slot.size = slot.fragments = 0
    slot.proto = piece.proto
    slot.used = 1
    return int(found)


@routine
def _fits(piece: Row) -> bool:
    """Whether it can be part of any packet: within the largest one, and whole words but at the end."""
    end = i64(piece.offset) + i64(piece.size)
    return end <= (MAX_4 if piece.version == 4 else MAX_6) and not (piece.more and piece.size & 7)


@routine
def _put(data: np.ndarray, piece: Row, slot: Row, pool: np.ndarray, seen: np.ndarray) -> bool:
    """Copy what counts of a fragment, 8 bytes at a time; whether the datagram is whole now.

    `seen` says of each 8 bytes the unit that their fragment begins with, plus 1.
    """
    end = i64(piece.offset) + i64(piece.size)
    if slot.fragments == 0:
        seen[:] = 0
    slot.fragments += 1
    if not piece.more:
        if slot.size and slot.size != end:
            return False  # its last bytes would be a part of 8 in the middle
        slot.size = end
    if piece.offset == 0:
        slot.proto = piece.proto
    begins = i64(piece.offset >> 3) + 1
    for unit in range(piece.offset >> 3, (end + 7) >> 3):
        if seen[unit] and i64(seen[unit]) <= begins:
            continue
        if seen[unit] == 0:
            slot.got += 1
        seen[unit] = begins
        first = i64(unit) * 8
        source = piece.at + first - i64(piece.offset)
        for k in range(min(8, end - first)):
            pool[first + k] = data[source + k]
    units = (i64(slot.size) + 7) >> 3
    if units == 0 or i64(slot.got) < units:
        return False
    return bool(np.all(seen[:units]))  # some of those that came may lie behind the end


@routine
def _write(piece: Row, slot: Row, pool: np.ndarray, out: np.ndarray, at: int) -> int:
    """The IP packet with the plainest header that says the same; returns where it ends."""
    four = piece.version == 4
    header = HEADER_4 if four else HEADER_6
    for k in range(header):
        out[at + k] = 0
    # Addresses are words whose bytes in memory are those of the address.
    words, base = (1, 12) if four else (2, 8)
    for side in range(2):
        for w in range(words):
            word = slot.key[2 * side + w] if not four else slot.key[2 * side + 1] >> u64(32)
            size = 4 if four else 8
            for k in range(size):
                out[at + base + (side * words + w) * size + k] = (word >> u64(8 * k)) & u64(255)
    size = i64(slot.size)
    if four:
        out[at] = 0x45
        length = size + HEADER_4
        identification = slot.key[4] & u64(0xFFFF)
        out[at + 2], out[at + 3] = length >> 8, length & 255
        out[at + 4], out[at + 5] = identification >> u64(8), identification & u64(255)
        out[at + 8], out[at + 9] = piece.ttl, slot.proto
    else:
        out[at] = 0x60
        out[at + 4], out[at + 5] = size >> 8, size & 255
        out[at + 6], out[at + 7] = slot.proto, piece.ttl
    at += header
    out[at : at + size] = pool[:size]
    return int(at + size)


@kernel
def assemble(
    data: np.ndarray,
    pieces: np.ndarray,
    seed: int,
    slots: np.ndarray,
    pool: np.ndarray,
    seen: np.ndarray,
    out: np.ndarray,
    completed: np.ndarray,
    ends: np.ndarray,
    fragments: np.ndarray,
    lost: np.ndarray,
) -> int:
    """Take all fragments in order; returns how many datagrams became whole: `completed` by which fragment,
    where they end in `out`, of how many fragments they are. `lost` counts fragments that were given up.
    """
    count, at = 0, 0
    for i in range(len(pieces)):
        piece = pieces[i]
        if not _fits(piece):
            lost[0] += 1
            continue
        s = _find(slots, piece, seed, lost)
        slot = slots[s]
        if not _put(data, piece, slot, pool[s], seen[s]):
            continue
        at = _write(piece, slot, pool[s], out, at)
        slot.used = 0
        completed[count] = i
        ends[count] = at
        fragments[count] = min(slot.fragments, 65535)
        count += 1
    return count


@kernel
def copy_all(data: np.ndarray, offsets: np.ndarray, lens: np.ndarray, out: np.ndarray) -> None:
    """The packets data[offsets[i] : offsets[i] + lens[i]], one after the other."""
    at = 0
    for i in range(len(offsets)):
        size = i64(lens[i])
        out[at : at + size] = data[offsets[i] : offsets[i] + size]
        at += size
