"""Damaged and hostile scap files give rows and counted losses, never a traceback, and end."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from helpers import scap_bytes as sb

from stratokit.engine.capture import Capture
from stratokit.errors import FormatError

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


def survives(path: Path, data: bytes) -> int:
    """Rows that could be read; a file of which nothing can be read is refused with a sentence."""
    path.write_bytes(data)
    try:
        capture = Capture.open(path)
        rows = sum(
            capture.rows(kind).collect().height for kind in ("syscall", "event", "process", "container")
        )
        capture.table("http").collect()
        assert set(capture.info()["losses"]) <= set(capture.rows("loss").collect()["counter"])
    except FormatError:
        return 0
    return rows


def test_the_session_itself_is_understood(tmp_path):
    path = tmp_path / "x.scap"
    path.write_bytes(session())
    calls = Capture.open(path).rows("syscall").collect()
    opened = calls.filter(syscall="openat").row(0, named=True)
    assert (opened["fd_name"], opened["ret"], opened["comm"]) == ("/x/y/a/b", 4, "sh")
    assert calls.filter(syscall="connect")["fd_name"].to_list() == ["10.0.0.1:4000->10.0.0.2:80"]
    assert calls.filter(syscall="fcntl")["fd_name"].to_list() == ["/x/y/a/b"]
    assert calls.filter(syscall="read")["duration_ns"].to_list() == [None]
    processes = Capture.open(path).rows("process").collect()
    assert processes["event"].to_list() == ["snapshot", "fork", "exec", "exit"]
    assert processes["container_id"].to_list()[2:] == ["a" * 64] * 2


@pytest.mark.parametrize("seed", range(4))
def test_bytes_changed_at_random(tmp_path, seed):
    whole, chance = session(), random.Random(seed)
    total = 0
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3, 20))):
            at = chance.randrange(28, len(data))
            data[at] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        if chance.random() < 0.2:
            del data[chance.randrange(28, len(data)) :]
        total += survives(tmp_path / "x.scap", bytes(data))
    assert total > 100


@pytest.mark.parametrize("value", [0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
def test_every_word_replaced(tmp_path, value):
    whole = session()
    step = 52  # every 13th word: all of them would take minutes
    for at in range(28 + 4 * (value % 13), len(whole) - 4, step):
        data = bytearray(whole)
        data[at : at + 4] = struct.pack("<I", value)
        survives(tmp_path / "x.scap", bytes(data))


def test_numbers_that_cannot_be(tmp_path):
    """Descriptors, threads and sizes at the ends of their ranges."""
    events = [sb.section()]
    for n, fd in enumerate((-1, 2**31 - 1, 2**31, 2**63 - 1, -(2**63))):
        for tid in (0, -1, -5, 2**62, n):
            events.append(sb.event(0x216, 2**63, tid, 5, sb.s64(0), sb.s64(fd)))
            events.append(sb.event(0x216, 2**63 - 1, tid, 125, sb.s64(fd)))
            events.append(sb.event(0x216, 5, tid, 223, sb.s64(fd)))
            events.append(sb.event(0x216, 5, tid, 3, sb.s64(fd), sb.text("x" * 3000), sb.u32(1)))
    assert survives(tmp_path / "x.scap", b"".join(events)) >= 100


def test_unknown_events_are_counted_and_kept(tmp_path):
    path = tmp_path / "x.scap"
    good = sb.event(0x216, 1, 1, 6, sb.s64(3), sb.u32(1))
    path.write_bytes(
        sb.section() + good + sb.event(0x216, 2, 1, 6_000) + sb.event(0x216, 3, 1, 6, sb.s64(1), length=4)
    )
    capture = Capture.open(path)
    assert capture.info()["losses"] == {"scap_event_unknown": 1, "scap_event_damaged": 1}
    assert capture.rows("event").collect()["scap_exit"].null_count() == 0
