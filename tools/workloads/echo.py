"""Raw TCP: one connection that carries known bytes there and back, both processes known.

As a program: `python -m workloads.echo server [prefork]` and `... client PORT MESSAGES SIZE`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
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
def echo_server(prefork: bool = False) -> Iterator[EchoServer]:
    with python_server("workloads.echo", "server", *(["prefork"] if prefork else [])) as facts:
        yield EchoServer(facts["port"], facts["pid"], facts["listener_pid"], facts["comm"])


def converse(at: EchoServer, messages: int = 17, size: int = 997) -> Conversation:
    process = python_child("workloads.echo", "client", str(at.port), str(messages), str(size))
    said, _ = process.communicate()
    if process.returncode != 0:
        raise WorkloadError(f"the echo client ended with {process.returncode}")
    facts = json.loads(said)
    return Conversation(
        facts["pid"], facts["comm"], facts["client_port"], at.pid, at.port, messages, messages * size
    )


def serve(prefork: bool) -> None:
    listener_pid = os.getpid()
    with socket.create_server((LOOPBACK, 0)) as listening:
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


def talk(port: int, messages: int, size: int) -> None:
    with socket.create_connection((LOOPBACK, port)) as connection:
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
    if sys.argv[1] == "server":
        serve(prefork="prefork" in sys.argv)
    else:
        talk(*(int(argument) for argument in sys.argv[2:5]))
