"""Damaged and hostile scap files give rows and counted losses, never a traceback, and end."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from helpers import scap_bytes as sb
from helpers.scap_session import session

from stratokit.engine.capture import Capture
from stratokit.engine.scap import follower, state
from stratokit.errors import FormatError
from stratokit.formats.scap.reader import Listed, ScapReader


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


def test_what_too_many_waiting_calls_said_is_forgotten_and_counted(tmp_path, monkeypatch):
    """Entries that have to be kept for longer than their window."""
    monkeypatch.setattr(follower, "CARRIED_MAX", 200)
    waiting = [sb.event(0x216, n, 100 + n, 6, sb.s64(3), sb.u32(n)) for n in range(10)]
    others = [sb.event(0x216, 50, 9, 9, sb.s64(1), b"y" * 3000, sb.s64(7), sb.u32(1)) for _ in range(4)]
    ends = [sb.event(0x216, 90 + n, 100 + n, 7, sb.s64(1), b"z") for n in range(10)]
    path = tmp_path / "x.scap"
    path.write_bytes(sb.section() + b"".join([*waiting, *others, *ends]))
    fds: list[int] = []
    with ScapReader(path) as reader:
        for known, found in follower.all_rows(reader.items(4096)):
            if not isinstance(found, Listed):
                fds += found.rows[: found.used[0]]["fd"].tolist()
            forgotten = int(known.known.counts[state.FORGOTTEN])
    kept = 200 // len(waiting[0])
    assert forgotten == 10 - kept > 0
    assert fds == [7] * 4 + [3] * kept + [-1] * (10 - kept)
