"""ARP (RFC 826) and RARP (RFC 903)."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import HAS_ARP, HAS_ARP_IP, Row, be16, lacking, mapped, u8, u64
from stratokit.kernels import routine


@routine
def arp(data: np.ndarray, at: int, cap: int, wire: int, row: Row) -> int:
    """Hardware type 16, protocol type 16, lengths of their addresses 8 and 8, operation 16, then hardware and
    protocol address of the sender, then of the target.
    """
    stop = lacking(8, at, cap, wire)
    if stop:
        return stop
    row.arp_op = be16(data, at + 6, cap)
    row.layers |= HAS_ARP
    hardware, protocol = u8(data, at + 4, cap), u8(data, at + 5, cap)
    stop = lacking(8 + 2 * (hardware + protocol), at, cap, wire)
    if stop == 0 and be16(data, at + 2, cap) == 0x0800 and protocol == 4:
        row.arp_sender_ip[0] = row.arp_target_ip[0] = u64(0)
        row.arp_sender_ip[1] = mapped(data, at + 8 + hardware, cap)
        row.arp_target_ip[1] = mapped(data, at + 12 + 2 * hardware, cap)
        row.layers |= HAS_ARP_IP
    return stop
