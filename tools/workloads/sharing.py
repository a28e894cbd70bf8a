"""Sockets that more than one process or thread uses: who sent and who received each message is known.

As a program: `python -m workloads.sharing forked|passed|threads|mmsg|unix FOLDER` or `... datagrams ADDRESS`;
it prints one JSON object, `Facts` below.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.common import LOOPBACK, WorkloadError, python_child

MESSAGES = 7
MESSAGE = b"m" * 101
# So long the one who does not use a socket any more has time to do what must not count as use.
PAUSE_S = 0.02


@dataclass(frozen=True)
class Facts:
    """`used`: by local port and remote port, the (pid, tid) that sent and received there."""

    server_port: int
    used: dict[tuple[int, int], tuple[int, int]]
    paths: tuple[str, ...] = ()


def run(scenario: str, *args: str) -> Facts:
    process = python_child("workloads.sharing", scenario, *args)
    said = process.communicate()[0]
    if process.returncode:
        raise WorkloadError(f"{scenario} ended with {process.returncode}")
    facts = json.loads(said)
    used = {(local, remote): (pid, tid) for local, remote, pid, tid in facts["used"]}
    return Facts(facts["server_port"], used, tuple(facts.get("paths", ())))


def _tell(server_port: int, used: list[tuple[int, int, int, int]], **more: Any) -> None:
    print(json.dumps({"server_port": server_port, "used": used, **more}))


def _me() -> tuple[int, int]:
    return os.getpid(), threading.get_native_id()


def _converse(to: socket.socket) -> None:
    for _ in range(MESSAGES):
        to.sendall(MESSAGE)
        to.recv(len(MESSAGE))
        time.sleep(PAUSE_S)


def _answer(connection: socket.socket) -> None:
    while data := connection.recv(len(MESSAGE)):
        connection.sendall(data)


def forked() -> None:
    """The parent accepts and forks; the child answers while the parent closes its copy."""
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    client = socket.create_connection((LOOPBACK, port))
    connection, _ = listening.accept()
    child = os.fork()
    if child == 0:
        listening.close()
        client.close()
        _answer(connection)
        os._exit(0)
    time.sleep(PAUSE_S)  # the child waits for a message by now
    connection.close()
    ours = client.getsockname()[1]
    _converse(client)
    client.close()
    os.waitpid(child, 0)
    _tell(port, [(port, ours, child, child), (ours, port, *_me())])


def passed() -> None:
    """One process accepts and passes the connection over a UNIX socket to another, which answers."""
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    worker = os.fork()
    if worker == 0:
        listening.close()
        _, ancillary, _, _ = far.recvmsg(1, socket.CMSG_SPACE(4))
        got = array.array("i", ancillary[0][2])
        _answer(socket.socket(fileno=got[0]))
        os._exit(0)
    client = socket.create_connection((LOOPBACK, port))
    connection, _ = listening.accept()
    near.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))])
    time.sleep(PAUSE_S)
    connection.close()
    ours = client.getsockname()[1]
    _converse(client)
    client.close()
    os.waitpid(worker, 0)
    _tell(port, [(port, ours, worker, worker), (ours, port, *_me())])


def threads() -> None:
    """A thread for each connection on both sides."""
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    used: list[tuple[int, int, int, int]] = []

    def serve(connection: socket.socket) -> None:
        used.append((port, connection.getpeername()[1], *_me()))
        with connection:
            _answer(connection)

    def accept() -> None:
        for _ in range(MESSAGES):
            connection, _ = listening.accept()
            workers.append(threading.Thread(target=serve, args=(connection,)))
            workers[-1].start()

    def talk() -> None:
        with socket.create_connection((LOOPBACK, port)) as client:
            used.append((client.getsockname()[1], port, *_me()))
            _converse(client)

    workers = [threading.Thread(target=talk) for _ in range(MESSAGES)]
    accepting = threading.Thread(target=accept)
    for thread in (accepting, *workers):
        thread.start()
    accepting.join()
    for thread in workers:
        thread.join()
    _tell(port, used)


def datagrams(address: str) -> None:
    """A child answers; the parent asks from one socket that is connected and from one that is not."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, 0))
    port = server.getsockname()[1]
    child = os.fork()
    if child == 0:
        for _ in range(2 * MESSAGES):
            data, peer = server.recvfrom(2048)
            server.sendto(data, peer)
        os._exit(0)
    server.close()
    used = []
    connected, plain = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    connected.connect((address, port))
    for _ in range(MESSAGES):
        connected.send(MESSAGE)
        connected.recv(2048)
        plain.sendto(MESSAGE, (address, port))
        plain.recvfrom(2048)
    for used_one in (connected, plain):
        ours = used_one.getsockname()[1]
        used += [(ours, port, *_me()), (port, ours, child, child)]
    os.waitpid(child, 0)
    _tell(port, used)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr of recvmmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_uint32),
        ("iovecs", ctypes.POINTER(_Iovec)),
        ("iovec_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_size_t),  # an int and its padding
        ("bytes", ctypes.c_size_t),
    )


def mmsg() -> None:
    """MESSAGES datagrams by one sendmmsg, received by one recvmmsg."""
    libc = ctypes.CDLL(None)
    receiver, sender = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind((LOOPBACK, 0))
    port = receiver.getsockname()[1]
    sender.connect((LOOPBACK, port))
    buffers = [ctypes.create_string_buffer(bytes([48 + i]) * 101, 101) for i in range(MESSAGES)]
    iovecs = [_Iovec(ctypes.addressof(buffer), 101) for buffer in buffers]
    messages = (_Message * MESSAGES)(
        *(_Message(iovecs=ctypes.pointer(iovec), iovec_count=1) for iovec in iovecs)
    )
    assert libc.sendmmsg(sender.fileno(), messages, MESSAGES, 0) == MESSAGES
    time.sleep(PAUSE_S)
    assert libc.recvmmsg(receiver.fileno(), messages, MESSAGES, 0, None) == MESSAGES
    ours = sender.getsockname()[1]
    _tell(port, [(ours, port, *_me()), (port, ours, *_me())])


def unix(folder: str) -> None:
    """Over a UNIX socket with a path, and over an abstract one."""
    names = (str(Path(folder, "socket")), "\0stratokit-" + str(os.getpid()))
    for name in names:
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
            listening.bind(name)
            listening.listen()
            client.connect(name)
            connection, _ = listening.accept()
            client.sendall(MESSAGE)
            connection.recv(len(MESSAGE))
            connection.close()
    _tell(0, [(0, 0, *_me())], paths=[name.replace("\0", "@") for name in names])


if __name__ == "__main__":
    {
        "forked": forked,
        "passed": passed,
        "threads": threads,
        "datagrams": datagrams,
        "mmsg": mmsg,
        "unix": unix,
    }[sys.argv[1]](*sys.argv[2:])
