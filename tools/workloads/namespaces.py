"""Two network namespaces joined by virtual interfaces; an echo conversation from one to the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from workloads.common import TOOLS, WorkloadError, program
from workloads.echo import Conversation

NEAR, FAR = "10.213.7.1", "10.213.7.2"


@dataclass(frozen=True)
class Pair:
    """Names of the namespaces and of the interface in each."""

    near: str
    far: str
    near_interface: str
    far_interface: str


@contextmanager
def pair() -> Iterator[Pair]:
    """Needs root. Both namespaces have lo, and the virtual interfaces have the same index in each."""
    number = os.getpid()
    made = Pair(f"sk{number}a", f"sk{number}b", "near0", "far0")
    try:
        for name in (made.near, made.far):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        link = ["link", "add", made.near_interface, "index", "77", "type", "veth"]
        _ip("-n", made.near, *link, "peer", "name", made.far_interface, "index", "77", "netns", made.far)
        for name, interface, address in (
            (made.near, made.near_interface, NEAR),
            (made.far, made.far_interface, FAR),
        ):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", interface)
            _ip("-n", name, "link", "set", interface, "up")
        yield made
    finally:
        for name in (made.near, made.far):
            subprocess.run([program("ip"), "netns", "delete", name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    done = subprocess.run([program("ip"), *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise WorkloadError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def server(where: Pair) -> Iterator[dict[str, int]]:
    """An echo server in the far namespace: its port and pid."""
    with subprocess.Popen(
        python_inside(where.far, "workloads.echo", "server", f"--address={FAR}"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


def converse(where: Pair, at: dict[str, int], messages: int = 13, size: int = 499) -> Conversation:
    """A client in the near namespace talks to that server."""
    words = ("client", str(at["port"]), str(messages), str(size), f"--address={FAR}")
    done = subprocess.run(
        python_inside(where.near, "workloads.echo", *words), stdout=subprocess.PIPE, text=True, check=True
    )
    facts = json.loads(done.stdout)
    ports = facts["client_port"], at["pid"], at["port"]
    return Conversation(facts["pid"], facts["comm"], *ports, messages, messages * size)


def python_inside(namespace: str, module: str, *words: str) -> list[str]:
    """Command that runs a module of the workloads in a network namespace."""
    python = ["env", f"PYTHONPATH={TOOLS}", "PYTHONDONTWRITEBYTECODE=1", sys.executable, "-m", module, *words]
    return [program("ip"), "netns", "exec", namespace, *python]
