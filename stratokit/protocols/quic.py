"""TLS hellos in QUIC's Initial packets (RFC 9001 section 4), put together from their CRYPTO frames by offset.

Left out: all other packets, as their keys are secret; versions before draft 22, and Google's before T050,
which are not TLS.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.protocols.quic_packets import KNOWN_VERSION, initials, opened
from stratokit.streams.flows import UDP

if TYPE_CHECKING:
    from collections.abc import Iterator

# So many datagrams of a conversation are looked at, so many packets of each, and so many bytes of each side's
# handshake kept.
DATAGRAMS_LIMIT, SHARED_LIMIT, CRYPTO_LIMIT_BYTES = 64, 16, 1 << 16
CLIENT, SERVER = 0, 1
CANDIDATES = (pl.col("ip_proto") == UDP) & (pl.col("payload_len") > 40) & KNOWN_VERSION


class Stream:
    """One side's handshake bytes, put together by offset, and what is known of it besides."""

    def __init__(self) -> None:
        # By offset and size, in order of arrival: bytes, and the packet that had them first.
        self._pieces: dict[tuple[int, int], tuple[bytes, dict[str, Any]]] = {}
        self._held_bytes = 0
        self.alert: int | None = None

    def add(self, offset: int, data: bytes, packet: dict[str, Any]) -> None:
        if offset + len(data) > CRYPTO_LIMIT_BYTES or self._held_bytes > 2 * CRYPTO_LIMIT_BYTES:
            return
        if data and (offset, len(data)) not in self._pieces:
            self._pieces[offset, len(data)] = data, packet
            self._held_bytes += len(data)

    def absorb(self, later: Stream) -> None:
        """Take what a later connection said of the same handshake."""
        for (offset, _), (data, packet) in later._pieces.items():
            self.add(offset, data, packet)
        self.alert = later.alert if self.alert is None else self.alert

    def bytes(self) -> bytes:
        """From the first byte to the first that is missing."""
        out = bytearray()
        for offset, size in sorted(self._pieces):
            if offset > len(out):
                break
            out += self._pieces[offset, size][0][len(out) - offset :]
        return bytes(out)

    def arrivals(self) -> list[tuple[int, dict[str, Any]]]:
        """How many bytes from the first on were there, with each packet that made it more."""
        waiting: list[tuple[int, int]] = []
        reached, found = 0, []
        for (offset, size), (_, packet) in self._pieces.items():
            heapq.heappush(waiting, (offset, offset + size))
            before = reached
            while waiting and waiting[0][0] <= reached:
                reached = max(reached, heapq.heappop(waiting)[1])
            if reached > before:
                found.append((reached, packet))
        return found

    def packet_at(self, position: int) -> dict[str, Any] | None:
        """The first that had the byte there."""
        having = (packet for (at, size), (_, packet) in self._pieces.items() if at <= position < at + size)
        return next(having, None)


class Handshake:
    """What Initial packets said whose keys follow from one connection id of the client."""

    def __init__(self, flow_id: int, connection_id: bytes) -> None:
        self.flow_id, self.connection_id = flow_id, connection_id
        self.sides = (Stream(), Stream())

    def goes_on_in(self, later: Handshake) -> bool:
        """After a Retry the client says the same again, under another id (RFC 9000 section 17.2.5)."""
        mine, theirs = self.sides[CLIENT].bytes(), later.sides[CLIENT].bytes()
        return bool(mine and theirs) and (theirs.startswith(mine) or mine.startswith(theirs))


def _of_conversation(flow_id: int, rows: pl.DataFrame) -> list[Handshake]:
    """Handshakes in order; packets of the server belong to one of the last two connections."""
    found: list[Handshake] = []
    asker = None
    for row in rows.iter_rows(named=True):
        end = (row["src_ip"], row["src_port"])
        side = CLIENT if asker in (None, end) else SERVER
        for packet in itertools.islice(initials(row["payload"]), SHARED_LIMIT):
            frames = None
            for handshake in found[:-3:-1]:
                frames = opened(row["payload"], packet, handshake.connection_id, side)
                if frames is not None:
                    break
            if frames is None and side == CLIENT:
                handshake = Handshake(flow_id, packet.connection_id)
                frames = opened(row["payload"], packet, packet.connection_id, side)
                if frames is not None:
                    asker = end
                    found.append(handshake)
            for offset, content in frames or ():
                stream = handshake.sides[side]
                if isinstance(content, bytes):
                    stream.add(offset, content, row)
                elif stream.alert is None and 0x100 <= content <= 0x1FF:  # RFC 9001 section 4.8
                    stream.alert = content - 0x100
    return found


def handshakes(datagrams: pl.DataFrame) -> Iterator[Handshake]:
    """Those with at least one hello that could be opened, by flow_id; of what CANDIDATES chose."""
    packets = (
        datagrams.unique("frame", keep="first", maintain_order=True)
        .group_by("flow_id", maintain_order=True)
        .head(DATAGRAMS_LIMIT)
        .select("flow_id", "frame", pl.col("ts").to_physical(), "src_ip", "src_port", "payload")
    )
    for (flow,), rows in packets.sort("flow_id", maintain_order=True).group_by(
        "flow_id", maintain_order=True
    ):
        whole: list[Handshake] = []
        for handshake in _of_conversation(int(flow), rows):
            if whole and whole[-1].goes_on_in(handshake):
                for mine, theirs in zip(whole[-1].sides, handshake.sides, strict=True):
                    mine.absorb(theirs)
            else:
                whole.append(handshake)
        yield from (found for found in whole if any(stream.packet_at(0) for stream in found.sides))
