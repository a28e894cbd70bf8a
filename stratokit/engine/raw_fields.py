"""Filter fields of the raw tables: Wireshark's names for packets, sysdig's for processes and files."""

from __future__ import annotations

import polars as pl

from stratokit.filters.catalogue import FieldSpec

_c = pl.col
_TCP, _UDP, _ICMP, _ICMPV6, _SCTP = 6, 17, 1, 58, 132
_TCP_FLAGS = {
    "fin": (1, "Sender has no more data."),
    "syn": (2, "Synchronise sequence numbers."),
    "reset": (4, "Connection is torn down."),
    "push": (8, "Data shall go to the application at once."),
    "ack": (16, "Acknowledgment number is valid."),
    "urg": (32, "Urgent pointer is valid."),
    "ece": (64, "ECN-Echo."),
    "cwr": (128, "Congestion window reduced."),
    "ae": (256, "Accurate ECN."),
}


def _of(proto: int, value: pl.Expr) -> pl.Expr:
    """`value` where the packet is of this transport protocol, else null."""
    return pl.when(_c("ip_proto") == proto).then(value)


def _ports(name: str, proto: int) -> list[FieldSpec]:
    source, target = _of(proto, _c("src_port")), _of(proto, _c("dst_port"))
    title = name.upper()
    return [
        FieldSpec(name, "protocol", (_c("ip_proto") == proto,), f"{title} packets."),
        FieldSpec(f"{name}.srcport", "number", (source,), f"{title} source port."),
        FieldSpec(f"{name}.dstport", "number", (target,), f"{title} destination port."),
        FieldSpec(f"{name}.port", "number", (source, target), f"{title} source or destination port."),
    ]


def _addresses(name: str, type_: str, version: int) -> list[FieldSpec]:
    title = f"IPv{version}"
    sides = (_c("src_ip"), _c("dst_ip"))
    return [
        FieldSpec(name, "protocol", (_c("ip_version") == version,), f"{title} packets."),
        FieldSpec(f"{name}.src", type_, sides[:1], f"{title} source address."),
        FieldSpec(f"{name}.dst", type_, sides[1:], f"{title} destination address."),
        FieldSpec(f"{name}.addr", type_, sides, f"{title} source or destination address."),
    ]


def _one(name: str, type_: str, column: str, doc: str) -> FieldSpec:
    return FieldSpec(name, type_, (_c(column),), doc)


_PLACE = (
    _one("container.id", "text", "container_id", "Container id in full."),
    _one("k8s.pod.name", "text", "pod", "Kubernetes pod."),
    _one("k8s.ns.name", "text", "namespace", "Kubernetes namespace of the pod."),
)
_ACTOR = (
    _one("proc.pid", "number", "pid", "Process id."),
    _one("thread.tid", "number", "tid", "Thread id."),
    _one("proc.name", "text", "comm", "Thread name, at most 15 bytes."),
    *_PLACE,
)
_FD_ADDRESSES = (
    FieldSpec("fd.ip", "address", (_c("src_ip"), _c("dst_ip")), "Local or remote address."),
    _one("fd.lip", "address", "src_ip", "Local address."),
    _one("fd.rip", "address", "dst_ip", "Remote address."),
    FieldSpec("fd.port", "number", (_c("src_port"), _c("dst_port")), "Local or remote port."),
    _one("fd.lport", "number", "src_port", "Local port."),
    _one("fd.rport", "number", "dst_port", "Remote port."),
)

_PACKETS = (
    FieldSpec("frame", "bytes", (_c("data"),), "The recorded bytes of the packet."),
    _one("frame.number", "number", "frame", "Number of the packet, from 1."),
    _one("frame.time", "time", "ts", "When the packet was seen."),
    _one("frame.time_epoch", "time", "ts", "When the packet was seen, in seconds since 1970."),
    _one("frame.len", "number", "orig_len", "Length on the wire in bytes."),
    _one("frame.cap_len", "number", "cap_len", "Recorded bytes."),
    _one("frame.interface_name", "text", "interface", "Interface name."),
    _one("frame.comment", "text", "comment", "Comments that stood with the packet in its file."),
    _one("packet.direction", "text", "direction", "in or out, seen from the recording host."),
    _one("vlan.id", "number", "vlan", "VLAN id, the outermost of several."),
    *_addresses("ip", "ipv4", 4),
    FieldSpec("ip.version", "number", (pl.when(_c("ip_version") == 4).then(4),), "IP version, 4."),
    FieldSpec("ip.proto", "number", (pl.when(_c("ip_version") == 4).then(_c("ip_proto")),), "IP protocol."),
    FieldSpec("ip.ttl", "number", (pl.when(_c("ip_version") == 4).then(_c("ip_ttl")),), "Time to live."),
    _one("ip.id", "number", "ip_id", "IPv4 identification."),
    *_addresses("ipv6", "ipv6", 6),
    FieldSpec("ipv6.hlim", "number", (pl.when(_c("ip_version") == 6).then(_c("ip_ttl")),), "Hop limit."),
    *_ports("tcp", _TCP),
    FieldSpec("tcp.flags", "number", (_of(_TCP, _c("tcp_flags")),), "All TCP flags as a number."),
    *(
        FieldSpec(f"tcp.flags.{name}", "bool", (_of(_TCP, (_c("tcp_flags") & bit) != 0),), doc)
        for name, (bit, doc) in _TCP_FLAGS.items()
    ),
    _one("tcp.seq_raw", "number", "tcp_seq", "Sequence number as sent."),
    _one("tcp.ack_raw", "number", "tcp_ack", "Acknowledgment number as sent."),
    _one("tcp.window_size_value", "number", "tcp_window", "Window as sent, not scaled."),
    FieldSpec("tcp.len", "number", (_of(_TCP, _c("payload_len")),), "TCP payload in bytes."),
    *_ports("udp", _UDP),
    FieldSpec("udp.length", "number", (_of(_UDP, _c("payload_len") + 8),), "UDP length with its header."),
    *_ports("sctp", _SCTP),
    FieldSpec("icmp", "protocol", (_c("ip_proto") == _ICMP,), "ICMP packets."),
    FieldSpec("icmp.type", "number", (_of(_ICMP, _c("icmp_type")),), "ICMP type."),
    FieldSpec("icmp.code", "number", (_of(_ICMP, _c("icmp_code")),), "ICMP code."),
    FieldSpec("icmpv6", "protocol", (_c("ip_proto") == _ICMPV6,), "ICMPv6 packets."),
    FieldSpec("icmpv6.type", "number", (_of(_ICMPV6, _c("icmp_type")),), "ICMPv6 type."),
    FieldSpec("icmpv6.code", "number", (_of(_ICMPV6, _c("icmp_code")),), "ICMPv6 code."),
    _one("flow.id", "number", "flow_id", "Conversation that the packet belongs to."),
    _one("socket.cookie", "number", "socket_cookie", "Kernel's id of the local socket."),
    *_ACTOR,
)
_SOCKETS = (
    _one("evt.time", "time", "ts", "When it happened."),
    _one("evt.type", "text", "event", "state, rtt, retransmit or snapshot."),
    *_FD_ADDRESSES,
    FieldSpec("ip.addr", "ipv4", (_c("src_ip"), _c("dst_ip")), "IPv4 local or remote address."),
    FieldSpec("ipv6.addr", "ipv6", (_c("src_ip"), _c("dst_ip")), "IPv6 local or remote address."),
    FieldSpec("tcp.port", "number", (_c("src_port"), _c("dst_port")), "Local or remote TCP port."),
    _one("socket.old_state", "text", "old_state", "TCP state before."),
    _one("socket.new_state", "text", "new_state", "TCP state after."),
    _one("socket.rtt", "duration", "rtt_ns", "The kernel's smoothed round-trip time."),
    _one("socket.retransmits", "number", "retransmits", "Segments that the socket has sent again so far."),
    _one("socket.cookie", "number", "socket_cookie", "Kernel's id of the socket."),
    *_ACTOR,
)
_SYSCALLS = (
    _one("evt.time", "time", "ts", "When the call began."),
    _one("evt.type", "text", "syscall", "Name of the system call."),
    _one("evt.args", "text", "args", "Arguments as text."),
    _one("evt.rawres", "number", "ret", "Return value; -errno on failure."),
    _one("evt.res", "text", "errno", "Name of the error, as ENOENT; absent on success."),
    FieldSpec("evt.failed", "bool", (_c("ret") < 0,), "True when the call failed."),
    _one("evt.latency", "duration", "duration_ns", "From entry to exit."),
    _one("evt.buffer", "bytes", "data", "First bytes that were read, written, sent or received."),
    _one("fd.num", "number", "fd", "File descriptor."),
    _one("fd.type", "text", "fd_kind", "file, directory, socket, pipe, char, block, anon."),
    FieldSpec(
        "fd.name", "text", (pl.coalesce("fd_name", "path"),), "Path or address pair of the descriptor."
    ),
    FieldSpec("fs.path.name", "text", (_c("path"), _c("path2")), "First or second path argument."),
    *_FD_ADDRESSES,
    _one("socket.cookie", "number", "socket_cookie", "Kernel's id of the socket behind the descriptor."),
    *_ACTOR,
)
_EVENTS = (
    _one("evt.time", "time", "ts", "When it happened."),
    _one("evt.type", "text", "event", "Name of the event."),
    *_ACTOR,
)
_PROCESSES = (
    _one("proc.pid", "number", "pid", "Process id."),
    _one("proc.ppid", "number", "parent_pid", "Process id of the parent."),
    _one("proc.name", "text", "comm", "Name, at most 15 bytes."),
    _one("proc.exepath", "text", "path", "Program."),
    _one("proc.cmdline", "text", "cmdline", "Arguments."),
    _one("user.uid", "number", "uid", "Real user id."),
    _one("proc.exit_code", "number", "exit_code", "Exit code."),
    *_PLACE,
)
_CONTAINERS = (
    _one("container.name", "text", "container_name", "Name that the runtime gave the container."),
    _one("container.image", "text", "image", "Image of the container."),
    _one("container.type", "text", "runtime", "Container runtime."),
    *_PLACE,
)

RAW_FIELDS: dict[str, tuple[FieldSpec, ...]] = {
    "packets": _PACKETS,
    "sockets": _SOCKETS,
    "syscalls": _SYSCALLS,
    "events": _EVENTS,
    "processes": _PROCESSES,
    "containers": _CONTAINERS,
}
