"""nginx in the foreground with its own configuration: static files, errors, keep-alive, TLS if wanted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workloads.certificate import Certificate
from workloads.common import LOOPBACK, children, free_port, program, server, wait_for

INDEX = b"<h1>It works</h1>\n"
LARGE = bytes(range(256)) * 401  # 102656 bytes: many segments, easy to recognise

# path -> (status, bytes of the body); None where the body is nginx's own error page
SITE: dict[str, tuple[int, int | None]] = {
    "/index.html": (200, len(INDEX)),
    "/large.bin": (200, len(LARGE)),
    "/missing": (404, None),
    "/created": (201, 0),
    "/moved": (302, None),
    "/fail": (500, None),
}

CONFIG = """
daemon off;
pid {root}/nginx.pid;
worker_processes {workers};
{user}
events {{ worker_connections 256; }}
http {{
    access_log {root}/access.log;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    keepalive_timeout 30;
    types {{ text/html html; application/octet-stream bin; }}
    server {{
        listen {address}:{port} {tls};
        root {root}/www;
        location /created {{ return 201; }}
        location /moved {{ return 302 /index.html; }}
        location /fail {{ return 500; }}
        {proxied}
    }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    port: int
    master_pid: int
    worker_pids: tuple[int, ...]
    certificate: Certificate | None

    def url(self, path: str, host: str = LOOPBACK) -> str:
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}{path}"


@contextmanager
def nginx(
    workers: int = 1,
    certificate: Certificate | None = None,
    http2: bool = False,
    upstream: int = 0,
    address: str = LOOPBACK,
    prefix: Sequence[str] = (),
) -> Iterator[Nginx]:
    """With `upstream`, what is below /app/ is asked from that port; `prefix` is a program that starts it."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="stratokit-nginx-") as folder:
        root = Path(folder)
        (root / "www").mkdir()
        (root / "www/index.html").write_bytes(INDEX)
        (root / "www/large.bin").write_bytes(LARGE)
        (root / "www/bench.bin").write_bytes(bytes(4096))  # what benchmarks/ ask for
        tls = "http2" if http2 else ""  # by prior knowledge: nginx knows no upgrade
        if certificate:
            tls = f"ssl {tls}; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificate.cert};"
            tls += f" ssl_certificate_key {certificate.key}"
        (root / "nginx.conf").write_text(
            CONFIG.format(
                root=root,
                workers=workers,
                # As root its workers would become nobody, who may not read a private temporary directory.
                user="user root root;" if os.geteuid() == 0 else "",
                address=address,
                port=port,
                tls=tls,
                proxied=f"location /app/ {{ proxy_pass http://{LOOPBACK}:{upstream}/; }}" if upstream else "",
            )
        )
        argv = [*prefix, program("nginx"), "-p", folder, "-c", f"{root}/nginx.conf", "-e", "stderr"]
        # Written when it listens, also where its sockets are in another namespace.
        with server(argv, (root / "nginx.pid").exists) as process:
            wait_for(lambda: len(children(process.pid)) == workers, f"nginx has {workers} workers")
            yield Nginx(port, process.pid, tuple(children(process.pid)), certificate)
