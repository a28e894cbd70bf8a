"""A slow HTTP/1.1 server and its requests. As a program, `python -m workloads.slow LOG`, it is the server.

/slow?ms=N    answers after N ms: latency
/drip?ms=N    sends its header at once and the body after N ms: transfer time
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from urllib.parse import parse_qs, urlsplit

from workloads.common import LOOPBACK, announce, python_server

BODY = b"at last\n"


@dataclass(frozen=True)
class SlowServer:
    port: int
    pid: int
    comm: str
    log: Path

    def url(self, path: str) -> str:
        return f"http://{LOOPBACK}:{self.port}{path}"

    def served(self) -> list[dict[str, object]]:
        """The server's own view: path and how long it waited, in the order of the answers."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def slow_server() -> Iterator[SlowServer]:
    with tempfile.TemporaryDirectory(prefix="stratokit-slow-") as folder:
        log = Path(folder) / "served.jsonl"
        log.touch()
        with python_server("workloads.slow", str(log)) as facts:
            yield SlowServer(facts["port"], facts["pid"], facts["comm"], log)


class Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for the name of this host: DNS traffic nobody ordered.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.socket.getsockname()[1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        wait_s = int(parse_qs(url.query).get("ms", ["0"])[0]) / 1000
        start = time.monotonic_ns()
        if url.path != "/drip":
            time.sleep(wait_s)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if url.path == "/drip":
            time.sleep(wait_s)
        self.wfile.write(BODY)
        with self.log.open("a") as log:
            log.write(json.dumps({"path": self.path, "waited_ns": time.monotonic_ns() - start}) + "\n")

    def log_message(self, *_: object) -> None:
        """Standard error is for errors."""


def main() -> None:
    Handler.log = Path(sys.argv[1])
    with Server((LOOPBACK, 0), Handler) as listening:
        announce(port=listening.server_port)
        listening.serve_forever()


if __name__ == "__main__":
    main()
