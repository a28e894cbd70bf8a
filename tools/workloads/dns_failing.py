"""A DNS server that fails as the first label of the question says; `python -m workloads.dns_failing`.

fail.*   SERVFAIL
slow.*   SERVFAIL after 150 ms
drop.*   no answer
"""

from __future__ import annotations

import socket
import struct
import time

from workloads.common import LOOPBACK, announce

SLOW_S = 0.150
RESPONSE = 0x8000
RECURSION_DESIRED = 0x0100
RECURSION_AVAILABLE = 0x0080
SERVFAIL = 2


def answer(query: bytes) -> bytes | None:
    """RFC 1035 section 4.1: the header, then the question as it came; no records."""
    query_id, flags = struct.unpack_from("!HH", query)
    label = query[13 : 13 + query[12]]
    if label == b"drop":
        return None
    if label == b"slow":
        time.sleep(SLOW_S)
    question_end = query.index(b"\0", 12) + 5
    flags = RESPONSE | (flags & RECURSION_DESIRED) | RECURSION_AVAILABLE | SERVFAIL
    return struct.pack("!6H", query_id, flags, 1, 0, 0, 0) + query[12:question_end]


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind((LOOPBACK, 0))
        announce(port=listening.getsockname()[1])
        while True:
            query, client = listening.recvfrom(4096)
            if response := answer(query):
                listening.sendto(response, client)


if __name__ == "__main__":
    main()
