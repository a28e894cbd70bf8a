"""Initial packets of QUIC (RFC 9000, RFC 9001, RFC 9369, and versions before): found, opened, read.

They are encrypted with keys that follow from the client's first connection id and a salt for each version, so
anybody who sees them can open them. `cryptography` opens packets one by one: there are few in a conversation.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from stratokit.streams.segment_rows import lead

if TYPE_CHECKING:
    from collections.abc import Iterator

_PADDING, _PING, _ACK, _ACK_ECN, _CRYPTO, _CLOSE = 0, 1, 2, 3, 6, 0x1C
_GOOGLE_ACK, _GOOGLE_ACK_MASK = 0x40, 0xC0
_SAMPLE_BYTES, _TAG_BYTES = 16, 16


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """Salt and labels of RFC 9001 section 5.2 or RFC 9369 section 3.3, the bits of an Initial packet, and
    the type of its CRYPTO frames."""

    salt: bytes
    prefix: str = "quic "
    initial_bits: int = 0x00
    crypto: int = _CRYPTO


_V1 = Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"))
_V2 = Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2 ", 0x10)
# draft-ietf-quic-v2-04
_V2_DRAFT = Version(bytes.fromhex("a707c203a59b47184a1d62ca570406ea7ae3e5d3"), "quicv2 ", 0x10)
# Section 5.2 of draft-ietf-quic-tls-22, -23 to -28, and -29 to -32; -33 and -34 have the salt of version 1.
_DRAFT_22 = Version(bytes.fromhex("7fbcdb0e7c66bbe9193a96cd21519ebd7a02644a"))
_DRAFT_23 = Version(bytes.fromhex("c3eef712c72ebb5a11a7d2432bb46365bef9f502"))
_DRAFT_29 = Version(bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899"))
# Google's versions with TLS, from QUICHE: salts of their own, and CRYPTO is frame type 8.
_T050 = Version(bytes.fromhex("7ff579e5acd072915580304c43a2367c60488310"), crypto=8)
_T051 = Version(bytes.fromhex("7a4edef4e7ccee5fa4506c19124fc8ccda6e033d"), crypto=8)
# What QUICHE takes for a version that only asks for version negotiation; others take that of a real one.
_RESERVED = Version(bytes.fromhex("f964bf453a1f1b80a5f8820377d4afca580ee743"))

VERSIONS = {0x00000001: _V1, 0x6B3343CF: _V2, 0x709A50C4: _V2_DRAFT, 0x54303530: _T050, 0x54303531: _T051}
VERSIONS |= {0xFF000000 | draft: _DRAFT_23 for draft in range(23, 29)} | {0xFF000000 | 22: _DRAFT_22}
VERSIONS |= {0xFF000000 | draft: _DRAFT_29 for draft in range(29, 33)}
VERSIONS |= {0xFF000000 | draft: _V1 for draft in (33, 34)}
# Facebook's, from mvfst: with the salts of drafts 22, 23 and version 1.
VERSIONS |= {0xFACEB000 | kind: _DRAFT_23 for kind in (0x02, 0x0E, 0x0F, *range(0x10, 0x16))}
VERSIONS |= {0xFACEB001: _DRAFT_22, 0xFACEB003: _V1, 0xFACEB004: _V1}
_RESERVED_MASK, _RESERVED_BITS = 0x0F0F0F0F, 0x0A0A0A0A  # RFC 9000 section 15

_NUMBER = lead(4, at=1)
# Datagrams that begin with a long header of a version that can be opened.
KNOWN_VERSION = _NUMBER.is_in(list(VERSIONS)) | (_NUMBER & _RESERVED_MASK == _RESERVED_BITS)


def versions(number: int) -> tuple[Version, ...]:
    """What an Initial packet of this version may be sealed with."""
    if number & _RESERVED_MASK == _RESERVED_BITS:
        return _V1, _DRAFT_29, _RESERVED
    known = VERSIONS.get(number)
    return (known,) if known else ()


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """What opens one side's Initial packets."""

    key: bytes
    iv: bytes
    header: bytes


@functools.lru_cache(maxsize=1024)
def keys_of(version: Version, connection_id: bytes) -> tuple[Keys, Keys]:
    """The client's and the server's."""
    from cryptography.hazmat.primitives import hashes, hmac

    from stratokit.protocols.tls_keys import expand_label

    mac = hmac.HMAC(version.salt, hashes.SHA256())
    mac.update(connection_id)
    initial = mac.finalize()

    def side(label: str) -> Keys:
        secret = expand_label(initial, label, 32)
        parts = (("key", 16), ("iv", 12), ("hp", 16))
        return Keys(*(expand_label(secret, version.prefix + name, size) for name, size in parts))

    return side("client in"), side("server in")


def _number(data: bytes, p: int) -> tuple[int, int]:
    """A number of variable length (RFC 9000 section 16): (it, position behind it); IndexError at the end."""
    size = 1 << (data[p] >> 6)
    if p + size > len(data):
        raise IndexError
    return int.from_bytes(data[p : p + size], "big") & ((1 << (8 * size - 2)) - 1), p + size


@dataclasses.dataclass(frozen=True, slots=True)
class Packet:
    """An Initial packet in a datagram: where it begins, its packet number begins, and it ends."""

    versions: tuple[Version, ...]
    connection_id: bytes
    start: int
    number_at: int
    end: int


def initials(datagram: bytes) -> Iterator[Packet]:
    """Initial packets among those that share a datagram (RFC 9000 sections 12.2 and 17.2.2)."""
    p = 0
    while p + 7 < len(datagram) and datagram[p] & 0x80:  # the next bit may be 0 (RFC 9287)
        start, known = p, versions(int.from_bytes(datagram[p + 1 : p + 5], "big"))
        if not known:
            return
        is_initial = datagram[p] & 0x30 == known[0].initial_bits
        try:
            at = p + 6 + datagram[p + 5]
            connection_id = datagram[p + 6 : at]
            at += 1 + datagram[at]
            if is_initial:
                size, at = _number(datagram, at)
                at += size
            length, at = _number(datagram, at)  # a Retry packet has none, and nothing follows it
        except IndexError:
            return
        p = at + length
        if p > len(datagram):
            return
        if is_initial and len(connection_id) <= 20 and length >= 4 + _SAMPLE_BYTES:
            yield Packet(known, connection_id, start, at, p)


def _open(datagram: bytes, packet: Packet, keys: Keys) -> bytes | None:
    """The frames of a packet (RFC 9001 section 5), or None where the keys do not fit."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    at = packet.number_at
    sample = datagram[at + 4 : at + 4 + _SAMPLE_BYTES]
    cipher = Cipher(algorithms.AES(keys.header), modes.ECB())  # noqa: S305 one block, as the RFC has it
    mask = cipher.encryptor().update(sample)
    first = datagram[packet.start] ^ (mask[0] & 0x0F)
    size = (first & 3) + 1
    number = bytes(a ^ b for a, b in zip(datagram[at : at + size], mask[1:], strict=False))
    head = bytes([first]) + datagram[packet.start + 1 : at] + number
    nonce = int.from_bytes(keys.iv, "big") ^ int.from_bytes(number, "big")
    try:
        return AESGCM(keys.key).decrypt(nonce.to_bytes(12, "big"), datagram[at + size : packet.end], head)
    except InvalidTag:
        return None


def _behind_google_ack(data: bytes, p: int) -> int:
    """The position behind an ACK of T050 and T051 whose type stands before p: 01nullmm, that is whether more
    blocks follow, and the sizes (1, 2, 4, 6) of the largest number and of blocks. The number, a time of 16,
    perhaps how many blocks 8, a block; gaps of 8 with blocks; how many times 8, of 40 and then 24 bits.
    """
    kind, sizes = data[p - 1], (1, 2, 4, 6)
    block = sizes[kind & 3]
    p += sizes[kind >> 2 & 3] + 2
    if kind & 0x20:
        p += 1 + data[p] * (1 + block)
    p += block
    times = data[p]
    return p + 1 + (5 + 3 * (times - 1) if times else 0)


def _frames(data: bytes, crypto: int) -> Iterator[tuple[int, bytes | int]]:
    """(offset, bytes) of CRYPTO frames, and (-1, error) of a CONNECTION_CLOSE (RFC 9000 section 19)."""
    p = 0
    try:
        while p < len(data):
            kind, p = data[p], p + 1
            if kind in (_PADDING, _PING):
                continue
            if kind in (_ACK, _ACK_ECN):
                _, p = _number(data, p)
                _, p = _number(data, p)
                ranges, p = _number(data, p)
                if ranges > len(data):
                    return
                for _ in range(1 + 2 * ranges + (3 if kind == _ACK_ECN else 0)):
                    _, p = _number(data, p)
            elif crypto != _CRYPTO and kind & _GOOGLE_ACK_MASK == _GOOGLE_ACK:
                p = _behind_google_ack(data, p)
            elif kind == crypto:
                offset, p = _number(data, p)
                size, p = _number(data, p)
                yield offset, data[p : p + size]
                p += size
            elif kind == _CLOSE:
                error, p = _number(data, p)
                yield -1, error
                return
            else:
                return
    except IndexError:
        return


def opened(
    datagram: bytes, packet: Packet, connection_id: bytes, side: int
) -> Iterator[tuple[int, bytes | int]] | None:
    """Frames of a packet of the client (side 0) or the server; None where keys from this id do not fit."""
    for version in packet.versions:
        data = _open(datagram, packet, keys_of(version, connection_id)[side])
        if data is not None:
            return _frames(data, version.crypto)
    return None
