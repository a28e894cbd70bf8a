"""Packets that the kernel drops, so many for each reason. Needs root and a network namespace of its own.

As a program, inside the namespace: `python -m workloads.dropping`, which says what it did as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from workloads.common import LOOPBACK, TOOLS, program

CLOSED, WRONG, FULL, FORBIDDEN, REFUSED = 101, 103, 1009, 107, 109
FULL_PORT, WRONG_PORT, FORBIDDEN_PORT, CLOSED_PORT = 4001, 4003, 4005, 4007
_PAYLOAD = bytes(200)
# To be run in a network namespace of its own.
COMMAND = ("env", f"PYTHONPATH={TOOLS}", sys.executable, "-m", "workloads.dropping")


@dataclass(frozen=True)
class Dropped:
    """`received` of FULL datagrams got to `pid`; `snmp` is what the namespace's own counters say."""

    pid: int
    received: int
    snmp: dict[str, int]


def drop_packets(namespace: str) -> Dropped:
    """CLOSED datagrams to a closed port, WRONG with a false checksum, FULL to a socket with a small buffer,
    FORBIDDEN to a port that a firewall closes where nft is there, REFUSED connections.
    """
    command = [program("ip"), "netns", "exec", namespace, *COMMAND]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Dropped(**json.loads(done.stdout))


def _snmp() -> dict[str, int]:
    """Counters of UDP (/proc/net/snmp)."""
    names, values = (
        line.split()[1:] for line in Path("/proc/net/snmp").read_text().splitlines() if line[:4] == "Udp:"
    )
    return dict(zip(names, map(int, values), strict=True))


def _wrong(count: int) -> None:
    """Datagrams with a false checksum, from a raw socket: the kernel makes only the IP header's."""
    udp = struct.pack("!HHHH", 5555, WRONG_PORT, 8 + len(_PAYLOAD), 0x1234) + _PAYLOAD
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 17, 0, *[socket.inet_aton(LOOPBACK)] * 2)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for _ in range(count):
            raw.sendto(head + udp, (LOOPBACK, 0))


def _receiver(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((LOOPBACK, port))
    return made


def main() -> None:
    """Drop them all."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    full = _receiver(FULL_PORT)
    full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for count, port in ((CLOSED, CLOSED_PORT), (FULL, FULL_PORT)):
        for _ in range(count):
            sender.sendto(_PAYLOAD, (LOOPBACK, port))
    received = 0
    full.setblocking(False)
    while True:
        try:
            full.recv(4096)
        except BlockingIOError:
            break
        received += 1
    with _receiver(WRONG_PORT) as wrong:
        _wrong(WRONG)
        wrong.settimeout(0.2)
        try:
            wrong.recv(4096)
            raise SystemExit("a datagram with a false checksum came through")
        except TimeoutError:
            pass
    for _ in range(REFUSED):
        with socket.socket() as client:
            if not client.connect_ex((LOOPBACK, CLOSED_PORT)):
                raise SystemExit("the port is open")
    with _receiver(FORBIDDEN_PORT):
        rule = f"udp dport {FORBIDDEN_PORT} drop"
        rules = f"table inet t {{\nchain c {{\ntype filter hook input priority 0\n{rule}\n}}\n}}\n"
        subprocess.run([program("nft"), "-f", "-"], input=rules, text=True, check=True)
        for _ in range(FORBIDDEN):
            sender.sendto(_PAYLOAD, (LOOPBACK, FORBIDDEN_PORT))
    print(json.dumps({"pid": os.getpid(), "received": received, "snmp": _snmp()}))


if __name__ == "__main__":
    main()
