"""A self-signed certificate, made by openssl."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from workloads.common import program


@dataclass(frozen=True)
class Certificate:
    cert: str
    key: str
    name: str


@contextmanager
def certificate(name: str, days: int = 30) -> Iterator[Certificate]:
    """Valid for `name`, as subject and issuer, for so many days."""
    with tempfile.TemporaryDirectory(prefix="stratokit-tls-") as folder:
        made = Certificate(f"{folder}/cert.pem", f"{folder}/key.pem", name)
        argv = [program("openssl"), "req", "-x509", "-nodes", "-days", str(days), "-subj", f"/CN={name}"]
        argv += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        argv += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", made.key, "-out", made.cert]
        subprocess.run(argv, check=True, capture_output=True)
        yield made
