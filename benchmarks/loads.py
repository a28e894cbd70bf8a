"""Loads for the recorder: each runs to an end and says how many operations it did."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

from workloads import nginx


@dataclasses.dataclass(frozen=True)
class Load:
    """`run` returns (operations, seconds)."""

    name: str
    run: Callable[[], tuple[int, float]]


def dd(count: int) -> tuple[int, float]:
    """Two system calls an operation, of one byte each: nothing does less between two calls."""
    start = time.monotonic()
    subprocess.run(
        ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={count}", "status=none"], check=True
    )
    return count, time.monotonic() - start


def wrk(port: int, seconds: int, header: str) -> tuple[int, float]:
    """Requests for a file of 4 KB through nginx, 32 connections."""
    url = f"http://127.0.0.1:{port}/bench.bin"
    done = subprocess.run(
        ["wrk", "-t1", "-c32", f"-d{seconds}s", "-H", header, url], check=True, capture_output=True, text=True
    )
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", done.stdout)
    assert found, done.stdout
    return int(found[1]), float(found[2]) / (1000 if found[3] == "ms" else 1)


@contextlib.contextmanager
def loads(seconds: int, count: int) -> Iterator[list[Load]]:
    """The loads that can run here; nginx serves while the block lasts."""
    found = [Load("dd", lambda: dd(count))]
    if shutil.which("wrk") is None or shutil.which("nginx") is None:
        yield found
        return
    with nginx.nginx() as site:
        for name, header in (
            ("nginx keep-alive", "Connection: keep-alive"),
            ("nginx connections", "Connection: close"),
        ):
            found.append(Load(name, lambda header=header: wrk(site.port, seconds, header)))
        yield found
