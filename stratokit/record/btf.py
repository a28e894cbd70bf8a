"""Offsets of members of kernel structures, from the running kernel's BTF (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import array
import contextlib
import pathlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VMLINUX = pathlib.Path("/sys/kernel/btf/vmlinux")

KIND_POINTER, KIND_STRUCT, KIND_UNION, KIND_ENUM, KIND_TYPEDEF, KIND_FUNCTION, KIND_PROTOTYPE = (
    2,
    4,
    5,
    6,
    8,
    12,
    13,
)
# Bytes that follow the 12-byte type header, for each kind: a fixed part and a part per element (vlen).
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}  # int, array, variable, declaration tag
_PER_ELEMENT = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}  # struct, union, enum, prototype, section, enum64


class _Types:
    """Of each type name, kind, number of elements, and where what follows its header begins: 100,000 and
    more, which as objects of Python take ten times as much.
    """

    def __init__(self) -> None:
        self._names, self._infos, self._places = (array.array("I") for _ in range(3))

    def append(self, name: int, info: int, place: int) -> None:
        self._names.append(name)
        self._infos.append(info)
        self._places.append(place)

    def __len__(self) -> int:
        return len(self._names)

    def named(self, name: int) -> Iterator[int]:
        """Numbers of the types of this name."""
        number = -1
        with contextlib.suppress(ValueError):
            while True:
                number = self._names.index(name, number + 1)
                yield number

    def __getitem__(self, number: int) -> tuple[int, int, int, int]:
        info = self._infos[number]
        return self._names[number], info >> 24 & 0x1F, info & 0xFFFF, self._places[number]

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        return map(self.__getitem__, range(len(self)))


class Btf:
    """Types of a BTF blob, indexed once; members are found through anonymous structs and unions too."""

    def __init__(self, blob: bytes) -> None:
        magic, _, _, header_bytes, type_at, type_bytes, text_at, text_bytes = struct.unpack_from(
            "<HBBIIIII", blob
        )
        if magic != 0xEB9F:
            raise ValueError("not a little-endian BTF blob")
        self._blob = blob
        self._text = blob[header_bytes + text_at : header_bytes + text_at + text_bytes]
        self._types = _Types()
        self._types.append(0, 0, 0)
        self._structs: dict[int, int] = {}
        position, end = header_bytes + type_at, header_bytes + type_at + type_bytes
        unpack = struct.Struct("<II").unpack_from
        while position < end:
            name, info = unpack(blob, position)
            kind, elements = info >> 24 & 0x1F, info & 0xFFFF
            if kind == KIND_STRUCT and name:
                self._structs.setdefault(name, len(self._types))
            self._types.append(name, info, position + 12)
            position += 12 + _FIXED.get(kind, 0) + _PER_ELEMENT.get(kind, 0) * elements

    def _name(self, at: int) -> str:
        return self._text[at : self._text.index(b"\0", at)].decode()

    def offset(self, struct_name: str, member: str) -> int:
        """Byte offset of `member` in `struct struct_name`; `a.b` is the member b of what its member a is.

        Raises:
            KeyError: this kernel has no such struct or member.
        """
        wanted = struct_name.encode() + b"\0"
        at = -1
        while (at := self._text.find(b"\0" + wanted, at + 1)) >= 0:
            if at + 1 in self._structs:
                found = self._place(self._structs[at + 1], member)
                if found is not None:
                    return found // 8
        raise KeyError(f"{struct_name}.{member}")

    def number(self, name: str, kind: int) -> int:
        """Number of the first type of this name and kind.

        Raises:
            KeyError: this kernel has none.
        """
        at = -1
        while (at := self._text.find(b"\0" + name.encode() + b"\0", at + 1)) >= 0:
            for number in self._types.named(at + 1):
                if self._types[number][1] == kind:
                    return number
        raise KeyError(name)

    def enums(self, word: str) -> dict[str, dict[str, int]]:
        """Values by name of every enum whose own name contains `word`."""
        found: dict[str, dict[str, int]] = {}
        for name_at, kind, elements, position in self._types:
            if kind == KIND_ENUM and name_at and word in (name := self._name(name_at)):
                pairs = (struct.unpack_from("<Ii", self._blob, position + 8 * i) for i in range(elements))
                found[name] = {self._name(at): value for at, value in pairs}
        return found

    def arguments(self, tracepoint: str) -> int:
        """How many arguments a raw tracepoint hands over.

        Raises:
            KeyError: this kernel has no such tracepoint.
        """
        wanted = f"btf_trace_{tracepoint}"
        for name_at, kind, _, position in self._types:
            if kind == KIND_TYPEDEF and self._name(name_at) == wanted:
                (pointer,) = struct.unpack_from("<I", self._blob, position - 4)
                (prototype,) = struct.unpack_from("<I", self._blob, self._types[pointer][3] - 4)
                if (self._types[pointer][1], self._types[prototype][1]) == (KIND_POINTER, KIND_PROTOTYPE):
                    return int(self._types[prototype][2]) - 1  # the first one is the tracepoint's own
        raise KeyError(tracepoint)

    def _place(self, type_id: int, path: str) -> int | None:
        """Bit offset of a member or, by `a.b`, of a member of a member."""
        bits = 0
        for member in path.split("."):
            found = self._member(type_id, member)
            if found is None:
                return None
            bits += found[0]
            type_id = found[1]
        return bits

    def _member(self, type_id: int, member: str) -> tuple[int, int] | None:
        """Bit offset and type of a member of a struct or union, None when it has none of that name."""
        _, kind, elements, position = self._types[type_id]
        while kind == KIND_TYPEDEF:
            (type_id,) = struct.unpack_from("<I", self._blob, position - 4)
            _, kind, elements, position = self._types[type_id]
        if kind not in (KIND_STRUCT, KIND_UNION):
            return None
        for index in range(elements):
            name, inner, bits = struct.unpack_from("<III", self._blob, position + 12 * index)
            bits &= 0xFFFFFF  # the upper byte is a bit-field's width where kind_flag is set
            if name and self._name(name) == member:
                return int(bits), int(inner)
            if not name:
                found = self._member(inner, member)
                if found is not None:
                    return int(bits) + found[0], found[1]
        return None


# Every kernel member that a program in bpf/ reads: the macro OFF_<struct>_<member> is its offset.
MEMBERS = (
    ("task_struct", "files"),
    ("task_struct", "group_leader"),
    ("task_struct", "real_parent"),
    ("task_struct", "pid"),
    ("task_struct", "tgid"),
    ("task_struct", "comm"),
    ("task_struct", "nsproxy"),
    ("task_struct", "mm"),
    ("task_struct", "signal"),
    ("task_struct", "exit_code"),
    ("task_struct", "start_boottime"),
    ("signal_struct", "live"),
    ("signal_struct", "group_exit_code"),
    ("nsproxy", "net_ns"),
    ("net", "ns"),
    ("ns_common", "inum"),
    ("linux_binprm", "filename"),
    ("mm_struct", "arg_start"),
    ("mm_struct", "arg_end"),
    ("files_struct", "fdt"),
    ("fdtable", "max_fds"),
    ("fdtable", "fd"),
    ("file", "f_inode"),
    ("file", "private_data"),
    ("inode", "i_mode"),
    ("inode", "i_ino"),
    ("inode", "i_sb"),
    ("super_block", "s_dev"),
    ("socket", "sk"),
    ("sock", "__sk_common"),
    ("sock_common", "skc_cookie"),
)

# What bpf/sockets.c reads of TCP sockets that are older than the recording. A kernel that lacks one of these
# does without that program.
TCP_MEMBERS = (
    ("sock", "sk_protocol"),
    ("sock_common", "skc_family"),
    ("sock_common", "skc_state"),
    ("inet_sock", "inet_sport"),
    ("sock_common", "skc_dport"),
    ("sock_common", "skc_rcv_saddr"),
    ("sock_common", "skc_daddr"),
    ("sock_common", "skc_v6_rcv_saddr"),
    ("sock_common", "skc_v6_daddr"),
    ("sock_common", "skc_net"),
    ("net", "net_cookie"),
    ("tcp_sock", "bpf_sock_ops_cb_flags"),
    ("tcp_sock", "bytes_acked"),
    ("tcp_sock", "bytes_received"),
    ("tcp_sock", "srtt_us"),
    ("tcp_sock", "total_retrans"),
    ("tcp_sock", "snd_cwnd"),
)

# What bpf/owners.c reads to learn who uses a socket without looking at system calls.
USER_MEMBERS = (
    ("sock", "sk_lock.owned"),
    ("sock_common", "skc_net"),
    ("net", "net_cookie"),
    ("task_struct", "flags"),
    ("task_struct", "cred"),
    ("cred", "uid"),
    ("task_struct", "cgroups"),
    ("css_set", "dfl_cgrp"),
    ("cgroup", "self.parent"),
    ("cgroup", "kn"),
    ("kernfs_node", "id"),
)

# What bpf/devices.c and bpf/endpoints.c read; without one of these there is no device mode.
DEVICE_MEMBERS = (
    ("sk_buff", "dev"),
    ("sk_buff", "sk"),
    ("sk_buff", "head"),
    ("sk_buff", "data"),
    ("sk_buff", "network_header"),
    ("net_device", "type"),
    ("net_device", "nd_net"),
    ("net", "net_cookie"),
    ("sock_common", "skc_net"),
)

# What bpf/tls.c reads besides: where TCP stands, and the file that is executed.
TLS_MEMBERS = (
    ("sock", "sk_protocol"),
    ("tcp_sock", "copied_seq"),
    ("tcp_sock", "write_seq"),
    ("linux_binprm", "file"),
)

# What bpf/drops.c reads besides; without one of these no dropped packets are recorded.
DROP_MEMBERS = (
    ("sk_buff", "skb_iif"),
    ("sk_buff", "protocol"),
    ("sk_buff", "len"),
    ("sk_buff", "tail"),
    ("net_device", "ifindex"),
    ("sock_common", "skc_family"),
)

# What bpf/packets.c, bpf/owners.c and bpf/sockets.c load instead of calling helpers for it.
QUICK_MEMBERS = (
    ("sk_buff", "head"),
    ("sk_buff", "sk"),
    ("sock", "sk_cgrp_data.cgroup"),
    ("cgroup", "kn"),
    ("kernfs_node", "id"),
    ("sock", "sk_lock.owned"),
    ("tcp_sock", "tcp_mstamp"),
)

# Structures whose members bpf/ loads by address (CAST_KERNEL): TYPE_<struct> is the number of each.
CAST_STRUCTS = (
    "pt_regs", "timespec64", "file", "inode", "super_block", "socket", "sock",
    "tcp_sock", "sk_buff", "cgroup", "kernfs_node",
)  # fmt: skip
CAST_FUNCTION = "bpf_rdonly_cast"

# Members of these are read at once, from the first to the end of the last, where they are near.
BLOCKS = {"file": ("f_inode", "private_data"), "inode": ("i_mode", "i_ino", "i_sb")}


def kernel_offsets(path: pathlib.Path = VMLINUX) -> dict[str, int]:
    """Offsets of `MEMBERS` as macro name -> bytes; empty when the kernel offers no BTF or lacks one of them.
    With HAVE_BTF = 1, and where the kernel has `TCP_MEMBERS`, `USER_MEMBERS`, `DEVICE_MEMBERS`,
    `TLS_MEMBERS`, `DROP_MEMBERS` or `QUICK_MEMBERS` too, these with HAVE_TCP_BTF, HAVE_USER_BTF,
    HAVE_DEVICE_BTF, HAVE_TLS_BTF, HAVE_DROP_BTF or HAVE_QUICK_BTF = 1; with DROP_HAS_REASON and
    DROP_HAS_SOCKET = 1 where the tracepoint kfree_skb has these; with the numbers of CAST_STRUCTS and
    CAST_FUNCTION, and HAVE_CAST = 1, where the kernel has that function.
    """
    try:
        btf = Btf(path.read_bytes())
        offsets = {"HAVE_BTF": 1, **_offsets(btf, MEMBERS)}
    except (OSError, KeyError, ValueError, struct.error):
        return {}
    for name, members in BLOCKS.items():
        places = [offsets[f"OFF_{name}_{member}"] for member in members]
        first = min(places) & ~7
        offsets[f"BLOCK_{name}"] = first
        offsets[f"BLOCK_{name}_BYTES"] = max(places) + 8 - first
    further = {
        "HAVE_TCP_BTF": TCP_MEMBERS,
        "HAVE_USER_BTF": USER_MEMBERS,
        "HAVE_DEVICE_BTF": DEVICE_MEMBERS,
        "HAVE_TLS_BTF": TLS_MEMBERS,
        "HAVE_DROP_BTF": DEVICE_MEMBERS + DROP_MEMBERS,
        "HAVE_QUICK_BTF": QUICK_MEMBERS,
    }
    for name, more in further.items():
        with contextlib.suppress(KeyError):
            offsets |= {**_offsets(btf, more), name: 1}
    with contextlib.suppress(KeyError):
        numbers = {f"TYPE_{name}": btf.number(name, KIND_STRUCT) for name in CAST_STRUCTS}
        offsets |= {**numbers, "CAST_FUNCTION": btf.number(CAST_FUNCTION, KIND_FUNCTION), "HAVE_CAST": 1}
    with contextlib.suppress(KeyError):
        # The reason came with 5.17, the socket that it was for with 6.11.
        arguments = btf.arguments("kfree_skb")
        offsets |= {name: 1 for name, least in _KFREE_SKB.items() if arguments >= least}
    return offsets


_KFREE_SKB = {"DROP_HAS_REASON": 3, "DROP_HAS_SOCKET": 4}
_REASON, _SUBSYSTEM, _SUBSYSTEM_SHIFT = "SKB_DROP_REASON_", "SKB_DROP_REASON_SUBSYS_", 16


def drop_reasons(path: pathlib.Path = VMLINUX) -> dict[int, str]:
    """Names of the reasons for which the running kernel drops packets, by number: NO_SOCKET, SOCKET_RCVBUFF,
    ... Reasons of a part of the kernel that has its own begin at its number << 16, which has its name. Empty
    where BTF does not tell.
    """
    try:
        enums = Btf(path.read_bytes()).enums("drop_reason")
    except (OSError, ValueError, struct.error):
        return {}
    found: dict[int, str] = {}
    for values in enums.values():
        for name, number in values.items():
            if name.startswith(_SUBSYSTEM):
                found.setdefault(number << _SUBSYSTEM_SHIFT, name.removeprefix(_SUBSYSTEM))
            elif number >= 0 and name != f"{_REASON}MAX":
                found[number] = name.removeprefix(_REASON)
    return found


def _offsets(btf: Btf, members: tuple[tuple[str, str], ...]) -> dict[str, int]:
    return {f"OFF_{name}_{member.replace('.', '_')}": btf.offset(name, member) for name, member in members}
