"""Starting and stopping programs, finding ports, and waiting without disturbing what is recorded."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parents[1]
READY_TIMEOUT = 20.0
LOOPBACK = "127.0.0.1"


class WorkloadError(Exception):
    """A program of a workload is missing, did not start, or did something else than asked."""


def find_program(name: str) -> str | None:
    # Servers are in /usr/sbin, which an ordinary user's PATH lacks.
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def program(name: str) -> str:
    found = find_program(name)
    if found is None:
        raise WorkloadError(f"this workload needs the program {name}")
    return found


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port nobody holds, below the range from which the kernel gives clients theirs."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise WorkloadError("no free port between 20000 and 32000")


def is_listening(port: int, protocol: str = "tcp") -> bool:
    """Read from /proc: a connection made to find out would be one too many in the recording."""
    state = "0A" if protocol == "tcp" else "07"
    suffix = f":{port:04X}"
    for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(suffix) and fields[3] == state:
            return True
    return False


def wait_for(ready: Callable[[], bool], what: str, timeout: float = READY_TIMEOUT) -> None:
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise WorkloadError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.01)


def stop(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


@contextmanager
def server(argv: list[str], ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server that stays in the foreground; what it prints is shown only if it dies too early."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:

            def up() -> bool:
                if process.poll() is not None:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip()
                    raise WorkloadError(f"{argv[0]} ended with {process.returncode}: {said}")
                return ready()

            wait_for(up, f"{argv[0]} is ready")
            yield process
        finally:
            stop(process)


@contextmanager
def python_server(module: str, *args: str, prefix: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Run one of our own servers as a process; its first line is JSON and says pid, comm and port."""
    process = python_child(module, *args, prefix=prefix)
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        if not first:
            raise WorkloadError(f"{module} ended with {process.wait()} before it was ready")
        yield json.loads(first)
    finally:
        stop(process)
        process.stdout.close()


def python_child(
    module: str, *args: str, stdin: int = subprocess.DEVNULL, prefix: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """`prefix` is a program that starts it, as one that enters a namespace first."""
    environment = os.environ | {"PYTHONPATH": str(TOOLS), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", module, *args],
        stdin=stdin,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )


def announce(**facts: Any) -> None:
    """The first line of our own programs: who they are."""
    comm = Path("/proc/self/comm").read_text().strip()
    print(json.dumps({"pid": os.getpid(), "comm": comm, **facts}), flush=True)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
