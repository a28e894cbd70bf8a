"""Loads for the recorder: each runs to an end and says how many operations it did, in what time.

CPU time is that of the load's own programs in user and kernel mode; unlike wall-clock time it tells what
recording adds even where other programs want the processors too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from workloads import nginx
from workloads.certificate import certificate


@dataclasses.dataclass(frozen=True)
class Load:
    """`run` returns (operations, seconds, CPU seconds). It takes a program that starts the load's, as strace,
    where the load has one of its own, and the share of operations to make; `pids` are servers to attach to.
    """

    name: str
    run: Callable[[tuple[str, ...], float], tuple[int, float, float]]
    pids: tuple[int, ...] = ()


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split(" ")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def dd(count: int, prefix: tuple[str, ...]) -> tuple[int, float, float]:
    """Two system calls an operation, of one byte each: nothing does less between two calls."""
    start, cpu_before = time.monotonic(), _children_cpu_s()
    subprocess.run(
        [*prefix, "dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={count}", "status=none"], check=True
    )
    return count, time.monotonic() - start, _children_cpu_s() - cpu_before


def wrk(site: nginx.Nginx, seconds: int, header: str) -> tuple[int, float, float]:
    """Requests for a file of 4 KB through nginx, 32 connections."""
    url = site.url("/bench.bin")
    cpu_before = _children_cpu_s() + sum(map(cpu_s, site.worker_pids))
    done = subprocess.run(
        ["wrk", "-t1", "-c32", f"-d{seconds}s", "-H", header, url], check=True, capture_output=True, text=True
    )
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", done.stdout)
    assert found, done.stdout
    cpu = _children_cpu_s() + sum(map(cpu_s, site.worker_pids)) - cpu_before
    return int(found[1]), float(found[2]) / (1000 if found[3] == "ms" else 1), cpu


@contextlib.contextmanager
def loads(seconds: int, count: int) -> Iterator[list[Load]]:
    """The loads that can run here; nginx serves while the block lasts."""
    found = [Load("dd", lambda prefix, share: dd(round(count * share), prefix))]
    if shutil.which("wrk") is None or shutil.which("nginx") is None:
        yield found
        return
    with certificate("bench.test") as made, nginx.nginx() as plain, nginx.nginx(certificate=made) as tls:
        for name, site, header in (
            ("nginx keep-alive", plain, "Connection: keep-alive"),
            ("nginx connections", plain, "Connection: close"),
            ("TLS keep-alive", tls, "Connection: keep-alive"),
        ):
            run = lambda _, __, site=site, header=header: wrk(site, seconds, header)  # noqa: E731
            found.append(Load(name, run, tuple(site.worker_pids)))
        yield found
