"""HTTP/1.1 requests by curl, each with what was asked and what was answered."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from workloads.common import WorkloadError, program
from workloads.nginx import SITE, Nginx


@dataclass(frozen=True)
class Request:
    """What curl asked and got. status is 0 where no response came, as in curl itself."""

    method: str
    host: str
    path: str
    status: int
    body_bytes: int
    client_pid: int
    client_port: int


def curl(urls: Sequence[str], *options: str, method: str = "GET") -> list[Request]:
    """One curl process for all URLs; it keeps one connection as long as the server does."""
    argv = [program("curl"), "-q", "--silent", "--noproxy", "*", "--max-time", "30", "--request", method]
    argv += ["--write-out", "%{http_code} %{size_download} %{local_port}\\n", *options]
    for url in urls:
        argv += ["--output", "/dev/null", url]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        lines = process.communicate()[0].splitlines()
    if len(lines) != len(urls):
        raise WorkloadError(f"curl answered {len(lines)} of {len(urls)} requests (exit {process.returncode})")

    requests = []
    for url, line in zip(urls, lines, strict=True):
        status, body_bytes, port = (int(field) for field in line.split())
        host, _, path = url.partition("://")[2].partition("/")
        requests.append(Request(method, host, f"/{path}", status, body_bytes, process.pid, port))
    return requests


def browse(site: Nginx, count: int = 23) -> list[Request]:
    """`count` requests, each by a curl and on a connection of its own, round the paths of the site."""
    paths = list(SITE)
    return [request for i in range(count) for request in curl([site.url(paths[i % len(paths)])])]


def browse_kept_alive(site: Nginx, count: int = 11) -> list[Request]:
    """`count` requests by one curl; nginx closes the connection after each /fail, curl then opens another."""
    paths = list(SITE)
    return curl([site.url(paths[i % len(paths)]) for i in range(count)])
