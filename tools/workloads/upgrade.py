"""A server that lets clients of HTTP/1.1 go on in HTTP/2 (Upgrade: h2c), as few servers still do."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from workloads.common import LOOPBACK, announce, python_server

STATUSES = {"/one": 200, "/two": 404, "/three": 503}


@dataclass(frozen=True)
class Upgrading:
    pid: int
    port: int

    def url(self, path: str) -> str:
        return f"http://{LOOPBACK}:{self.port}{path}"


@contextmanager
def upgrading_server() -> Iterator[Upgrading]:
    with python_server("workloads.upgrade") as facts:
        yield Upgrading(facts["pid"], facts["port"])


def head_of(connection: socket.socket) -> dict[str, str]:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += connection.recv(1)
    first, *lines = data.decode().split("\r\n")
    fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
    return fields | {":path": first.split(" ")[1]}


def serve(connection: socket.socket) -> None:
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import ConnectionTerminated, RequestReceived

    head = head_of(connection)
    assert head["upgrade"] == "h2c"
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    state = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    state.initiate_upgrade_connection(head["http2-settings"].encode())

    def answer(stream: int, path: str) -> None:
        status = STATUSES[path]
        state.send_headers(stream, [(":status", str(status)), ("content-type", "text/plain")])
        state.send_data(stream, path.encode() * 100, end_stream=True)

    answer(1, head[":path"])
    connection.sendall(state.data_to_send())
    while data := connection.recv(65536):
        for event in state.receive_data(data):
            if isinstance(event, RequestReceived):
                answer(event.stream_id, dict(event.headers)[":path"])
            if isinstance(event, ConnectionTerminated):
                return
        connection.sendall(state.data_to_send())


def main() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        announce(port=listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                serve(connection)


if __name__ == "__main__":
    main()
