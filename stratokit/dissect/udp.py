"""UDP (RFC 768) and UDP-Lite (RFC 3828)."""

from __future__ import annotations

import numpy as np

from stratokit.dissect.layers import STOP_LENGTH, Row, be16, lacking
from stratokit.dissect.transport import payload, ports
from stratokit.kernels import kernel, routine

LENGTH_MAX = 0xFFFF


@kernel
def udp(data: np.ndarray, start: int, at: int, cap: int, wire: int, row: Row) -> tuple[int, int]:
    """Ports 32, length of header and payload 16, checksum 16. Returns 0 or the stop reason, and `wire`."""
    ports(data, at, cap, row)
    stop = lacking(8, at, cap, wire)
    if stop:
        return stop, wire
    length = be16(data, at + 4, cap)
    # Zero stands in jumbograms (RFC 2675) and in what segmentation offload makes of more than 64 KiB.
    if length or wire - at <= LENGTH_MAX:
        if length < 8:
            return STOP_LENGTH, wire
        wire = min(wire, at + length)
    payload(start, at + 8, cap, wire, row)
    return 0, wire


@routine
def udplite(data: np.ndarray, start: int, at: int, cap: int, wire: int, row: Row) -> int:
    """Ports 32, bytes that the checksum covers 16, checksum 16: the length is that of the IP packet."""
    ports(data, at, cap, row)
    stop = lacking(8, at, cap, wire)
    if not stop:
        payload(start, at + 8, cap, wire, row)
    return stop
