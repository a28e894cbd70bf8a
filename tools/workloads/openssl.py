"""TLS between openssl's own server and client: what the client printed is what the handshake agreed on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workloads.certificate import certificate
from workloads.common import LOOPBACK, free_port, is_listening, program, server

_REQUEST = b"GET / HTTP/1.0\r\n\r\n"


@dataclass(frozen=True)
class Server:
    port: int
    pid: int
    name: str  # of its certificate


@dataclass(frozen=True)
class Handshake:
    """What s_client said; null what it did not say."""

    sni: str
    version: str
    cipher: str
    resumed: bool
    alpn: str | None
    client_pid: int
    alert: str | None


@contextmanager
def s_server(*options: str, days: int = 30) -> Iterator[Server]:
    """It answers HTTP requests with a page about the connection; its certificate ends after so many days."""
    port = free_port()
    with certificate("kiosk.test", days) as made:
        argv = [program("openssl"), "s_server", "-accept", f"{LOOPBACK}:{port}", "-www", "-quiet"]
        argv += ["-cert", made.cert, "-key", made.key, "-alpn", "http/1.0,http/1.1", *options]
        with server(argv, lambda: is_listening(port)) as process:
            yield Server(port, process.pid, made.name)


def s_client(at: Server, *options: str, name: str | None = None) -> Handshake:
    """One connection with one request of HTTP/1.0, which the server ends."""
    sni = name or at.name
    argv = [program("openssl"), "s_client", "-connect", f"{LOOPBACK}:{at.port}", "-servername", sni]
    argv += ["-alpn", "http/1.0", "-ign_eof", *options]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        said = process.communicate(_REQUEST)[0].decode(errors="replace")
    agreed = re.search(r"(New|Reused), (\S+), Cipher is (\S+)", said)
    version = re.search(r"^ *Protocol *: (\S+)", said, re.MULTILINE)
    alpn = re.search(r"ALPN protocol: (\S+)", said)
    alert = re.search(r"alert ([a-z ]+):", said)
    return Handshake(
        sni,
        version[1] if version else "",
        agreed[3] if agreed else "",
        bool(agreed and agreed[1] == "Reused"),
        alpn[1] if alpn else None,
        process.pid,
        alert[1].strip() if alert else None,
    )


def resume(at: Server, folder: Path, *options: str) -> list[Handshake]:
    """A connection, and another one that goes on with its session."""
    session = str(folder / "session.pem")
    first = s_client(at, "-sess_out", session, *options)
    return [first, s_client(at, "-sess_in", session, *options)]
