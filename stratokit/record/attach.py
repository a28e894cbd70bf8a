"""Attaching kernel programs where bcc does not: several to one tracepoint, and to functions of files.

Uprobes go through perf_event_open and the kernel's own unit for them, so neither tracefs nor kprobes are
needed; like everything else they end with their descriptor.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pathlib
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from stratokit.schema.load import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable

_UPROBE = pathlib.Path("/sys/bus/event_source/devices/uprobe")
_BPF_PROG_LOAD, _BPF_RAW_TRACEPOINT_OPEN, _BPF_LINK_CREATE = 5, 17, 28
_ATTR_BYTES = 112
_PERF_FLAG_FD_CLOEXEC = 8
_SET_BPF, _ENABLE = 0x40042408, 0x2400  # PERF_EVENT_IOC_* (include/uapi/linux/perf_event.h)
_CLOSING_THREADS = 32
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: object) -> int:
    number = next(call.number for call in syscalls().values() if call.name == name)
    fd = _libc.syscall(number, *args)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(fd)


def load(program: bytes, program_type: int) -> int:
    """Load instructions as a program; returns the descriptor that holds it.

    Raises:
        OSError: the kernel refuses.
    """
    text, license_ = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"GPL")
    head = (program_type, len(program) // 8, ctypes.addressof(text), ctypes.addressof(license_))
    attr = ctypes.create_string_buffer(struct.pack("<IIQQ", *head), 128)
    return _call("bpf", _BPF_PROG_LOAD, attr, ctypes.sizeof(attr))


def raw_tracepoint(program_fd: int, name: str) -> int:
    """Attach a program to a tracepoint; returns the descriptor that holds it.

    Raises:
        OSError: the kernel refuses.
    """
    text = ctypes.create_string_buffer(name.encode())
    attr = ctypes.create_string_buffer(struct.pack("<QI", ctypes.addressof(text), program_fd), 64)
    return _call("bpf", _BPF_RAW_TRACEPOINT_OPEN, attr, ctypes.sizeof(attr))


def cgroup(program_fd: int, cgroup_fd: int, attach_type: int) -> int:
    """Attach a program to a cgroup; returns the descriptor that holds it. Unlike BPF_PROG_ATTACH it ends with
    the last descriptor, so also when the recorder is killed.

    Raises:
        OSError: the kernel refuses.
    """
    attr = ctypes.create_string_buffer(struct.pack("<IIII", program_fd, cgroup_fd, attach_type, 0), 64)
    return _call("bpf", _BPF_LINK_CREATE, attr, ctypes.sizeof(attr))


def uprobe(program_fd: int, path: str, offset: int, *, at_return: bool) -> int:
    """Attach a program to a function of a file, in all processes that have it or will.

    Returns the descriptor that holds it.

    Raises:
        OSError: the kernel refuses, or has no uprobes.
    """
    kind = int((_UPROBE / "type").read_text())
    text = ctypes.create_string_buffer(os.fsencode(path))
    # struct perf_event_attr: type, size, config, period, sample and read formats, flags, wakeup, breakpoint,
    # then the path and the offset in the file.
    head = struct.pack(
        "<IIQQQQQIIQQ", kind, _ATTR_BYTES, int(at_return), 0, 0, 0, 0, 0, 0, ctypes.addressof(text), offset
    )
    attr = ctypes.create_string_buffer(head, _ATTR_BYTES)
    fd = _call("perf_event_open", attr, -1, 0, -1, _PERF_FLAG_FD_CLOEXEC)
    try:
        fcntl.ioctl(fd, _SET_BPF, program_fd)
        fcntl.ioctl(fd, _ENABLE, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def close_all(descriptors: Iterable[int]) -> None:
    """Let go of all; the kernel waits for running programs at each: all at once wait as long as one."""
    with ThreadPoolExecutor(_CLOSING_THREADS) as pool:
        list(pool.map(os.close, descriptors))
