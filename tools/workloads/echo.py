"""Raw TCP: one connection that carries known bytes there and back, both processes known.

As a program: `python -m workloads.echo server [prefork]` and `... client PORT MESSAGES SIZE [paused]`, both
with `--address=ADDRESS` for another than 127.0.0.1. A paused client connects, says so, and goes on when it
gets a line, so that a recording can begin in between.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from workloads.common import LOOPBACK, WorkloadError, announce, python_child, python_server


@dataclass(frozen=True)
class EchoServer:
    """With prefork `listener_pid` made the listening socket and its child `pid` accepts the connection."""

    port: int
    pid: int
    listener_pid: int
    comm: str
    address: str


@dataclass(frozen=True)
class Conversation:
    client_pid: int
    client_comm: str
    client_port: int
    server_pid: int
    server_port: int
    messages: int
    bytes_each_way: int


@contextmanager
def echo_server(prefork: bool = False, address: str = LOOPBACK) -> Iterator[EchoServer]:
    words = ["server", f"--address={address}", *(["prefork"] if prefork else [])]
    with python_server("workloads.echo", *words) as facts:
        yield EchoServer(facts["port"], facts["pid"], facts["listener_pid"], facts["comm"], address)


def converse(at: EchoServer, messages: int = 17, size: int = 997) -> Conversation:
    words = ["client", str(at.port), str(messages), str(size), f"--address={at.address}"]
    process = python_child("workloads.echo", *words)
    said, _ = process.communicate()
    if process.returncode != 0:
        raise WorkloadError(f"the echo client ended with {process.returncode}")
    facts = json.loads(said)
    return Conversation(
        facts["pid"], facts["comm"], facts["client_port"], at.pid, at.port, messages, messages * size
    )


@contextmanager
def connected(at: EchoServer, messages: int = 17, size: int = 997) -> Iterator[Conversation]:
    """A client that has connected when the block begins, and talks when it ends."""
    words = ["client", str(at.port), str(messages), str(size), "paused", f"--address={at.address}"]
    process = python_child("workloads.echo", *words, stdin=subprocess.PIPE)
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    try:
        yield Conversation(
            facts["pid"], facts["comm"], facts["client_port"], at.pid, at.port, messages, messages * size
        )
    finally:
        process.communicate("go on\n")


def serve(prefork: bool, address: str) -> None:
    listener_pid = os.getpid()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listening:
        if prefork and (worker := os.fork()):
            # The parent only waits: it made the socket, but never accepts. Ending it ends the worker.
            signal.signal(signal.SIGTERM, lambda *_: os.kill(worker, signal.SIGKILL))
            os.waitpid(worker, 0)
            return
        announce(port=listening.getsockname()[1], listener_pid=listener_pid)
        while True:
            connection, _ = listening.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)


def talk(address: str, port: int, messages: int, size: int, paused: bool) -> None:
    with socket.create_connection((address, port)) as connection:
        if paused:
            announce(client_port=connection.getsockname()[1])
            sys.stdin.readline()
        for _ in range(messages):
            connection.sendall(b"x" * size)
            missing = size
            while missing:
                received = len(connection.recv(missing))
                if received == 0:
                    raise SystemExit("the server closed the connection")
                missing -= received
        announce(client_port=connection.getsockname()[1])


if __name__ == "__main__":
    address = next((word[10:] for word in sys.argv if word.startswith("--address=")), LOOPBACK)
    if sys.argv[1] == "server":
        serve("prefork" in sys.argv, address)
    else:
        port, messages, size = (int(argument) for argument in sys.argv[2:5])
        talk(address, port, messages, size, "paused" in sys.argv)
