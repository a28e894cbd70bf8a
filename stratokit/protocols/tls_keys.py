"""Keys of TLS from a key log (draft-ietf-tls-keylogfile): what opens the records of a connection.

A key log has a line for each secret: label, the client's random in hexadecimal, the secret. It comes as a
file (SSLKEYLOGFILE) or in the secrets blocks of a pcapng file. Opened are TLS 1.3 (RFC 8446) and TLS 1.2
(RFC 5246) with AES-GCM (RFC 5288), AES-CCM (RFC 6655) and ChaCha20-Poly1305 (RFC 7905).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# A key log of more lines than this belongs to other captures too: the first are used.
LINES_LIMIT = 1 << 20
_LABELS = frozenset(
    (
        "CLIENT_RANDOM",
        "CLIENT_EARLY_TRAFFIC_SECRET",
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
    )
)
_FIXED_IV_BYTES, _NONCE_BYTES, _EXPLICIT_BYTES = 4, 12, 8

Secrets = dict[bytes, dict[str, bytes]]  # by the client's random, by label


def read_keylog(text: bytes) -> Secrets:
    """Secrets of a key log; lines that are none are passed over.

    >>> read_keylog(b"# comment\\nCLIENT_RANDOM " + b"0a" * 32 + b" 01ff\\n")[bytes([10] * 32)]
    {'CLIENT_RANDOM': b'\\x01\\xff'}
    """
    found: Secrets = {}
    for line in text.splitlines()[:LINES_LIMIT]:
        words = line.split()
        if len(words) != 3:
            continue
        try:
            label, random, secret = (
                words[0].decode(),
                bytes.fromhex(words[1].decode()),
                bytes.fromhex(words[2].decode()),
            )
        except ValueError:
            continue
        if label in _LABELS and len(random) == 32 and len(secret) <= 64:
            found.setdefault(random, {})[label] = secret
    return found


def expand_label(secret: bytes, label: str, size: int, hashed: str = "sha256") -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446 section 7.1, RFC 5869 section 2.3)."""
    full = b"tls13 " + label.encode()
    info = size.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0"
    out, block = b"", b""
    while len(out) < size:
        block = hmac.digest(
            secret, block + info + bytes([len(out) // len(block) + 1 if block else 1]), hashed
        )
        out += block
    return out[:size]


def _prf(secret: bytes, seed: bytes, size: int, hashed: str) -> bytes:
    """RFC 5246 section 5."""
    out, a = b"", seed
    while len(out) < size:
        a = hmac.digest(secret, a, hashed)
        out += hmac.digest(secret, a + seed, hashed)
    return out[:size]


@dataclasses.dataclass(frozen=True, slots=True)
class Suite:
    """How a cipher suite protects records."""

    make: Callable[[bytes], Any]
    key_bytes: int
    hashed: str
    tag_bytes: int
    is_chacha: bool


def _ccm(key: bytes, tag_bytes: int) -> Any:
    from cryptography.hazmat.primitives.ciphers import aead

    return aead.AESCCM(key, tag_bytes)


def suite_of(name: str) -> Suite | None:
    """The suite of an IANA name, None where it cannot be opened."""
    from cryptography.hazmat.primitives.ciphers import aead

    hashed = "sha384" if name.endswith("SHA384") else "sha256"
    if "CHACHA20_POLY1305" in name:
        return Suite(aead.ChaCha20Poly1305, 32, hashed, 16, is_chacha=True)
    for bits in (128, 256):
        if f"AES_{bits}_GCM" in name:
            return Suite(aead.AESGCM, bits // 8, hashed, 16, is_chacha=False)
        if f"AES_{bits}_CCM" in name:
            tag = 8 if "CCM_8" in name else 16
            make = functools.partial(_ccm, tag_bytes=tag)
            return Suite(make, bits // 8, hashed, tag, is_chacha=False)
    return None


class Opener:
    """Opens one side's records one after the other (RFC 8446 section 5.2, RFC 5246 section 6.2.3.3).

    Several secrets follow each other: a record that the present one does not open is tried with the next,
    which begins to count anew.
    """

    def __init__(
        self, suite: Suite, secrets: list[bytes], is_13: bool, block: tuple[bytes, bytes] = (b"", b"")
    ) -> None:
        self._suite, self._is_13 = suite, is_13
        self._secrets = secrets
        self._count = 0
        self._key, self._iv = block
        if is_13:
            self._use(secrets[0])
        self._cipher = suite.make(self._key)

    def _use(self, secret: bytes) -> None:
        self._key = expand_label(secret, "key", self._suite.key_bytes, self._suite.hashed)
        self._iv = expand_label(secret, "iv", _NONCE_BYTES, self._suite.hashed)
        self._cipher = self._suite.make(self._key)
        self._count = 0

    def open(self, head: bytes, body: bytes) -> tuple[int, bytes] | None:
        """(content type, plaintext) of a record, or None where no key fits."""
        found = self._try(head, body)
        while found is None and len(self._secrets) > 1:
            self._secrets.pop(0)
            self._use(self._secrets[0])
            found = self._try(head, body)
        return found

    def update(self) -> None:
        """Go on with the next secret (RFC 8446 section 7.2)."""
        secret = expand_label(
            self._secrets[-1], "traffic upd", hashlib.new(self._suite.hashed).digest_size, self._suite.hashed
        )
        self._secrets = [secret]
        self._use(secret)

    def _try(self, head: bytes, body: bytes) -> tuple[int, bytes] | None:
        from cryptography.exceptions import InvalidTag

        counted = self._count.to_bytes(_EXPLICIT_BYTES, "big")
        size = len(body) - self._suite.tag_bytes
        explicit = not self._is_13 and not self._suite.is_chacha
        if explicit:
            nonce, body, size = (
                self._iv + body[:_EXPLICIT_BYTES],
                body[_EXPLICIT_BYTES:],
                size - _EXPLICIT_BYTES,
            )
        else:
            nonce = (int.from_bytes(self._iv, "big") ^ self._count).to_bytes(_NONCE_BYTES, "big")
        if size < 0:
            return None
        extra = head if self._is_13 else counted + head[:3] + size.to_bytes(2, "big")
        try:
            plain = self._cipher.decrypt(nonce, body, extra)
        except (InvalidTag, ValueError):
            return None
        self._count += 1
        if not self._is_13:
            return head[0], plain
        inner = plain.rstrip(b"\0")
        return (inner[-1], inner[:-1]) if inner else (0, b"")


def openers(
    name: str, is_13: bool, secrets: dict[str, bytes], server_random: bytes, client_random: bytes
) -> list[Opener] | None:
    """The client's and the server's, or None where a secret lacks or the suite cannot be opened."""
    suite = suite_of(name)
    if suite is None:
        return None
    if is_13:
        sides = (
            ("CLIENT_EARLY_TRAFFIC_SECRET", "CLIENT_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0"),
            ("SERVER_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"),
        )
        known = [[secrets[label] for label in labels if label in secrets] for labels in sides]
        return [Opener(suite, side, is_13) for side in known] if all(known) else None
    master = secrets.get("CLIENT_RANDOM")
    if master is None:
        return None
    iv = _NONCE_BYTES if suite.is_chacha else _FIXED_IV_BYTES
    size = suite.key_bytes
    block = _prf(master, b"key expansion" + server_random + client_random, 2 * (size + iv), suite.hashed)
    keys, ivs = (
        (block[:size], block[size : 2 * size]),
        (block[2 * size : 2 * size + iv], block[2 * size + iv :]),
    )
    return [Opener(suite, [], is_13, pair) for pair in zip(keys, ivs, strict=True)]
