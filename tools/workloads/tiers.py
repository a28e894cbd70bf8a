"""A system of tiers, each a process, with delays at known places: resolver, application, store, client.

    python -m workloads.tiers resolver        UDP: every name is 127.0.0.1, late where it begins with slow
    python -m workloads.tiers store           TCP: a line for a line; late for the line `slow`
    python -m workloads.tiers app STORE_PORT [ADDRESS]     HTTP on three ports: see `app`
    python -m workloads.tiers client          one request a line of its standard input, as JSON of `ask`

Every delay is DELAY_S long, and all else is quick.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading
import time
from typing import Any

from workloads.common import LOOPBACK, announce

DELAY_S = 0.3
BODY = b"done\n"


def resolver() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.bind((LOOPBACK, 0))
        announce(port=asked.getsockname()[1])
        while True:
            question, who = asked.recvfrom(512)
            if question[13:17] == b"slow":
                time.sleep(DELAY_S)
            header = question[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)  # RFC 1035 section 4.1.1
            record = struct.pack("!3HIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(LOOPBACK)
            asked.sendto(header + question[12:] + record, who)


def store() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        announce(port=listener.getsockname()[1])
        while True:
            peer, _ = listener.accept()
            with peer:
                line = peer.recv(64)
                if line == b"slow\n":
                    time.sleep(DELAY_S)
                peer.sendall(b"value\n")


def app(store_port: int, address: str) -> None:
    """/quick, /sleep, /store, which asks the slow store; on other ports accepting or reading comes late."""
    listeners = [socket.create_server((address, 0)) for _ in range(3)]
    names = ("port", "slow_accept_port", "slow_read_port")
    announce(**{name: at.getsockname()[1] for name, at in zip(names, listeners, strict=True)})
    for name, listener in zip(names[1:], listeners[1:], strict=True):
        threading.Thread(target=serve, args=(listener, name, store_port), daemon=True).start()
    serve(listeners[0], "port", store_port)


def serve(listener: socket.socket, name: str, store_port: int) -> None:
    while True:
        select.select([listener], [], [])
        if name == "slow_accept_port":
            time.sleep(DELAY_S)
        peer, _ = listener.accept()
        with peer:
            if name == "slow_read_port":
                time.sleep(DELAY_S)
            request = peer.recv(4096)
            path = request.split()[1] if request else b""
            if path == b"/sleep":
                time.sleep(DELAY_S)
            if path == b"/store":
                with socket.create_connection((LOOPBACK, store_port)) as asked:
                    asked.sendall(b"slow\n")
                    asked.recv(64)
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY)
            peer.sendall(head + BODY)


def client() -> None:
    announce()
    for line in sys.stdin:
        ask(**json.loads(line))
        print("asked", flush=True)


def ask(
    port: int, path: str, address: str = LOOPBACK, name: str = "", resolver: int = 0, **late: Any
) -> None:
    """A request, after a look-up where a name is given; with `read` the answer is read late."""
    if name:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        question = struct.pack("!6H", 0x5A17, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((LOOPBACK, resolver))
            asking.send(question)
            address = socket.inet_ntoa(asking.recv(512)[-4:])
    with socket.create_connection((address, port)) as peer:
        peer.sendall(f"GET {path} HTTP/1.1\r\nHost: tiers.test\r\nConnection: close\r\n\r\n".encode())
        if late.get("read"):
            time.sleep(DELAY_S)
        while peer.recv(4096):
            pass


def main() -> None:
    role, *words = sys.argv[1:]
    if role == "app":
        app(int(words[0]), words[1] if len(words) > 1 else LOOPBACK)
    else:
        {"resolver": resolver, "store": store, "client": client}[role]()


if __name__ == "__main__":
    main()
