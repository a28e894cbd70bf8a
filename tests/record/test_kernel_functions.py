"""Calls of kernel functions, which bcc compiles as calls of helpers with impossible numbers."""

import ctypes
import struct

from stratokit.record import attach, kernel_functions
from stratokit.record.kernel_functions import KERNEL_FUNCTIONS

MOVE = struct.pack("<BBhi", 0xB7, 1, 0, KERNEL_FUNCTIONS + 7)
HELPER = struct.pack("<BBhi", 0x85, 0, 0, 14)
OWN = struct.pack("<BBhi", 0x85, 0x10, 0, KERNEL_FUNCTIONS + 7)
MARKED = struct.pack("<BBhi", 0x85, 0, 0, KERNEL_FUNCTIONS + 7)


def test_marked_calls_and_nothing_else_become_calls_of_the_kernel():
    code = MOVE + HELPER + MARKED + OWN + MARKED
    buffer = ctypes.create_string_buffer(code, len(code))
    kernel_functions.make_calls(code, ctypes.addressof(buffer))
    made = struct.pack("<BBhi", 0x85, 0x20, 0, 7)
    assert buffer.raw == MOVE + HELPER + made + OWN + made


def test_a_kernel_that_refuses_the_cast_does_without(monkeypatch):
    offsets = {"HAVE_CAST": 1, "TYPE_timespec64": 3, "CAST_FUNCTION": 5}
    asked = []

    def refused(program, kind):
        asked.append((program, kind))
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(attach, "load", refused)
    assert not kernel_functions.casts({})
    assert not asked
    assert not kernel_functions.casts(offsets)
    [(program, kind)] = asked
    assert (len(program) % 8, kind) == (0, 17)
    assert struct.pack("<BBhi", 0x85, 0x20, 0, 5) in program
