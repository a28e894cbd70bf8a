"""TLS hellos in QUIC's Initial packets, versions 1 and 2 (RFC 9000, RFC 9001, RFC 9369).

Initial packets are encrypted with keys that follow from the client's first connection id, so anybody who sees
them can open them. Their CRYPTO frames are put together by offset, whatever datagrams they came in. Left out:
all other packets, as their keys are secret; versions before draft 29.

`cryptography` opens packets one by one: there are few in a conversation, and bounds for each.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.streams.flows import UDP
from stratokit.streams.segment_rows import lead

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of a conversation's Initial packets so many are opened, and so many bytes of each side's handshake kept.
PACKETS_LIMIT, CRYPTO_LIMIT_BYTES = 64, 1 << 16
_PADDING, _PING, _ACK, _ACK_ECN, _CRYPTO, _CLOSE = 0, 1, 2, 3, 6, 0x1C
_SAMPLE_BYTES, _TAG_BYTES = 16, 16


@dataclasses.dataclass(frozen=True, slots=True)
class _Version:
    """Salt and labels of RFC 9001 section 5.2 or RFC 9369 section 3.3, and the bits of an Initial packet."""

    salt: bytes
    prefix: str
    initial_bits: int


VERSIONS = {
    bytes.fromhex("00000001"): _Version(
        bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic ", 0x00
    ),
    bytes.fromhex("6b3343cf"): _Version(
        bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2 ", 0x10
    ),
}
# Drafts 29 to 32 differ from version 1 in nothing else (draft-ietf-quic-tls-29 section 5.2).
_DRAFT = _Version(bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899"), "quic ", 0x00)
VERSIONS |= {bytes([0xFF, 0, 0, draft]): _DRAFT for draft in range(29, 33)}


@dataclasses.dataclass(frozen=True, slots=True)
class _Keys:
    """What opens one side's Initial packets."""

    key: bytes
    iv: bytes
    header: bytes


@functools.lru_cache(maxsize=1024)
def _keys(version: bytes, connection_id: bytes) -> tuple[_Keys, _Keys]:
    """The client's and the server's."""
    from cryptography.hazmat.primitives import hashes, hmac

    from stratokit.protocols.tls_keys import expand_label

    known = VERSIONS[version]
    mac = hmac.HMAC(known.salt, hashes.SHA256())
    mac.update(connection_id)
    initial = mac.finalize()

    def side(label: str) -> _Keys:
        secret = expand_label(initial, label, 32)
        parts = (("key", 16), ("iv", 12), ("hp", 16))
        return _Keys(*(expand_label(secret, known.prefix + name, size) for name, size in parts))

    return side("client in"), side("server in")


def _number(data: bytes, p: int) -> tuple[int, int]:
    """A number of variable length (RFC 9000 section 16): (it, position behind it); IndexError at the end."""
    size = 1 << (data[p] >> 6)
    if p + size > len(data):
        raise IndexError
    return int.from_bytes(data[p : p + size], "big") & ((1 << (8 * size - 2)) - 1), p + size


@dataclasses.dataclass(frozen=True, slots=True)
class _Packet:
    """An Initial packet in a datagram: where it begins, its packet number begins, and it ends."""

    version: bytes
    connection_id: bytes
    start: int
    number_at: int
    end: int


def _initials(datagram: bytes) -> Iterator[_Packet]:
    """Initial packets among those that share a datagram (RFC 9000 sections 12.2 and 17.2.2)."""
    p = 0
    while p + 7 < len(datagram) and datagram[p] & 0xC0 == 0xC0:
        start, version = p, datagram[p + 1 : p + 5]
        known = VERSIONS.get(version)
        if known is None:
            return
        is_initial = datagram[p] & 0x30 == known.initial_bits
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
            yield _Packet(version, connection_id, start, at, p)


def _open(datagram: bytes, packet: _Packet, keys: _Keys) -> bytes | None:
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


def _frames(data: bytes) -> Iterator[tuple[int, bytes | int]]:
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
            elif kind == _CRYPTO:
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


class _Stream:
    """One side's handshake bytes, put together by offset, and what is known of it besides."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._held_bytes = 0
        self.first: dict[str, Any] | None = None
        self.alert: int | None = None

    def add(self, offset: int, data: bytes, packet: dict[str, Any]) -> None:
        if offset + len(data) > CRYPTO_LIMIT_BYTES or self._held_bytes > 2 * CRYPTO_LIMIT_BYTES:
            return
        if len(data) > len(self._pieces.get(offset, b"")):
            self._pieces[offset] = data
            self._held_bytes += len(data)
        if offset == 0 and self.first is None:
            self.first = packet

    def bytes(self) -> bytes:
        """From the first byte to the first that is missing."""
        out = bytearray()
        for offset, data in sorted(self._pieces.items()):
            if offset > len(out):
                break
            out += data[len(out) - offset :]
        return bytes(out)


@dataclasses.dataclass(frozen=True, slots=True)
class Handshake:
    """What the Initial packets of a conversation said."""

    flow_id: int
    client: _Stream
    server: _Stream


# Datagrams that begin with a long header of a known version.
CANDIDATES = (
    (pl.col("ip_proto") == UDP)
    & (pl.col("payload_len") > 40)
    & lead(4, at=1).is_in([int.from_bytes(version, "big") for version in VERSIONS])
)


def handshakes(datagrams: pl.DataFrame) -> Iterator[Handshake]:
    """Conversations with at least one hello that could be opened, by flow_id; of what CANDIDATES chose."""
    packets = (
        datagrams.unique("frame", keep="first", maintain_order=True)
        .group_by("flow_id", maintain_order=True)
        .head(PACKETS_LIMIT)
        .select("flow_id", "frame", pl.col("ts").to_physical(), "src_ip", "src_port", "payload")
    )
    for (flow,), rows in packets.sort("flow_id", maintain_order=True).group_by(
        "flow_id", maintain_order=True
    ):
        streams = {"client": _Stream(), "server": _Stream()}
        keys: dict[str, _Keys] = {}
        asker = None
        for row in rows.iter_rows(named=True):
            end = (row["src_ip"], row["src_port"])
            for packet in _initials(row["payload"]):
                side = "client" if asker in (None, end) else "server"
                frames = _open(row["payload"], packet, keys[side]) if side in keys else None
                if frames is None and side == "client":
                    # The first packet, or the first after a Retry, whose server chose another id.
                    keys["client"], keys["server"] = _keys(packet.version, packet.connection_id)
                    frames = _open(row["payload"], packet, keys[side])
                if frames is None:
                    continue
                asker = end if side == "client" else asker
                for offset, content in _frames(frames):
                    if isinstance(content, bytes):
                        streams[side].add(offset, content, row)
                    elif streams[side].alert is None and 0x100 <= content <= 0x1FF:  # RFC 9001 section 4.8
                        streams[side].alert = content - 0x100
        if streams["client"].first or streams["server"].first:
            yield Handshake(int(flow), streams["client"], streams["server"])
