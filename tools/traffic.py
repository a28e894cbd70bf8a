#!/usr/bin/env python3
"""Make network traffic with known truth: what the demo and the samples record.

    tools/traffic.py http dns tls slow --truth truth.json
    tools/traffic.py http --nginx 21987      # requests to a server that already runs on this port

The truth is one JSON object: the pid of this process, and a list for each kind with the requests, queries or
handshakes and their outcomes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workloads import dns, slow, tls, web
from workloads.certificate import certificate
from workloads.common import WorkloadError, find_program
from workloads.nginx import Nginx, nginx


def http(site: Nginx | None) -> list[web.Request]:
    if site is not None:
        return web.browse(site) + web.browse_kept_alive(site)
    with nginx() as started:
        return http(started)


def ask_dns(_: Nginx | None) -> list[dns.Query]:
    with dns.dnsmasq() as resolver, dns.failing_server() as broken:
        return dns.look_up(resolver) + dns.look_up_broken(broken)


def shake_hands(_: Nginx | None) -> list[tls.Handshake]:
    with certificate("shop.test") as signed, nginx(certificate=signed) as site:
        return tls.handshakes(site)


def wait_on_slow(_: Nginx | None) -> list[web.Request]:
    paths = ["/slow?ms=20", "/slow?ms=50", "/slow?ms=200", "/drip?ms=100", "/slow?ms=400"]
    with slow.slow_server() as server:
        return [request for path in paths for request in web.curl([server.url(path)])]


KINDS: dict[str, tuple[Callable[[Nginx | None], list[Any]], tuple[str, ...]]] = {
    "http": (http, ("nginx", "curl")),
    "dns": (ask_dns, ("dnsmasq", "dig")),
    "tls": (shake_hands, ("nginx", "curl", "openssl")),
    "slow": (wait_on_slow, ("curl",)),
}


def lacking(kind: str) -> list[str]:
    """Programs this kind of traffic needs and the machine has not."""
    return [name for name in KINDS[kind][1] if find_program(name) is None]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="+", choices=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--truth", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--nginx", type=int, metavar="PORT", help="use the nginx that already runs here")
    options = parser.parse_args()

    # A recorder that stops early sends this; the servers must not outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    site = Nginx(options.nginx, 0, (), None) if options.nginx else None
    try:
        truth: dict[str, Any] = {"pid": os.getpid()}
        for kind in options.kinds:
            truth[kind] = [asdict(item) for item in KINDS[kind][0](site)]
    except WorkloadError as error:
        print(f"traffic.py: {error}", file=sys.stderr)
        return 1
    text = json.dumps(truth, indent=1)
    if options.truth:
        options.truth.write_text(text + "\n")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
