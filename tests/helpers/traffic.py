"""Packet rows made by hand: TCP segments and UDP datagrams with every number under the test's control."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from stratokit.engine.frames import polars_schema
from stratokit.protocols.base import Passes
from stratokit.schema import load

MS = 1_000_000
T0 = 1_767_225_600_000_000_000  # 2026-01-01 00:00:00 UTC
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ISN = 0xFFFF_FF00  # so that sequence numbers wrap around after 255 bytes

PACKET_SCHEMA, SOCKET_SCHEMA = (
    polars_schema([c for c in load.capture().of_kind(kind) if c.name != "kind"])
    for kind in ("packet", "socket")
)


@dataclasses.dataclass(frozen=True)
class End:
    """An address and port; with a pid, the process that was recorded there."""

    ip: str
    port: int
    pid: int | None = None
    comm: str | None = None
    pod: str | None = None


CLIENT, SERVER = End("10.0.0.1", 40000), End("10.0.0.2", 8080)
LOCAL_CLIENT = End("10.0.0.1", 40000, 10, "curl", "shop-1")
LOCAL_SERVER = End("10.0.0.2", 8080, 20, "nginx", "web-1")


class Packets:
    """Packets in capture order; those of recorded ends get a row out, a row in, or both, under one number.

    Time goes on by `step_ns` with each packet, and by `carry_ns` between its two rows.
    """

    def __init__(self, step_ns: int = MS, carry_ns: int = 1000) -> None:
        self.added: list[dict[str, Any]] = []
        self.sockets: list[dict[str, Any]] = []
        self.frames = 0
        self.now = T0
        self.step_ns, self.carry_ns = step_ns, carry_ns
        self.passes: Passes | None = None  # a table made twice is made anew, for packets may have been added

    def add(self, src: End, dst: End, proto: int, payload: bytes, flow: int, /, **columns: Any) -> None:
        """One packet; `columns` override what follows from the rest."""
        self.frames += 1
        header = bytes(40)
        row = {
            "frame": self.frames,
            "flow_id": flow,
            "link_type": 101,
            "src_ip": src.ip,
            "dst_ip": dst.ip,
            "src_port": src.port,
            "dst_port": dst.port,
            "ip_proto": proto,
            "ip_version": 4,
            "payload_offset": len(header),
            "payload_len": len(payload),
            "orig_len": len(header) + len(payload),
            "cap_len": len(header) + len(payload),
            "data": header + payload,
        }
        for direction, end, ts in (("out", src, self.now), ("in", dst, self.now + self.carry_ns)):
            if end.pid is not None:
                owner = {"pid": end.pid, "tid": end.pid, "comm": end.comm, "pod": end.pod}
                self.added.append(row | {"direction": direction, "ts": ts} | owner | columns)
        if src.pid is None and dst.pid is None:
            self.added.append(row | {"ts": self.now} | columns)
        self.now += self.step_ns

    def segment(
        self,
        src: End,
        dst: End,
        seq: int,
        payload: bytes = b"",
        flags: int = ACK,
        flow: int = 0,
        /,
        **columns: Any,
    ) -> None:
        numbers = {"tcp_seq": seq % 2**32, "tcp_flags": flags, "tcp_ack": 0, "tcp_window": 64000}
        self.add(src, dst, 6, payload, flow, **(numbers | columns))

    def datagram(self, src: End, dst: End, payload: bytes, flow: int = 0, /, **columns: Any) -> None:
        self.add(src, dst, 17, payload, flow, **columns)

    def rows(self, kind: str) -> pl.LazyFrame:
        if kind == "socket":
            return pl.DataFrame(self.sockets, schema=SOCKET_SCHEMA).lazy()
        assert kind == "packet"
        return pl.DataFrame(self.added, schema=PACKET_SCHEMA).lazy()


class Connection:
    """A TCP connection whose sides count their own bytes."""

    def __init__(
        self,
        packets: Packets,
        client: End = CLIENT,
        server: End = SERVER,
        flow: int = 0,
        handshake: bool = True,
    ) -> None:
        self.packets, self.client, self.server, self.flow = packets, client, server, flow
        self.next = {client: ISN, server: 7000}
        if handshake:
            self.send(client, b"", SYN)
            self.send(server, b"", SYN | ACK)
            self.send(client, b"", ACK)

    def send(self, src: End, payload: bytes, flags: int = PSH | ACK, /, **columns: Any) -> None:
        """One segment of the next bytes."""
        dst = self.server if src is self.client else self.client
        ack = self.next[dst] % 2**32 if flags & ACK else 0
        columns = {"tcp_ack": ack} | columns
        self.packets.segment(src, dst, self.next[src], payload, flags, self.flow, **columns)
        self.next[src] += len(payload) + (flags & (SYN | FIN) != 0)

    def lose(self, src: End, size: int) -> None:
        """Bytes that were sent but not captured."""
        self.next[src] += size

    def ask(self, payload: bytes, cuts: Sequence[int] = ()) -> None:
        for part in cut(payload, cuts):
            self.send(self.client, part)

    def answer(self, payload: bytes, cuts: Sequence[int] = ()) -> None:
        for part in cut(payload, cuts):
            self.send(self.server, part)

    def close(self) -> None:
        self.send(self.client, b"", FIN | ACK)
        self.send(self.server, b"", FIN | ACK)


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` in parts that end at the given places."""
    places = sorted({0, len(data), *(c for c in cuts if 0 < c < len(data))})
    return [data[a:b] for a, b in itertools.pairwise(places)]
