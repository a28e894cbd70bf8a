"""A file on a disk that takes its time: a file system of our own, served over /dev/fuse.

    python -m workloads.slow_disk FOLDER DELAY_S

Mounts itself on FOLDER, says "ready", and serves one file, `data`, until its standard input ends. Each read,
write and fsync of it waits before it is answered. Layouts: linux/fuse.h, protocol 7.31.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT, _FILE = 1, 2  # node numbers
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _STATFS = 1, 2, 3, 4, 14, 15, 16, 17
_FSYNC, _INIT, _OPENDIR, _INTERRUPT, _BATCH_FORGET = 20, 26, 27, 36, 42
_SLOW = (_READ, _WRITE, _FSYNC)
_IN_BYTES = 40  # len, opcode, unique, nodeid, uid, gid, pid, padding
_MOST_BYTES = 1 << 17
_DIRECT_IO = 1  # each call comes here, whatever the page cache holds
_MNT_DETACH = 2


def _attributes(node: int) -> bytes:
    mode = 0o40755 if node == _ROOT else 0o100644
    return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, node: int, body: bytes) -> bytes | int:
    """What is answered behind the header, or an errno."""
    if opcode == _INIT:
        return struct.pack("<4I2HII2HI7I", 7, 31, 0, 0, 12, 9, _MOST_BYTES, 1, 32, 0, 0, *[0] * 7)
    if opcode == _LOOKUP:
        found = struct.pack("<4Q2I", _FILE, 0, 3600, 3600, 0, 0) + _attributes(_FILE)
        return found if body == b"data\0" else 2
    if opcode in (_GETATTR, _SETATTR):
        return struct.pack("<Q2I", 3600, 0, 0) + _attributes(node)
    if opcode in (_OPEN, _OPENDIR):
        return struct.pack("<Q2I", 0, _DIRECT_IO, 0)
    if opcode == _WRITE:
        return struct.pack("<2I", len(body) - 40, 0)
    if opcode == _STATFS:
        return bytes(80)
    return b""


def serve(folder: str, delay_s: float) -> None:
    """Until standard input ends."""
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"slow", folder.encode(), b"fuse.slow", 0, options.encode()):
        raise OSError(ctypes.get_errno(), f"cannot mount on {folder}")
    try:
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([device, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            request = os.read(device, _MOST_BYTES + 4096)
            _, opcode, unique, node = struct.unpack_from("<2I2Q", request)
            if opcode in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue
            if opcode in _SLOW:
                time.sleep(delay_s)
            answer = _answer(opcode, node, request[_IN_BYTES:])
            error, body = (-answer, b"") if isinstance(answer, int) else (0, answer)
            os.write(device, struct.pack("<Iiq", 16 + len(body), error, unique) + body)
    finally:
        libc.umount2(folder.encode(), _MNT_DETACH)


@contextmanager
def slow_disk(folder: Path, delay_s: float) -> Iterator[Path]:
    """The file, whose reads, writes and fsyncs take so long each."""
    folder.mkdir()
    command = [sys.executable, "-m", "workloads.slow_disk", str(folder), str(delay_s)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield folder / "data"
        finally:
            process.stdin.close()
            process.wait(60)


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]))
