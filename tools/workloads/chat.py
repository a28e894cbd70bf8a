"""A WebSocket server that says all twice, and a client, two processes; the client tells what was said."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from workloads.common import LOOPBACK, announce, python_child, python_server

SIZES = (0, 1, 125, 126, 5003, 65_535, 65_536, 200_003)


@dataclass(frozen=True)
class Room:
    pid: int
    port: int


@dataclass(frozen=True)
class Message:
    sender: str
    opcode: str
    payload_bytes: int
    close_code: int | None = None
    close_reason: str | None = None


@contextmanager
def room() -> Iterator[Room]:
    with python_server("workloads.chat", "serve") as facts:
        yield Room(facts["pid"], facts["port"])


def talk(room: Room) -> tuple[int, list[Message]]:
    """(pid of the client, messages of both sides)."""
    child = python_child("workloads.chat", "talk", str(room.port))
    first, *lines = child.communicate(timeout=60)[0].splitlines()
    return json.loads(first)["pid"], [Message(**json.loads(line)) for line in lines]


def serve() -> None:
    from websockets.exceptions import ConnectionClosedError
    from websockets.sync.server import ServerConnection
    from websockets.sync.server import serve as listen

    def answer(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosedError):  # a code above 3000 is no error
            for message in connection:
                connection.send(message)
                connection.send(message)

    with listen(answer, LOOPBACK, 0, compression=None, ping_interval=None) as server:
        announce(port=server.socket.getsockname()[1])
        server.serve_forever()


def say(*said: Message) -> None:
    for message in said:
        print(json.dumps(message.__dict__), flush=True)


def talk_to(port: int) -> None:
    from websockets.sync.client import connect

    announce()
    with connect(
        f"ws://{LOOPBACK}:{port}/chat", compression=None, proxy=None, ping_interval=None, max_size=None
    ) as connection:
        for number, size in enumerate(SIZES):
            opcode = "binary" if number % 2 else "text"
            connection.send(bytes(size) if number % 2 else "x" * size)
            say(Message("client", opcode, size))
            for _ in range(2):
                said = connection.recv()
                say(Message("server", opcode, len(said)))
        connection.close(4001, "enough said")
        say(Message("client", "close", 13, 4001, "enough said"))
        say(Message("server", "close", 13, 4001, "enough said"))


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else talk_to(int(sys.argv[2]))
