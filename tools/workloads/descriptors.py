"""Every kind of descriptor, and servers that were there before: what each call works on is not easy to say.

As a program: `python -m workloads.descriptors serve`, or `use TCP_PORT UDP_PORT FOLDER`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.common import LOOPBACK, WorkloadError, python_child

LOOPBACK6 = "::1"
SIX_ONLY = (socket.IPPROTO_IPV6, 26, 1)


@dataclass(frozen=True)
class Serving:
    """Ports of servers on both loopback addresses. `talk` moves bytes over the connection from `quiet_client`
    to `quiet`, whose listener makes no more calls.
    """

    process: subprocess.Popen[str]
    tcp: int
    udp: int
    quiet: int
    quiet_client: int

    def talk(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        if self.process.stdout.readline() != "done\n":
            raise WorkloadError("the servers did not answer")


@contextlib.contextmanager
def serving() -> Iterator[Serving]:
    """Servers that are older than what the body records."""
    process = python_child("workloads.descriptors", "serve", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Serving(process, *map(int, process.stdout.readline().split()))
    finally:
        process.communicate()
    if process.returncode:
        raise WorkloadError(f"the servers ended with {process.returncode}")


def use(server: Serving, folder: Path) -> int:
    """Make, use, copy, pass and close one of each; returns the process id."""
    process = python_child("workloads.descriptors", "use", str(server.tcp), str(server.udp), str(folder))
    process.communicate()
    if process.returncode:
        raise WorkloadError(f"the program ended with {process.returncode}")
    return process.pid


def _bound(family: int, kind: int, port: int = 0) -> socket.socket:
    made = socket.socket(family, kind)
    if family == socket.AF_INET6:
        made.setsockopt(*SIX_ONLY)
    made.bind((LOOPBACK6 if family == socket.AF_INET6 else LOOPBACK, port))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


def _serve() -> None:
    tcp = _bound(socket.AF_INET, socket.SOCK_STREAM)
    port = tcp.getsockname()[1]
    udp = _bound(socket.AF_INET, socket.SOCK_DGRAM)
    udp_port = udp.getsockname()[1]
    listeners = {tcp, _bound(socket.AF_INET6, socket.SOCK_STREAM, port)}
    datagrams = {udp, _bound(socket.AF_INET6, socket.SOCK_DGRAM, udp_port)}
    quiet = _bound(socket.AF_INET, socket.SOCK_STREAM)
    client = socket.create_connection(quiet.getsockname())
    held, _ = quiet.accept()
    print(port, udp_port, quiet.getsockname()[1], client.getsockname()[1], flush=True)
    connections: set[socket.socket] = set()
    while True:
        for ready in select.select([*listeners, *datagrams, *connections, sys.stdin], [], [])[0]:
            if ready is sys.stdin:
                if not sys.stdin.readline():
                    return
                client.sendall(b"ping")
                held.recv(4)
                held.sendall(b"answer")
                client.recv(6)
                print("done", flush=True)
            elif ready in datagrams:
                data, whom = ready.recvfrom(100)
                ready.sendto(b"re:" + data, whom)
            elif ready in listeners:
                connections.add(ready.accept()[0])
            elif data := ready.recv(100):
                ready.sendall(data)
            else:
                connections.discard(ready)
                ready.close()


def _write(path: str, data: bytes = b"hello\n") -> None:
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    os.write(fd, data)
    os.close(fd)


def _names() -> None:
    """Names from the current directory, from a descriptor, and with dots in them."""
    for path in ("plain", "./dot", "sub/../up", "sub//deep/x"):
        _write(path)
    os.rename("plain", "renamed")
    folder = os.open("sub", os.O_RDONLY | os.O_DIRECTORY)
    here = os.open(".", os.O_RDONLY)
    os.rename("renamed", "moved", src_dir_fd=here, dst_dir_fd=folder)
    os.link("dot", "hard")
    os.symlink("dot", "soft")
    os.unlink("hard")
    os.chmod("dot", 0o640)
    os.fchdir(folder)
    _write("inside")
    os.chdir("..")
    for wrong in (lambda: os.open("/nonexistent/x", os.O_RDONLY), lambda: os.read(999, 1)):
        with contextlib.suppress(OSError):
            wrong()


def _copies(libc: Any) -> int:
    """A file by seven numbers, some of which meant something else before."""
    file = os.open("sub/deep/x", os.O_RDWR)
    os.pwrite(file, b"ab", 2)
    os.writev(file, [b"a", b"b"])
    os.lseek(file, 0, 0)
    folder = os.open("sub", os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(file, 60, inheritable=False)
    for copy in (os.dup(file), fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 50), libc.dup(file), 60):
        os.read(copy, 1)
    os.dup2(folder, 60)
    os.listdir(60)
    libc.dup3(file, 61, os.O_CLOEXEC)
    os.read(61, 1)
    libc.close_range(50, 70, 0)
    return file


def _anonymous(libc: Any) -> None:
    """Descriptors of no file."""
    event = os.eventfd(0)
    os.eventfd_write(event, 5)
    os.eventfd_read(event)
    watch = libc.inotify_init1(0)
    libc.inotify_add_watch(watch, b".", 2)
    _write("noticed")
    os.read(watch, 100)
    memory = os.memfd_create("mem")
    os.write(memory, b"memory")
    made = [libc.timerfd_create(1, 0), libc.signalfd(-1, ctypes.byref(ctypes.c_ulonglong(0)), 0)]
    for fd in (*made, libc.inotify_init(), os.pidfd_open(os.getpid())):
        os.close(fd)
    with select.epoll() as poll:
        poll.register(event)
        poll.poll(0)


def _datagrams(port: int) -> None:
    """Not connected, connected, bound, and as messages."""
    for family, host in ((socket.AF_INET, LOOPBACK), (socket.AF_INET6, LOOPBACK6)):
        with socket.socket(family, socket.SOCK_DGRAM) as alone:
            alone.sendto(b"q", (host, port))
            alone.recvfrom(10)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected:
        connected.connect((LOOPBACK, port))
        connected.send(b"q2")
        connected.recv(10)
    with _bound(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.sendmsg([b"q3"], [], 0, (LOOPBACK, port))
        bound.recvmsg(10)


def _streams(port: int) -> socket.socket:
    """To servers that were there before and to one of its own, on which a child goes on."""
    for host in (LOOPBACK, LOOPBACK6):
        with socket.create_connection((host, port)) as old:
            old.sendall(b"old")
            old.recv(3)
    with _bound(socket.AF_INET, socket.SOCK_STREAM) as server:
        client = socket.create_connection(server.getsockname())
        kept, _ = server.accept()
        client.sendall(b"mine")
        kept.recv(4)
        later = socket.socket()
        later.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            later.connect(server.getsockname())
        server.accept()[0].close()
    with contextlib.suppress(OSError):
        socket.create_connection((LOOPBACK, 1))
    return kept


def _unix(file: int) -> None:
    """By path, without a name, and with a descriptor passed over it."""
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.listen()
    client.connect("socket")
    client.send(b"u")
    server.accept()[0].recv(1)
    one, other = socket.socketpair()
    socket.send_fds(one, [b"fd"], [file])
    os.pread(socket.recv_fds(other, 10, 1)[1][0], 1, 0)


def _use(tcp: str, udp: str, folder: str) -> None:
    os.makedirs(f"{folder}/sub/deep")
    os.chdir(folder)
    libc = ctypes.CDLL(None)
    _names()
    file = _copies(libc)
    _anonymous(libc)
    _datagrams(int(udp))
    kept = _streams(int(tcp))
    _unix(file)
    other = threading.Thread(target=_write, args=("by thread",))
    other.start()
    other.join()
    libc.prctl(15, b"renamed", 0, 0, 0)
    end, begin = os.pipe()
    if (child := os.fork()) == 0:
        os.close(end)
        os.dup2(begin, 9)
        kept.send(b"child")
        os.chdir("/")
        os.execv("/bin/sh", ["sh", "-c", "cat /dev/null; echo out >&9; exit 3"])
    os.waitpid(child, 0)
    os.read(end, 5)
    os.read(file, 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        _serve()
    else:
        _use(*sys.argv[2:])
