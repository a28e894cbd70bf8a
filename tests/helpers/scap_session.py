"""A scap file with a little of everything."""

from __future__ import annotations

from helpers import scap_bytes as sb

TUPLE = sb.tuple4("10.0.0.1", 4000, "10.0.0.2", 80)


def session() -> bytes:
    """A little of everything that has state: threads, programs, descriptors, directories, containers."""
    out = sb.section() + sb.machine()
    out += sb.processes(9, sb.process(9, 10, 10, "sh", b"-c\0"), sb.process(9, 11, 10, "worker"))
    out += sb.fds(
        2, 10, sb.fd(2, 0, 5, 16, sb.file_info(2, "/dev/null")), sb.fd(2, 1, 6, 7, sb.sized(b"pipe:[6]"))
    )
    clone = [
        *(sb.s64(20), sb.text("sh"), b"-c\0", sb.s64(10), sb.s64(10), sb.s64(1), sb.text("/")),
        *([sb.s64(0)] * 3 + [sb.u32(0)] * 3),
        *(sb.text("sh"), b"cpu=/docker/" + b"a" * 64 + b"\0", sb.u32(0), sb.u32(0), sb.u32(0)),
        *(sb.s64(10), sb.s64(10), sb.u64(0)),
    ]
    child = [sb.s64(0), *clone[1:3], sb.s64(20), sb.s64(20), sb.s64(10), *clone[6:]]
    execve = [sb.s64(0), sb.text("ls"), b"-l\0", sb.s64(20), sb.s64(20), sb.s64(10), *clone[6:15], b"A=b\0"]
    calls: list[tuple[int, int, list[bytes]]] = [
        (10, 222, []), (10, 223, clone), (20, 223, child), (20, 292, [sb.text("/bin/ls")]), (20, 293, execve),
        (20, 94, []), (20, 95, [sb.s64(0), sb.text("../../x/./y")]),
        (20, 306, [sb.s64(-100), sb.text("a//b"), sb.u32(1), sb.u32(0)]),
        (20, 307, [sb.s64(4), sb.s64(-100), sb.text("a//b"), sb.u32(1), sb.u32(0), sb.u32(1), sb.u64(9)]),
        (20, 150, [sb.s64(4), b"\1"]), (20, 151, [sb.s64(9)]), (20, 124, [sb.s64(4)]), (20, 125, [sb.s64(5)]),
        (20, 18, [sb.u32(2), sb.u32(1), sb.u32(0)]), (20, 19, [sb.s64(6)]), (20, 22, [sb.s64(6)]),
        (20, 23, [sb.s64(0), TUPLE]), (20, 8, [sb.s64(6), sb.u32(3)]), (20, 9, [sb.s64(3), b"GET"]),
        (20, 451, [sb.s64(0), sb.u32(3), sb.u32(2**32 - 1), sb.u32(0)]), (20, 4, [sb.s64(4)]),
        (20, 5, [sb.s64(0)]),
        (20, 186, [sb.s64(0), sb.s64(0), b"\0", b"\0"]), (10, 6, [sb.s64(0), sb.u32(1)]),
    ]  # fmt: skip
    for n, (tid, type_, params) in enumerate(calls):
        out += sb.event(0x8010ABCD if n % 5 == 0 else 0x216, 1000 + n, tid, type_, *params)
    return out
