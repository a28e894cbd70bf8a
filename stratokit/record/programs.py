"""The programs of bpf/: what each attaches to, and the C text of one recording."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING

from stratokit.schema import derive, load

if TYPE_CHECKING:
    from collections.abc import Collection

    from stratokit.record.options import Filter, Scope, Trigger

# enum bpf_attach_type (include/uapi/linux/bpf.h)
_INET_INGRESS, _INET_EGRESS, _SOCK_CREATE, _SOCK_OPS = 0, 1, 2, 3
_CONNECT4, _CONNECT6, _SENDMSG4, _SENDMSG6, _SOCK_RELEASE = 10, 11, 14, 15, 34


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A function of bpf/ and where it goes: an attach type of a cgroup, or a raw tracepoint. It is left out
    where neither the kernel's BTF nor the recording gives what `needs` stands for.
    """

    function: str
    program_type: str
    attach_type: int = -1
    tracepoint: str = ""
    needs: str = ""


CGROUP_PROGRAMS = {
    "packets": (
        Program("packet_out", "CGROUP_SKB", _INET_EGRESS),
        Program("packet_in", "CGROUP_SKB", _INET_INGRESS),
    ),
    "endpoints": (
        Program("endpoint_out", "CGROUP_SKB", _INET_EGRESS),
        Program("endpoint_in", "CGROUP_SKB", _INET_INGRESS),
    ),
    "sockets": (Program("socket_ops", "SOCK_OPS", _SOCK_OPS),),
    "owners": (
        Program("socket_created", "CGROUP_SOCK", _SOCK_CREATE),
        Program("socket_connect4", "CGROUP_SOCK_ADDR", _CONNECT4),
        Program("socket_connect6", "CGROUP_SOCK_ADDR", _CONNECT6),
        Program("socket_sendmsg4", "CGROUP_SOCK_ADDR", _SENDMSG4),
        Program("socket_sendmsg6", "CGROUP_SOCK_ADDR", _SENDMSG6),
        Program("socket_closed", "CGROUP_SOCK", _SOCK_RELEASE, needs="LEARN_USERS"),
        Program("socket_sends", "CGROUP_SKB", _INET_EGRESS, needs="LEARN_USERS_ALONE"),
    ),
}
DEVICE_PROGRAM = Program("device_frame", "SOCKET_FILTER", needs="HAVE_DEVICE_BTF")
# While system calls are left out (bpf/limits.c).
GLANCE_PROGRAM = Program("call_glanced", "RAW_TRACEPOINT", tracepoint="sys_enter")
TRACEPOINT_PROGRAMS = {
    "syscalls": (
        Program("syscall_exit", "RAW_TRACEPOINT", tracepoint="sys_exit"),
        Program("syscall_enter", "RAW_TRACEPOINT", tracepoint="sys_enter"),
    ),
    "sockets": (
        Program(
            "older_socket_state",
            "RAW_TRACEPOINT",
            tracepoint="inet_sock_set_state",
            needs="HAVE_TCP_BTF",
        ),
        Program(
            "socket_retransmits",
            "RAW_TRACEPOINT",
            tracepoint="tcp_retransmit_skb",
            needs="HAVE_TCP_BTF",
        ),
    ),
    "drops": (Program("packet_dropped", "RAW_TRACEPOINT", tracepoint="kfree_skb", needs="HAVE_DROP_BTF"),),
    "processes": (
        Program("process_fork", "RAW_TRACEPOINT", tracepoint="sched_process_fork", needs="HAVE_BTF"),
        Program("process_exec", "RAW_TRACEPOINT", tracepoint="sched_process_exec"),
        Program("process_exit", "RAW_TRACEPOINT", tracepoint="sched_process_exit"),
    ),
}

# Further programs at tracepoints that have one already.
EXTRA_TRACEPOINT_PROGRAMS = {
    "tls": (
        Program("tls_executed", "RAW_TRACEPOINT", tracepoint="sched_process_exec", needs="HAVE_TLS_BTF"),
        Program("tls_mapped", "RAW_TRACEPOINT", tracepoint="sys_enter"),
        Program("tls_socket_call", "RAW_TRACEPOINT", tracepoint="sys_exit", needs="HAVE_TLS_BTF"),
    ),
}


# Files of bpf/ that one of them is built on.
_PARTS = {
    "syscalls": ("files", "arguments"),
    "tls": ("tls_files",),
    "sockets": ("stacks",),
    "drops": ("stacks",),
}


def program_text(names: list[str], settings: dict[str, int | str]) -> str:
    """The C text of one recording: derived header, settings, common.h, and the named programs."""
    folder = load.data_dir("bpf")
    parts = [derive.c_header(), *(f"#define {key} {value}\n" for key, value in settings.items())]
    files = [f"{part}.c" for name in names for part in (*_PARTS.get(name, ()), name)]
    parts += [(folder / name).read_text() for name in dict.fromkeys(("common.h", *files))]
    return "\n".join(parts)


def scope_settings(scope: Scope) -> dict[str, int | str]:
    """What bpf/scope.c has to know."""
    if not scope:
        return {}
    found: dict[str, int | str] = {"SCOPED": 1}
    if scope.by_cgroup:
        found["SCOPE_CGROUPS"] = 1
    if scope.by_task:
        found["SCOPE_SOCKETS"] = 1
    if scope.uids:
        found["SCOPE_UIDS(uid)"] = "(" + " || ".join(f"(uid) == {uid}" for uid in scope.uids) + ")"
    if scope.comms:
        words = [struct.unpack("<QQ", comm.encode().ljust(16, b"\0")) for comm in scope.comms]
        tests = (f"((comm)[0] == {low:#x}ULL && (comm)[1] == {high:#x}ULL)" for low, high in words)
        found["SCOPE_COMMS(comm)"] = "(" + " || ".join(tests) + ")"
    return found


def trigger_settings(triggers: Collection[Trigger]) -> dict[str, int | str]:
    """What bpf/triggers.c has to know: for each kind of events what is tested and counted."""
    found: dict[str, int | str] = {}
    for kind, name in (
        ("call", "TRIGGER_CALLS(c)"),
        ("socket", "TRIGGER_SOCKETS(e)"),
        ("process", "TRIGGER_EXITS(x)"),
    ):
        tests = [
            f"if ({trigger.test}) trigger_hit({number});"
            for number, trigger in enumerate(triggers)
            if trigger.kind == kind
        ]
        if tests:
            found |= {name: f"do {{ {' '.join(tests)} }} while (0)", "TRIGGERS": len(triggers)}
    return found


def filter_settings(filter_: Filter) -> dict[str, int | str]:
    """What bpf/filter.c has to know."""
    found: dict[str, int | str] = {}
    if filter_.packet_test:
        found["PACKET_TEST"] = f"({filter_.packet_test})"
    if filter_.conversations:
        found["TEST_CONVERSATIONS"] = 1
    if filter_.call_test:
        found["CALL_TEST"] = f"({filter_.call_test})"
    return found
