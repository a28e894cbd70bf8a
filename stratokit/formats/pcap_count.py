"""Counts the records of a pcap file and finds its first and last time, without numba and what it loads.

`stratokit info` on a file that walks in a fifth of a second shall not wait a second for libraries. So this
one loop is handed to LLVM as instructions, which takes milliseconds; pcap._walk is the same loop with arrays.

    at = start; while a record header and its frame lie in the window: count, compare the time, go on
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import mmap
import os
from collections.abc import Callable
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir

from stratokit.formats.pcap_header import HEADER, Header

WHOLE, MORE, BAD = 0, 1, 2
WINDOW_BYTES = 64 << 20
BILLION = 1_000_000_000
LOWEST, HIGHEST = -(2**63), 2**63 - 1
I64, I32 = ir.IntType(64), ir.IntType(32)
# What the loop takes and gives, in the order of its state words.
COUNT, FIRST, LAST, REASON, UNIT, RECORD, FRAME_MAX = range(7)


@dataclasses.dataclass(frozen=True, slots=True)
class Counted:
    """What stands in a file; `end` is where reading ended, `state` why: WHOLE, MORE (it is cut) or BAD."""

    packets: int
    first_ns: int
    last_ns: int
    end: int
    state: int


def _module(big: bool) -> str:
    """walk(address, size, at, state) -> where the next record begins."""
    module = ir.Module("count")
    walk = ir.Function(module, ir.FunctionType(I64, [I64, I64, I64, I64.as_pointer()]), "walk")
    address, size, begin, state = walk.args
    entry, head, body, fits, more, bad, leave = (
        walk.append_basic_block(name) for name in ("entry", "head", "body", "fits", "more", "bad", "leave")
    )
    build = ir.IRBuilder(entry)

    def slot(number: int) -> Any:
        return build.gep(state, [I64(number)])

    unit, record, frame_max = (build.load(slot(number)) for number in (UNIT, RECORD, FRAME_MAX))
    old = [build.load(slot(number)) for number in (COUNT, FIRST, LAST)]
    build.branch(head)

    build.position_at_end(head)
    at, count, first, last = (build.phi(I64) for _ in range(4))
    for phi, value in zip((at, count, first, last), (begin, *old), strict=True):
        phi.add_incoming(value, entry)
    data_at = build.add(at, record)
    build.cbranch(build.icmp_signed(">", data_at, size), more, body)

    build.position_at_end(body)

    def word(offset: int) -> Any:
        place = build.inttoptr(build.add(build.add(address, at), I64(offset)), I32.as_pointer())
        value = build.load(place, align=1)
        return build.zext(build.bswap(value) if big else value, I64)

    length = word(8)
    following = build.add(data_at, length)
    build.cbranch(build.icmp_signed(">", length, frame_max), bad, fits)

    build.position_at_end(fits)
    time = build.add(build.mul(word(0), I64(BILLION)), build.mul(word(4), unit))
    values = (
        following,
        build.add(count, I64(1)),
        build.select(build.icmp_signed("<", time, first), time, first),
        build.select(build.icmp_signed(">", time, last), time, last),
    )
    whole = build.icmp_signed("<=", following, size)
    build.cbranch(whole, head, more)
    for phi, value in zip((at, count, first, last), values, strict=True):
        phi.add_incoming(value, fits)

    for block in (more, bad):
        build.position_at_end(block)
        build.branch(leave)
    build.position_at_end(leave)
    reason = build.phi(I64)
    reason.add_incoming(I64(MORE), more)
    reason.add_incoming(I64(BAD), bad)
    for number, value in ((COUNT, count), (FIRST, first), (LAST, last), (REASON, reason)):
        build.store(value, slot(number))
    build.ret(at)
    return str(module)


@functools.cache
def _walk(big: bool) -> Callable[..., int]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_module(big)), machine)
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3, ctypes.POINTER(ctypes.c_int64))
    function = kind(engine.get_function_address("walk"))
    function.engine = engine  # type: ignore[attr-defined]  # or the code would go with it
    return function


def count(path: str | os.PathLike[str], header: Header) -> Counted:
    """Walk over a pcap file as it is on disk; not for files whose lengths may be swapped."""
    state = (ctypes.c_int64 * 7)(0, HIGHEST, LOWEST, MORE, header.unit_ns, header.record, header.frame_max)
    walk = _walk(header.big)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        at, window = min(HEADER, size), WINDOW_BYTES
        while at < size:
            start = at - at % mmap.ALLOCATIONGRANULARITY
            length = min(window, size - start)
            before = at
            with _mapped(file.fileno(), start, length) as address:
                at = start + walk(address, length, at - start, state)
            if state[REASON] == BAD or (at == before and start + length == size):
                break
            # A record that does not fit the window gets a larger one.
            window = WINDOW_BYTES if at > before else 2 * window
    return Counted(state[COUNT], state[FIRST], state[LAST], at, WHOLE if at == size else state[REASON])


@contextlib.contextmanager
def _mapped(descriptor: int, start: int, length: int) -> Any:
    """Address of a window of a file."""
    with mmap.mmap(descriptor, length, flags=mmap.MAP_PRIVATE, offset=start) as window:
        window.madvise(mmap.MADV_SEQUENTIAL)
        # MAP_PRIVATE lets ctypes take the address of what is only read.
        first = ctypes.c_char.from_buffer(window)
        try:
            yield ctypes.addressof(first)
        finally:
            del first
