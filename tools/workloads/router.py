"""Three network namespaces in a row, joined by virtual interfaces: the middle one forwards for the others.

What crosses it is traffic of no socket of its own: echo conversations, pings, ARP, neighbour discovery, and
frames that are written as they shall be, with VLAN tags among them.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workloads.common import WorkloadError, program
from workloads.echo import Conversation
from workloads.namespaces import python_inside

LEFT, LEFT_GATE, RIGHT, RIGHT_GATE = "10.213.1.2", "10.213.1.1", "10.213.2.2", "10.213.2.1"
LEFT6, LEFT_GATE6 = "fd13:1::2", "fd13:1::1"
RIGHT6, RIGHT_GATE6 = "fd13:2::2", "fd13:2::1"


@dataclass(frozen=True)
class Router:
    """Names of the namespaces; the middle one has the devices `to_left` and `to_right`, the others `eth0`."""

    left: str
    middle: str
    right: str
    to_left: str = "left0"
    to_right: str = "right0"


@contextmanager
def router(mtu: int = 1500, quiet: bool = False) -> Iterator[Router]:
    """Needs root. All links have this MTU; in quiet ones nothing is sent but what is asked for (no IPv6)."""
    number = os.getpid()
    made = Router(f"sk{number}l", f"sk{number}m", f"sk{number}r")
    try:
        for name in (made.left, made.middle, made.right):
            _ip("netns", "add", name)
            for which in ("all", "default"):
                _inside(name, "sysctl", "-qw", f"net.ipv6.conf.{which}.disable_ipv6={int(quiet)}")
            _ip("-n", name, "link", "set", "lo", "up")
        _inside(made.middle, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for end, device, address, gate in (
            (made.left, made.to_left, (LEFT, LEFT6), (LEFT_GATE, LEFT_GATE6)),
            (made.right, made.to_right, (RIGHT, RIGHT6), (RIGHT_GATE, RIGHT_GATE6)),
        ):
            link = ["link", "add", device, "mtu", str(mtu), "type", "veth"]
            _ip("-n", made.middle, *link, "peer", "name", "eth0", "mtu", str(mtu), "netns", end)
            for where, name, own in ((made.middle, device, gate), (end, "eth0", address)):
                _ip("-n", where, "address", "add", f"{own[0]}/24", "dev", name)
                if not quiet:
                    _ip("-n", where, "address", "add", f"{own[1]}/64", "dev", name, "nodad")
                _ip("-n", where, "link", "set", name, "up")
            _ip("-n", end, "route", "add", "default", "via", gate[0])
            if not quiet:
                _ip("-n", end, "route", "add", "default", "via", gate[1])
        yield made
    finally:
        for name in (made.left, made.middle, made.right):
            subprocess.run([program("ip"), "netns", "delete", name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    done = subprocess.run([program("ip"), *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise WorkloadError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _inside(namespace: str, *words: str) -> None:
    subprocess.run([program("ip"), "netns", "exec", namespace, *words], check=True, capture_output=True)


def ping(where: Router, to: str, count: int, size: int = 56) -> int:
    """Echo requests from the left, all answered; the process that made them."""
    words = ("ping", to, str(count), str(size))
    command = python_inside(where.left, "workloads.router", *words)
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def send_frames(namespace: str, device: str, frames: list[bytes]) -> None:
    """Put these frames on a device as they are, in this order."""
    lines = "".join(frame.hex() + "\n" for frame in frames)
    command = python_inside(namespace, "workloads.router", "frames", device)
    subprocess.run(command, input=lines, text=True, check=True)


def converse(where: Router, messages: int = 13, size: int = 499, address: str = RIGHT) -> Conversation:
    """A client on the left talks to an echo server on the right."""
    words = ("server", f"--address={address}")
    with subprocess.Popen(
        python_inside(where.right, "workloads.echo", *words), stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            at = json.loads(server.stdout.readline())
            words = ("client", str(at["port"]), str(messages), str(size), f"--address={address}")
            done = subprocess.run(
                python_inside(where.left, "workloads.echo", *words),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        finally:
            server.terminate()
    facts = json.loads(done.stdout)
    ports = facts["client_port"], at["pid"], at["port"]
    return Conversation(facts["pid"], facts["comm"], *ports, messages, messages * size)


@contextmanager
def tcpdump(namespace: str, device: str, to: Path, *words: str) -> Iterator[None]:
    """Frames of a device as tcpdump writes them; it is ready when the block begins."""
    command = [
        program("ip"),
        "netns",
        "exec",
        namespace,
        "tcpdump",
        "-i",
        device,
        "-w",
        str(to),
        "-U",
        "-Z",
        "root",
    ]
    with subprocess.Popen(
        [*command, "--immediate-mode", "-B", "65536", *words], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "listening on" in line:
                    break
            yield
            _settled(to)
        finally:
            process.terminate()
            said = process.stderr.read()
    if "0 packets dropped by kernel" not in said:
        raise WorkloadError(f"tcpdump: {said}")


def _settled(path: Path) -> None:
    """Until the file no longer grows."""
    before = -1
    while before != (before := path.stat().st_size):
        time.sleep(0.2)


def _ping(to: str, count: int, size: int) -> None:
    """RFC 792 and RFC 4443, section 4: type, code, checksum, identifier, sequence number."""
    six = ":" in to
    family, proto = (socket.AF_INET6, 58) if six else (socket.AF_INET, 1)
    with socket.socket(family, socket.SOCK_RAW, proto) as raw:
        raw.settimeout(5)
        for number in range(1, count + 1):
            head = struct.pack("!BBHHH", 128 if six else 8, 0, 0, os.getpid() & 0xFFFF, number)
            message = head + bytes(i & 0xFF for i in range(size))
            if not six:  # of the other the kernel makes the checksum
                words = struct.unpack(f"!{len(message) // 2}H", message)
                total = sum(words)
                total = (total & 0xFFFF) + (total >> 16)
                total = (total & 0xFFFF) + (total >> 16)
                message = message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]
            raw.sendto(message, (to, 0))
            while True:
                answer = raw.recv(65535)[0 if six else 20 :]
                if answer[0] == (129 if six else 0) and answer[4:8] == message[4:8]:
                    break
    print(os.getpid())


def _frames(device: str) -> None:
    frames = [bytes.fromhex(line) for line in sys.stdin]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        for frame in frames:
            raw.send(frame)


if __name__ == "__main__":
    if sys.argv[1] == "ping":
        _ping(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        _frames(sys.argv[2])
