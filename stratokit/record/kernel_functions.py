"""Functions of the kernel that programs call, which bcc has no instruction for.

In C they are helpers of a number above KERNEL_FUNCTIONS; the rest of it is the function's number in BTF.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

from stratokit.record import attach

if TYPE_CHECKING:
    from collections.abc import Mapping

KERNEL_FUNCTIONS = 1 << 30
# struct bpf_insn (include/uapi/linux/bpf.h): code, source << 4 | destination, offset, immediate.
_INSTRUCTION = struct.Struct("<BBhi")
_MOVE, _CALL, _LOAD, _EXIT = 0xB7, 0x85, 0x79, 0x95
_OF_KERNEL = 2 << 4  # BPF_PSEUDO_KFUNC_CALL
_RAW_TRACEPOINT = 17  # enum bpf_prog_type


def make_calls(code: bytes, address: int) -> None:
    """Make calls of kernel functions in a compiled program, which lies at `address`."""
    for index, (what, registers, _, number) in enumerate(_INSTRUCTION.iter_unpack(code)):
        if what == _CALL and registers == 0 and number > KERNEL_FUNCTIONS:
            call = _INSTRUCTION.pack(_CALL, _OF_KERNEL, 0, number - KERNEL_FUNCTIONS)
            ctypes.memmove(address + index * len(call), call, len(call))


def casts(offsets: Mapping[str, int]) -> bool:
    """Whether the kernel lets a program load by a cast address (CAST_KERNEL of bpf/common.h). One without a
    compiler of its own (net.core.bpf_jit_enable=0) does not.
    """
    if "HAVE_CAST" not in offsets:
        return False
    program = b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in (
            (_MOVE, 1, 0, 0),
            (_MOVE, 2, 0, offsets["TYPE_timespec64"]),
            (_CALL, _OF_KERNEL, 0, offsets["CAST_FUNCTION"]),
            (_LOAD, 0, 0, 0),
            (_MOVE, 0, 0, 0),
            (_EXIT, 0, 0, 0),
        )
    )
    try:
        os.close(attach.load(program, _RAW_TRACEPOINT))
    except OSError:
        return False
    return True
