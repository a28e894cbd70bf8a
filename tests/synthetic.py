"""Small captures made row by row, for tests that need known content and no kernel."""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa

from stratokit.formats.parquet import CaptureWriter
from stratokit.schema import load
from stratokit.schema.arrow import arrow_schema

T0 = 1_767_225_600_000_000_000  # 2026-01-01 00:00:00 UTC
MS = 1_000_000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

METADATA = {
    "host": json.dumps({"hostname": "web-1", "kernel": "6.18.5", "machine": "x86_64", "os": "Debian 12"}),
    "options": json.dumps(
        {"packets": True, "sockets": True, "syscalls": "default", "snaplen": 65535, "drops": True}
    ),
}


def write(path: Path, metadata: dict[str, str] | None = None, /, **kinds: list[dict[str, Any]]) -> Path:
    """A capture.parquet with these rows: write(path, packet=[...], syscall=[...])."""
    with CaptureWriter(path, METADATA if metadata is None else metadata) as writer:
        for kind, rows in kinds.items():
            columns = [c for c in load.capture().of_kind(kind) if c.name != "kind"]
            writer.write(kind, pa.Table.from_pylist(rows, schema=arrow_schema(columns)))
    return path


@dataclasses.dataclass
class Side:
    """One end of a conversation; `pid` and `comm` are its process where it was recorded."""

    ip: str
    port: int
    pid: int | None = None
    comm: str | None = None
    seq: int = 1000


@dataclasses.dataclass
class Network:
    """Hands out frame numbers and keeps the rows of kind packet in order."""

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    frames: int = 0
    flows: int = 0

    def tcp(
        self, client: Side, server: Side, start_ns: int, exchanges: list[tuple[int, bytes, int, bytes]]
    ) -> int:
        """A whole connection with exchanges of (delay, request, delay, response); returns its flow."""
        flow, at = self._flow(), start_ns
        self._tcp(flow, client, server, at, SYN)
        self._tcp(flow, server, client, at + MS, SYN | ACK)
        self._tcp(flow, client, server, at + 2 * MS, ACK)
        at += 2 * MS
        for before, request, wait, response in exchanges:
            at += before
            self._tcp(flow, client, server, at, PSH | ACK, request)
            at += wait
            self._tcp(flow, server, client, at, PSH | ACK, response)
        self._tcp(flow, client, server, at + MS, FIN | ACK)
        self._tcp(flow, server, client, at + 2 * MS, FIN | ACK)
        self._tcp(flow, client, server, at + 3 * MS, ACK)
        return flow

    def udp(
        self, client: Side, server: Side, start_ns: int, request: bytes, wait_ns: int, response: bytes | None
    ) -> int:
        """A datagram and, unless None, its answer; returns its flow."""
        flow = self._flow()
        self._udp(flow, client, server, start_ns, request)
        if response is not None:
            self._udp(flow, server, client, start_ns + wait_ns, response)
        return flow

    def _flow(self) -> int:
        self.flows += 1
        return self.flows - 1

    def _tcp(self, flow: int, src: Side, dst: Side, ts: int, flags: int, payload: bytes = b"") -> None:
        ack = dst.seq if flags & ACK else 0
        header = struct.pack(">HHIIBBHHH", src.port, dst.port, src.seq, ack, 5 << 4, flags, 64000, 0, 0)
        row = self._add(flow, src, dst, ts, 6, header, payload)
        row.update(tcp_flags=flags, tcp_seq=src.seq, tcp_ack=ack, tcp_window=64000)
        src.seq += len(payload) + (flags & (SYN | FIN) != 0)

    def _udp(self, flow: int, src: Side, dst: Side, ts: int, payload: bytes) -> None:
        header = struct.pack(">HHHH", src.port, dst.port, 8 + len(payload), 0)
        self._add(flow, src, dst, ts, 17, header, payload)

    def _add(
        self, flow: int, src: Side, dst: Side, ts: int, proto: int, header: bytes, payload: bytes
    ) -> dict:
        self.frames += 1
        length = 20 + len(header) + len(payload)
        addresses = socket.inet_aton(src.ip) + socket.inet_aton(dst.ip)
        data = (
            struct.pack(">BBHHHBBH", 0x45, 0, length, self.frames & 0xFFFF, 0x4000, 64, proto, 0) + addresses
        )
        here = src if src.pid else dst
        row = {
            "ts": ts,
            "frame": self.frames,
            "interface": "eth0",
            "ifindex": 2,
            "direction": "out" if src.pid else "in",
            "link_type": 101,
            "orig_len": length,
            "cap_len": length,
            "src_ip": src.ip,
            "dst_ip": dst.ip,
            "src_port": src.port,
            "dst_port": dst.port,
            "ip_proto": proto,
            "ip_version": 4,
            "ip_ttl": 64,
            "ip_id": self.frames & 0xFFFF,
            "payload_offset": 20 + len(header),
            "payload_len": len(payload),
            "flow_id": flow,
            "pid": here.pid,
            "tid": here.pid,
            "comm": here.comm,
            "process_start": T0 if here.pid else None,
            "data": data + header + payload,
        }
        self.rows.append(row)
        return row


def dns_name(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def dns_query(number: int, name: str) -> bytes:
    """A query for an A record."""
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + dns_name(name) + b"\0\x01\0\x01"


def dns_answer(number: int, name: str, address: str | None) -> bytes:
    """The answer: one address, or NXDOMAIN."""
    code = 0 if address else 3
    head = struct.pack(">HHHHHH", number, 0x8180 | code, 1, int(bool(address)), 0, 0)
    body = dns_name(name) + b"\0\x01\0\x01"
    if address:
        body += b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04" + socket.inet_aton(address)
    return head + body


def http_request(path: str, host: str = "shop.example", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test/1\r\n\r\n".encode()


def http_response(status: int = 200, body: bytes = b"hello") -> bytes:
    head = f"HTTP/1.1 {status} Reason\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def syscall(ts: int, name: str, pid: int = 10, comm: str = "curl", **columns: Any) -> dict[str, Any]:
    """A row of kind syscall that took 1 ms and succeeded, unless `columns` say otherwise."""
    return {
        "ts": ts,
        "syscall": name,
        "pid": pid,
        "tid": pid,
        "comm": comm,
        "process_start": T0,
        "duration_ns": MS,
        "ret": 0,
    } | columns


def process(ts: int, event: str, pid: int = 10, comm: str = "curl", **columns: Any) -> dict[str, Any]:
    return {"ts": ts, "event": event, "pid": pid, "tid": pid, "comm": comm, "process_start": T0} | columns


def loss(counter: str, amount: int, ts: int = T0 + 1000 * MS) -> dict[str, Any]:
    return {"ts": ts, "counter": counter, "amount": amount, "span_ns": 1000 * MS}


def small_shop(path: Path, **more: list[dict[str, Any]]) -> Path:
    """A web client and its server, two names looked up, system calls of both: what most tests use."""
    net = Network()
    curl, nginx = Side("10.0.0.1", 40001, 10, "curl"), Side("10.0.0.2", 80)
    net.udp(
        Side("10.0.0.1", 50001, 10, "curl"),
        Side("10.0.0.53", 53),
        T0,
        dns_query(1, "shop.example"),
        3 * MS,
        dns_answer(1, "shop.example", "10.0.0.2"),
    )
    net.udp(
        Side("10.0.0.1", 50002, 10, "curl"),
        Side("10.0.0.53", 53),
        T0 + 10 * MS,
        dns_query(2, "gone.example"),
        9 * MS,
        dns_answer(2, "gone.example", None),
    )
    net.tcp(
        curl,
        nginx,
        T0 + 20 * MS,
        [
            (0, http_request("/"), 5 * MS, http_response(200)),
            (MS, http_request("/cart?id=7"), 250 * MS, http_response(500, b"oops")),
        ],
    )
    rows: dict[str, list[dict[str, Any]]] = {
        "packet": net.rows,
        "socket": [
            {
                "ts": T0 + 21 * MS,
                "event": "state",
                "old_state": "SYN_SENT",
                "new_state": "ESTABLISHED",
                "pid": 10,
                "comm": "curl",
                "src_ip": "10.0.0.1",
                "src_port": 40001,
                "dst_ip": "10.0.0.2",
                "dst_port": 80,
                "socket_cookie": 77,
                "rtt_ns": MS,
            }
        ],
        "syscall": [
            syscall(
                T0 + MS, "openat", path="/etc/hosts", arg0=0xFFFFFF9C, arg1=4096, arg2=0o2000000, ret=3, fd=3
            ),
            syscall(
                T0 + 2 * MS,
                "openat",
                path="/missing",
                arg0=0xFFFFFF9C,
                arg1=4096,
                arg2=0,
                ret=-2,
                errno="ENOENT",
            ),
            syscall(
                T0 + 3 * MS, "read", arg0=3, arg1=8192, arg2=100, ret=5, data=b"hello", duration_ns=40 * MS
            ),
            syscall(T0 + 4 * MS, "epoll_wait", pid=20, comm="nginx", arg0=5, ret=1, duration_ns=900 * MS),
        ],
        "process": [
            process(
                T0, "snapshot", 20, "nginx", path="/usr/sbin/nginx", cmdline="nginx: worker", parent_pid=1
            ),
            process(T0 + MS, "exec", path="/usr/bin/curl", cmdline="curl shop.example", parent_pid=1, uid=0),
            process(T0 + 400 * MS, "exit", exit_code=22),
        ],
        "interface": [
            {"ts": T0, "interface": "eth0", "ifindex": 2, "addresses": ["10.0.0.1/24"], "mtu": 1500}
        ],
    }
    return write(path, **(rows | more))
