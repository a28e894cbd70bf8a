"""Addresses under a keyed hash that keeps prefixes: two addresses share as many bits after it as before.

Crypto-PAn (Xu, Fan, Ammar, Moon: Prefix-Preserving IP Address Anonymization, ICNP 2002): bit i of the result
is bit i of the address, turned over where AES of the first i bits, filled up from a secret pad, begins with a
one. IPv6 addresses are treated alike over 128 bits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from stratokit.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY_BYTES = 32
_BATCH = 512


class PrefixHash:
    """Crypto-PAn under a key of 32 bytes: 16 for AES, 16 that become the pad."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise UsageError(f"the key for addresses has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = Cipher(algorithms.AES(key[:16]), modes.ECB())  # noqa: S305 as Crypto-PAn is defined
        self._pad = np.frombuffer(self._encrypt(key[16:]), np.uint8)
        self._known: dict[bytes, bytes] = {}

    def _encrypt(self, blocks: bytes) -> bytes:
        encryptor = self._cipher.encryptor()
        return encryptor.update(blocks) + encryptor.finalize()

    def hashed(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Addresses as rows of 4 or 16 bytes, each under the hash."""
        parts = [self._some(addresses[i : i + _BATCH]) for i in range(0, len(addresses), _BATCH)]
        return np.concatenate(parts) if parts else addresses.copy()

    def _some(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint8]:
        count, width = addresses.shape
        bits = np.unpackbits(addresses, axis=1)
        pad = np.unpackbits(self._pad)
        blocks = np.broadcast_to(pad, (count, 8 * width, 128)).copy()
        for i in range(1, 8 * width):
            blocks[:, i, :i] = bits[:, :i]
        said = np.frombuffer(self._encrypt(np.packbits(blocks, axis=2).tobytes()), np.uint8)
        turned = said.reshape(count, 8 * width, 16)[:, :, 0] >> 7
        return np.packbits(bits ^ turned, axis=1)

    def packed(self, address: bytes) -> bytes:
        """One address of 4 or 16 bytes under the hash."""
        found = self._known.get(address)
        if found is None:
            found = self.hashed(np.frombuffer(address, np.uint8)[None, :])[0].tobytes()
            self._known[address] = found
        return found

    def text(self, text: str) -> str:
        """A text with every address in it under the hash."""
        return _ADDRESS.sub(self._replaced, text)

    def _replaced(self, match: re.Match[str]) -> str:
        import ipaddress

        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            return match[0]
        return str(ipaddress.ip_address(self.packed(address.packed)))


# Whatever can be an address; what is none stays.
_ADDRESS = re.compile(
    r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9.]*[0-9])|(?<![0-9A-Za-z_:.])[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*[0-9A-Fa-f:]"
)
