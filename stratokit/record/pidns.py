"""Which number the kernel programs know this process by.

They see process ids of the initial pid namespace. In a container of its own `getpid` and /proc give other
numbers, and nothing in /proc tells the outer ones. So a program of three instructions is run once, in our own
context, and says what the others will see.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import struct

from stratokit.schema import load

_PROG_LOAD, _PROG_TEST_RUN = 5, 10
_RAW_TRACEPOINT = 17
# struct bpf_insn: u8 code, u8 registers, s16 offset, s32 immediate. call bpf_get_current_pid_tgid (14);
# r0 >>= 32; exit.
_PROGRAM = b"".join(
    struct.pack("<BBhi", code, 0, 0, immediate) for code, immediate in ((0x85, 14), (0x77, 32), (0x95, 0))
)
_libc = ctypes.CDLL(None, use_errno=True)


def kernel_pid() -> int:
    """Process id of this process in the initial pid namespace; `getpid()` where the kernel refuses to say."""
    numbers = [call.number for call in load.syscalls().values() if call.name == "bpf"]
    if not numbers:
        return os.getpid()
    code, licence = ctypes.create_string_buffer(_PROGRAM), ctypes.create_string_buffer(b"GPL")
    attr = ctypes.create_string_buffer(128)
    struct.pack_into(
        "<IIQQ",
        attr,
        0,
        _RAW_TRACEPOINT,
        len(_PROGRAM) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
    )
    fd = _libc.syscall(numbers[0], _PROG_LOAD, attr, ctypes.sizeof(attr))
    if fd < 0:
        return os.getpid()
    try:
        ctypes.memset(attr, 0, ctypes.sizeof(attr))
        struct.pack_into("<I", attr, 0, fd)
        if _libc.syscall(numbers[0], _PROG_TEST_RUN, attr, ctypes.sizeof(attr)) < 0:
            return os.getpid()
        return int(struct.unpack_from("<I", attr, 4)[0])  # retval
    finally:
        os.close(fd)


def proc_agrees(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> bool:
    """True when /proc numbers processes as the kernel programs do; `pid` is what `kernel_pid` gave."""
    try:
        return os.readlink(proc / "self") == str(pid)
    except OSError:
        return False
