"""A system of tiers, each a process, that delays what it is told to at known places.

    python -m workloads.tiers resolver FOLDER ADDRESS      UDP: every name is that address
    python -m workloads.tiers store FOLDER                 TCP: what the application keeps its values in
    python -m workloads.tiers app FOLDER STORE_PORT        HTTP: a value of the store for each request
    python -m workloads.tiers client FOLDER RESOLVER_PORT PORT     HTTP: asks for each line of its input

FOLDER/delay names the one place that is slow now: resolver, accept, read, app, store, or reader, the client
that leaves its answer lying. How long it really took goes to FOLDER/PLACE, a line each time, in ns.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from pathlib import Path

from workloads.common import LOOPBACK, announce

DELAY_S = 0.2
BODY = b"done\n"
NAME = b"\4shop\5tiers\4test\0"


def at(place: str, folder: Path) -> None:
    """Be slow if this is the place."""
    if (folder / "delay").read_text() == place:
        began = time.monotonic_ns()
        time.sleep(DELAY_S)
        with (folder / place).open("a") as took:
            print(time.monotonic_ns() - began, file=took)


def resolver(folder: Path, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.bind((LOOPBACK, 0))
        announce(port=asked.getsockname()[1])
        while True:
            question, who = asked.recvfrom(512)
            at("resolver", folder)
            header = question[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)  # RFC 1035 section 4.1.1
            record = struct.pack("!3HIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(address)
            asked.sendto(header + question[12:] + record, who)


def store(folder: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        announce(port=listener.getsockname()[1])
        while True:
            peer, _ = listener.accept()
            with peer:
                peer.recv(64)
                at("store", folder)
                peer.sendall(BODY)


def app(folder: Path, store_port: int) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        announce(port=listener.getsockname()[1])
        while True:
            select.select([listener], [], [])
            at("accept", folder)
            peer, _ = listener.accept()
            with peer:
                at("read", folder)
                peer.recv(4096)
                at("app", folder)
                with socket.create_connection((LOOPBACK, store_port)) as asked:
                    asked.sendall(b"value\n")
                    body = asked.recv(64)
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
                peer.sendall(head + body)


def client(folder: Path, resolver_port: int, port: int) -> None:
    announce()
    for line in sys.stdin:
        question = struct.pack("!6H", 0x5A17, 0x0100, 1, 0, 0, 0) + NAME + struct.pack("!2H", 1, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((LOOPBACK, resolver_port))
            asking.send(question)
            address = socket.inet_ntoa(asking.recv(512)[-4:])
        with socket.create_connection((address, port)) as peer:
            peer.sendall(f"GET {line.strip()} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
            select.select([peer], [], [])
            at("reader", folder)
            while peer.recv(4096):
                pass
        print("asked", flush=True)


def main() -> None:
    role, folder, *words = sys.argv[1:]
    match role:
        case "resolver":
            resolver(Path(folder), *words)
        case "store":
            store(Path(folder))
        case "app":
            app(Path(folder), int(words[0]))
        case "client":
            client(Path(folder), int(words[0]), int(words[1]))


if __name__ == "__main__":
    main()
