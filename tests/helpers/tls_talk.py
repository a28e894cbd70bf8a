"""OpenSSL talking to itself in memory: what both sides sent, and the key log that opens it."""

from __future__ import annotations

import datetime as dt
import functools
import ssl
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ASKED = b"GET /a?%d HTTP/1.1\r\nHost: shop.example\r\n\r\n"
TOLD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
SIZES = (5, 40_000, 0)
# Method, path, host, status and size of the body of each request.
EXPECTED = [("GET", f"/a?{k}", "shop.example", 200, size) for k, size in enumerate(SIZES)]


@functools.cache
def certificate() -> str:
    """A file with a key and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    built = x509.CertificateBuilder(name, name, key.public_key(), 7)
    built = built.not_valid_before(dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    signed = built.not_valid_after(dt.datetime(2126, 1, 2, tzinfo=dt.UTC)).sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.NamedTemporaryFile("wb", suffix=".pem", delete=False) as file:
        file.write(secret + signed.public_bytes(serialization.Encoding.PEM))
    return file.name


@functools.cache
def talk(suite: str | None, alpn: str = "http/1.1") -> tuple[list[tuple[int, bytes]], bytes]:
    """What both sides sent (0 client, 1 server), and the key log; TLS 1.3 where no suite is named."""
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)]
    contexts[0].check_hostname, contexts[0].verify_mode = False, ssl.CERT_NONE
    contexts[1].load_cert_chain(certificate())
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "keys"
        contexts[0].keylog_filename = str(log)
        for context in contexts:
            context.set_alpn_protocols([alpn])
            if suite:
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                context.set_ciphers(suite + ":@SECLEVEL=0")
        pipes = [ssl.MemoryBIO(), ssl.MemoryBIO()]  # what each side reads
        ends = [
            contexts[0].wrap_bio(pipes[0], pipes[1], server_hostname="shop.example"),
            contexts[1].wrap_bio(pipes[1], pipes[0], server_side=True),
        ]
        sent: list[tuple[int, bytes]] = []

        def step(side: int, what: Any) -> bool:
            """Do something on one side; what it wrote lies in the other's pipe and is noted."""
            pipe = pipes[1 - side]
            before = pipe.read()
            try:
                what()
                done = True
            except ssl.SSLWantReadError:
                done = False
            wrote = pipe.read()
            pipe.write(before + wrote)
            if wrote:
                sent.append((side, wrote))
            return done

        done = [False, False]
        while not all(done):
            for side in (0, 1):
                done[side] = done[side] or step(side, ends[side].do_handshake)
        for number, size in enumerate(SIZES):
            step(0, lambda number=number: ends[0].write(ASKED % number))
            step(1, lambda: ends[1].read(1 << 16))
            step(1, lambda size=size: ends[1].write(TOLD % size + b"x" * size))
            step(0, lambda: [ends[0].read(1 << 16) for _ in range(9)])
        return sent, log.read_bytes()
