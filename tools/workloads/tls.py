"""TLS handshakes with known name, version and outcome: curl at an nginx with a self-signed certificate."""

from __future__ import annotations

from dataclasses import dataclass

from workloads.common import LOOPBACK
from workloads.nginx import Nginx
from workloads.web import curl


@dataclass(frozen=True)
class Handshake:
    """`completed` is false where the client refused the certificate and sent an alert."""

    sni: str
    version: str
    alpn: str
    completed: bool
    client_pid: int
    client_port: int
    server_port: int


def handshake(site: Nginx, version: str = "1.3", trusting: bool = True) -> Handshake:
    assert site.certificate is not None
    name = site.certificate.name
    options = ["--http1.1", "--resolve", f"{name}:{site.port}:{LOOPBACK}"]
    options += [f"--tlsv{version}", "--tls-max", version]
    if trusting:
        options.append("--insecure")
    [request] = curl([site.url("/index.html", name)], *options)
    client = (request.client_pid, request.client_port)
    return Handshake(name, version, "http/1.1", request.status == 200, *client, site.port)


def handshakes(site: Nginx, tls12: int = 3, tls13: int = 5, refused: int = 2) -> list[Handshake]:
    done = [handshake(site, "1.2") for _ in range(tls12)]
    done += [handshake(site, "1.3") for _ in range(tls13)]
    done += [handshake(site, "1.3", trusting=False) for _ in range(refused)]
    return done
