"""Wi-Fi (IEEE 802.11), alone or behind a header of https://www.radiotap.org: data frames in the clear."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import (
    STOP_ENCRYPTED,
    STOP_FRAGMENT,
    STOP_LENGTH,
    STOP_UNKNOWN,
    lacking,
    u8,
)
from stratokit.dissect.link import llc
from stratokit.kernels import kernel, routine

IEEE80211, RADIOTAP = 105, 127
WIFI_TYPES = (IEEE80211, RADIOTAP)
# The first byte of a frame: kind data, of which some say only that there is none, or have a QoS field.
KIND, DATA, NO_DATA, QOS = 0x0C, 0x08, 0x40, 0x80
# The second one.
BOTH_DISTRIBUTED, MORE_FRAGMENTS, PROTECTED, ORDER = 0x03, 0x04, 0x40, 0x80
AGGREGATED = 0x80  # of the QoS field: several packets in one frame


@routine
def radiotap(data: np.ndarray, at: int, cap: int, wire: int) -> tuple[int, int, bool]:
    """Version 8, pad 8, length 16, words of 32 bits that say which fields follow, all little-endian. Returns
    0 or the stop reason, where the frame begins, and whether its header is padded to 4 bytes.
    """
    stop = lacking(8, at, cap, wire)
    if stop:
        return stop, at, False
    size = u8(data, at + 2, cap) | u8(data, at + 3, cap) << 8
    if u8(data, at, cap) or size < 8:
        return STOP_LENGTH, at, False
    stop = lacking(size, at, cap, wire)
    if stop:
        return stop, at, False
    words, present = 8, u8(data, at + 4, cap)
    while words < size and u8(data, at + words - 1, cap) & 0x80:
        words += 4
    flags_at = (words + 7 & ~7) + 8 if present & 1 else words  # behind a time of 8 bytes
    padded = present & 2 and flags_at < size and u8(data, at + flags_at, cap) & 0x20
    return 0, at + size, padded != 0


@kernel
def wifi(data: np.ndarray, at: int, cap: int, wire: int, link_type: int) -> tuple[int, int]:
    """Control 16, duration 16, three addresses of 48, sequence 12 and fragment 4, perhaps a fourth address,
    QoS 16, HT control 32; then LLC, which gives an EtherType or a stop reason.
    """
    padded = False
    if link_type == RADIOTAP:
        stop, at, padded = radiotap(data, at, cap, wire)
        if stop:
            return stop, at
    stop = lacking(2, at, cap, wire)
    if stop:
        return stop, at
    first, second = u8(data, at, cap), u8(data, at + 1, cap)
    if first & (KIND | 3) != DATA or first & NO_DATA:
        return STOP_UNKNOWN, at
    size = 30 if second & BOTH_DISTRIBUTED == BOTH_DISTRIBUTED else 24
    qos_at = at + size
    if first & QOS:
        size += 6 if second & ORDER else 2
    stop = lacking(size, at, cap, wire)
    if stop:
        return stop, at
    if second & PROTECTED:
        return STOP_ENCRYPTED, at
    if second & MORE_FRAGMENTS or u8(data, at + 22, cap) & 0x0F:
        return STOP_FRAGMENT, at
    if first & QOS and u8(data, qos_at, cap) & AGGREGATED:
        return STOP_UNKNOWN, at
    return llc(data, at + (size + 3 & ~3 if padded else size), cap, wire)
