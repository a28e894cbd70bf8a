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

from stratokit.kernels import kernel, routine

# Kernels compute in 64 bits. numba compiles these as numpy's types; mypy need not tell them from int.
i64: Any = np.int64
u64: Any = np.uint64

# --- where decoding stopped, and why: codes of the columns stop_layer and stop_reason; 0 is null ------------

LAYER_NAMES = (
    *("", "link", "vlan", "ipv4", "ipv6", "tcp", "udp", "icmp", "icmpv6", "sctp"),
    *("arp", "mpls", "pppoe", "ppp", "gre", "vxlan", "geneve", "gtpu", "esp", "udplite", "l2tp"),
)
LINK, VLAN, IPV4, IPV6, TCP, UDP, ICMP, ICMPV6, SCTP = range(1, 10)
ARP, MPLS, PPPOE, PPP, GRE, VXLAN, GENEVE, GTPU, ESP, UDPLITE, L2TP = range(10, 21)

REASON_NAMES = ("", "snaplen", "length", "unknown", "fragment", "encrypted", "depth")
STOP_SNAPLEN = -1  # the header goes on after the captured bytes
STOP_LENGTH = -2  # a length contradicts another one, or the packet ends inside the header
STOP_UNKNOWN = -3  # the next protocol is none of ours
STOP_FRAGMENT = -4  # a fragment: its bytes belong to a packet of which other frames have the rest
STOP_ENCRYPTED = -5  # what follows can be read by its receiver only
STOP_DEPTH = -6  # more tunnels inside each other than MAX_TUNNELS

# Nothing that makes sense nests deeper; frames that do are made to keep a decoder busy.
MAX_TUNNELS = 4

# Codes of the column `tunnel`; 0 is null.
TUNNEL_NAMES = (
    *("", "ipip", "4in6", "6in4", "6in6", "gre", "erspan", "vxlan", "geneve", "gtpu"),
    *("mplsoudp", "mplsoip", "etherip", "ethernet", "l2tp"),
)
T_IPIP, T_4IN6, T_6IN4, T_6IN6, T_GRE, T_ERSPAN, T_VXLAN, T_GENEVE, T_GTPU = range(1, 10)
T_MPLS_UDP, T_MPLS_IP, T_ETHERIP, T_ETHERNET, T_L2TP = range(10, 15)

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
HAS_VLAN_INNER = 1 << 9
HAS_MPLS = 1 << 10
HAS_PPPOE = 1 << 11
HAS_ARP = 1 << 12  # the operation
HAS_ARP_IP = 1 << 13
HAS_TCP_OPTIONS = 1 << 14  # there are some, all of them were captured
HAS_MSS = 1 << 15
HAS_WINDOW_SCALE = 1 << 16
HAS_SACK_PERMITTED = 1 << 17
HAS_SACK = 1 << 18
HAS_TIMESTAMPS = 1 << 19
HAS_ICMP_ID = 1 << 20
HAS_ICMP_IP = 1 << 21  # the packet that an ICMP error is about
HAS_ICMP_PORTS = 1 << 22
HAS_SCTP = 1 << 23
HAS_SCTP_CHUNK = 1 << 24
HAS_TUNNEL = 1 << 25
HAS_TUNNEL_ID = 1 << 26
HAS_OUTER = 1 << 27  # the IP addresses are those of a packet within another one
# What belongs to one IP packet and goes when the packet within it is entered.
OF_PACKET = (
    HAS_IP_PROTO
    | (IS_FRAGMENT | HAS_PORTS | HAS_TCP | HAS_ICMP | HAS_PAYLOAD)
    | (HAS_TCP_OPTIONS | HAS_MSS | HAS_WINDOW_SCALE | HAS_SACK_PERMITTED | HAS_SACK | HAS_TIMESTAMPS)
    | (HAS_ICMP_ID | HAS_ICMP_IP | HAS_ICMP_PORTS | HAS_SCTP | HAS_SCTP_CHUNK)
)

SACK_BLOCKS = 4  # as many as fit into the 40 bytes of options (RFC 2018 section 3)

# What the layers of one packet fill in. The first group is zero in a clean row and stands in every packet;
# the others are whatever the packet before left, unless the bit in `layers` says that they were filled: the
# options of most TCP segments, and what few packets have. Addresses are two words whose bytes in memory are
# those of the address, so that rows can be written as 16 bytes (the words are little-endian, as is every
# machine that numba and eBPF share).
HOT: list[Any] = [
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
    ("layers", "<u4"),
]
OPTIONS: list[Any] = [
    ("tcp_options", "<u8"),
    ("tcp_tsval", "<u4"),
    ("tcp_tsecr", "<u4"),
]
RARE: list[Any] = [
    ("vlan_inner", "<u2"),
    ("mpls_label", "<u4"),
    ("pppoe_session", "<u2"),
    ("arp_op", "<u2"),
    ("arp_sender_ip", "<u8", 2),
    ("arp_target_ip", "<u8", 2),
    ("tcp_mss", "<u2"),
    ("tcp_window_scale", "u1"),
    ("tcp_sack_count", "u1"),
    ("tcp_sack_left", "<u4", SACK_BLOCKS),
    ("tcp_sack_right", "<u4", SACK_BLOCKS),
    ("icmp_id", "<u2"),
    ("icmp_seq", "<u2"),
    ("icmp_ip_version", "u1"),
    ("icmp_ip_proto", "u1"),
    ("icmp_src_ip", "<u8", 2),
    ("icmp_dst_ip", "<u8", 2),
    ("icmp_src_port", "<u2"),
    ("icmp_dst_port", "<u2"),
    ("icmp_about_type", "u1"),  # of ICMP within ICMP: what tells the conversation
    ("icmp_about_id", "<u2"),
    ("sctp_tag", "<u4"),
    ("sctp_chunk", "u1"),
    ("tunnel", "u1"),
    ("tunnel_id", "<u4"),
    ("tunnel_depth", "u1"),
    ("outer_ip_version", "u1"),
    ("outer_src_ip", "<u8", 2),
    ("outer_dst_ip", "<u8", 2),
    ("fragment_id", "<u4"),
    ("fragment_offset", "<u4"),
    ("fragment_proto", "u1"),
    ("fragment_more", "u1"),
    ("fragment_at", "<u4"),  # where the bytes of the fragment begin in the frame, and how many there are
    ("fragment_len", "<u4"),
    ("fragment_whole", "u1"),  # all of them were captured
]
ROW = np.dtype(HOT + OPTIONS + RARE, align=True)
Row: TypeAlias = Any  # a record of ROW: numpy's type for it does not know the fields


# --- reading ------------------------------------------------------------------------------------------------


@routine
def u8(data: np.ndarray, at: int, cap: int) -> Any:
    """The byte at `at`, or 0 past `cap`."""
    return i64(data[at]) if at < cap else i64(0)


@routine
def be16(data: np.ndarray, at: int, cap: int) -> Any:
    """Two bytes in network order, or 0 past `cap`."""
    return i64(data[at]) << 8 | i64(data[at + 1]) if at + 2 <= cap else i64(0)


@routine
def be32(data: np.ndarray, at: int, cap: int) -> Any:
    """Four bytes in network order, or 0 past `cap`."""
    if at + 4 > cap:
        return i64(0)
    return i64(data[at]) << 24 | i64(data[at + 1]) << 16 | i64(data[at + 2]) << 8 | i64(data[at + 3])


@kernel
def lacking(size: int, at: int, cap: int, wire: int) -> int:
    """0 when `size` bytes from `at` were captured, else the stop reason."""
    if at + size <= cap:
        return 0
    return STOP_SNAPLEN if at + size <= wire else STOP_LENGTH


@routine
def le64(data: np.ndarray, at: int, cap: int) -> Any:
    """Eight bytes as a word that stores them in the same order, or 0 past `cap`."""
    word = u64(0)
    if at + 8 <= cap:
        for k in range(8):
            word |= u64(data[at + k]) << u64(8 * k)
    return word


@kernel
def mapped(data: np.ndarray, at: int, cap: int) -> Any:
    """The second word of ::ffff:a.b.c.d for the IPv4 address at `at`; the first one is zero."""
    word = u64(0xFFFF0000)
    if at + 4 <= cap:
        for k in range(4):
            word |= u64(data[at + k]) << u64(32 + 8 * k)
    return word
