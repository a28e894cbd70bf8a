"""Keys of TLS 1.3 and of QUIC from secrets: HKDF-Expand-Label (RFC 8446 section 7.1)."""

from __future__ import annotations

from typing import Any


def expand_label(secret: bytes, label: str, size: int, algorithm: Any = None) -> bytes:
    """Bytes from a secret for a purpose; SHA-256 unless another hash is given, the context is empty."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    full = b"tls13 " + label.encode()
    info = size.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0"
    return HKDFExpand(algorithm or hashes.SHA256(), size, info).derive(secret)
