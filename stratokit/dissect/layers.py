"""What the layer kernels share: the row they fill, the codes they return, and the only way to read a frame.

Every layer is a kernel with the same skeleton. It gets the buffer, where its header begins (`at`), where the
captured bytes end (`cap`) and where the packet ends by everything that the lengths so far say (`wire` >=
`cap`), and returns the number of the next protocol or a negative stop reason, with the new `at` and ends. It
reads through `u8`, `be16`, `be32` only; they give zero past `cap`, so a read beyond the captured bytes cannot
happen whatever a header claims.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import njit

# Kernels compute in 64 bits. numba compiles these as numpy's types; mypy need not tell them from int.
i64: Any = np.int64
u64: Any = np.uint64

# --- where decoding stopped, and why: codes of the columns stop_layer and stop_reason; 0 is null ------------

LAYER_NAMES = ("", "link", "vlan", "ipv4", "ipv6", "tcp", "udp", "icmp", "icmpv6", "sctp")
LINK, VLAN, IPV4, IPV6, TCP, UDP, ICMP, ICMPV6, SCTP = range(1, 10)

REASON_NAMES = ("", "snaplen", "length", "unknown", "fragment")
STOP_SNAPLEN = -1  # the header goes on after the captured bytes
STOP_LENGTH = -2  # a length contradicts another one, or the packet ends inside the header
STOP_UNKNOWN = -3  # the next protocol is none of ours
STOP_FRAGMENT = -4  # a later fragment: its bytes belong to a packet that began elsewhere

# --- validity: bits of the column `layers` ------------------------------------------------------------------

HAS_ETHER_TYPE = 1
HAS_VLAN = 2
HAS_IP = 4
HAS_IP_PROTO = 8  # the chain of IPv6 extension headers was walked to its end
IS_FRAGMENT = 16
HAS_PORTS = 32
HAS_TCP = 64  # flags, sequence and acknowledgment number, window
HAS_ICMP = 128
HAS_PAYLOAD = 256


# What the layers of one packet fill in; a clean row is zero throughout. Addresses are two words whose bytes
# in memory are those of the address, so that rows can be written as 16 bytes (the words are little-endian, as
# is every machine that numba and eBPF share).
ROW = np.dtype(
    [
        ("ether_type", "<u2"),
        ("vlan", "<u2"),
        ("src_ip", "<u8", 2),
        ("dst_ip", "<u8", 2),
        ("ip_version", "u1"),
        ("ip_ttl", "u1"),
        ("ip_id", "<u2"),
        ("ip_proto", "u1"),
        ("src_port", "<u2"),
        ("dst_port", "<u2"),
        ("icmp_type", "u1"),
        ("icmp_code", "u1"),
        ("tcp_flags", "<u2"),
        ("tcp_seq", "<u4"),
        ("tcp_ack", "<u4"),
        ("tcp_window", "<u2"),
        ("payload_offset", "<u4"),
        ("payload_len", "<u4"),
        ("stop_layer", "u1"),
        ("stop_reason", "u1"),
        ("layers", "<u2"),
    ],
    align=True,
)

Row: TypeAlias = Any  # a record of ROW: numpy's type for it does not know the fields


# --- reading ------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def u8(data: np.ndarray, at: int, cap: int) -> Any:
    """The byte at `at`, or 0 past `cap`."""
    return i64(data[at]) if at < cap else i64(0)


@njit(nogil=True, cache=True)
def be16(data: np.ndarray, at: int, cap: int) -> Any:
    """Two bytes in network order, or 0 past `cap`."""
    return i64(data[at]) << 8 | i64(data[at + 1]) if at + 2 <= cap else i64(0)


@njit(nogil=True, cache=True)
def be32(data: np.ndarray, at: int, cap: int) -> Any:
    """Four bytes in network order, or 0 past `cap`."""
    if at + 4 > cap:
        return i64(0)
    return i64(data[at]) << 24 | i64(data[at + 1]) << 16 | i64(data[at + 2]) << 8 | i64(data[at + 3])


@njit(nogil=True, cache=True)
def lacking(size: int, at: int, cap: int, wire: int) -> int:
    """0 when `size` bytes from `at` were captured, else the stop reason."""
    if at + size <= cap:
        return 0
    return STOP_SNAPLEN if at + size <= wire else STOP_LENGTH


@njit(nogil=True, cache=True)
def le64(data: np.ndarray, at: int, cap: int) -> Any:
    """Eight bytes as a word that stores them in the same order, or 0 past `cap`."""
    word = u64(0)
    if at + 8 <= cap:
        for k in range(8):
            word |= u64(data[at + k]) << u64(8 * k)
    return word
