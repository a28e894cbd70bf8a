"""Filter fields of the raw tables; those of processes and files have sysdig's names."""

from __future__ import annotations

import polars as pl

from stratokit.engine.packet_analysis import FIELDS as ANALYSIS_FIELDS
from stratokit.engine.packet_filter_fields import PACKET_FIELDS
from stratokit.filters.catalogue import FieldSpec

_c = pl.col


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


def _ports(protocol: str, number: int) -> tuple[FieldSpec, ...]:
    """Ports of packets of one protocol."""
    of_it = _c("ip_proto") == number
    source, destination = (pl.when(of_it).then(_c(f"{end}_port")) for end in ("src", "dst"))
    name = protocol.upper()
    return (
        FieldSpec(f"{protocol}.port", "number", (source, destination), f"{name} source or destination port."),
        FieldSpec(f"{protocol}.srcport", "number", (source,), f"{name} source port."),
        FieldSpec(f"{protocol}.dstport", "number", (destination,), f"{name} destination port."),
    )


_FD_ADDRESSES = (
    FieldSpec("fd.ip", "address", (_c("src_ip"), _c("dst_ip")), "Local or remote address."),
    _one("fd.lip", "address", "src_ip", "Local address."),
    _one("fd.rip", "address", "dst_ip", "Remote address."),
    FieldSpec("fd.port", "number", (_c("src_port"), _c("dst_port")), "Local or remote port."),
    _one("fd.lport", "number", "src_port", "Local port."),
    _one("fd.rport", "number", "dst_port", "Remote port."),
)

_SOCKETS = (
    _one("evt.time", "time", "ts", "When it happened."),
    _one("evt.type", "text", "event", "state, rtt, retransmit or snapshot."),
    _one("socket.stack", "text", "kernel_stack", "Functions that led to a retransmission, outermost first."),
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
_DROPS = (
    _one("evt.time", "time", "ts", "When it was dropped."),
    _one("drop.reason", "text", "drop_reason", "Why, as the kernel calls it: NO_SOCKET, SOCKET_RCVBUFF, ..."),
    _one("drop.location", "text", "drop_location", "Function of the kernel that dropped it, with offset."),
    _one("drop.stack", "text", "kernel_stack", "Functions that led there, outermost first."),
    _one("frame.interface_name", "text", "interface", "Interface at which it was, or through which it came."),
    _one("frame.len", "number", "orig_len", "Length from the network layer on."),
    FieldSpec("ip.addr", "ipv4", (_c("src_ip"), _c("dst_ip")), "IPv4 source or destination."),
    _one("ip.src", "ipv4", "src_ip", "IPv4 source."),
    _one("ip.dst", "ipv4", "dst_ip", "IPv4 destination."),
    FieldSpec("ipv6.addr", "ipv6", (_c("src_ip"), _c("dst_ip")), "IPv6 source or destination."),
    _one("ipv6.src", "ipv6", "src_ip", "IPv6 source."),
    _one("ipv6.dst", "ipv6", "dst_ip", "IPv6 destination."),
    _one("ip.proto", "number", "ip_proto", "Protocol over IP."),
    *_ports("tcp", 6),
    *_ports("udp", 17),
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
    FieldSpec(
        "evt.unfinished",
        "bool",
        (_c("unfinished").fill_null(False),),
        "True when the call had not returned at the end; evt.latency is the time up to there.",
    ),
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
    "packets": (*PACKET_FIELDS, *ANALYSIS_FIELDS, *_ACTOR),
    "sockets": _SOCKETS,
    "drops": _DROPS,
    "syscalls": _SYSCALLS,
    "events": _EVENTS,
    "processes": _PROCESSES,
    "containers": _CONTAINERS,
}
