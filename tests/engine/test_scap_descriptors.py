"""What a descriptor stands for after the calls that make, copy, mark and close it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import scap_bytes as sb

from stratokit.engine.capture import Capture

CLOEXEC_PPM, SOCK_CLOEXEC, TMPFILE_PPM, DIRECTORY_PPM = 0x1000, 0o2000000, 0x2000, 0x400
EXECVE, READ = 293, 7


def opened(fd: int, name: str, flags: int) -> tuple[int, list[bytes]]:
    """openat has returned."""
    return 307, [sb.s64(fd), sb.s64(-100), sb.text(name), sb.u32(1 | flags), sb.u32(0), sb.u32(1), sb.u64(9)]


def read(fd: int) -> tuple[int, list[bytes]]:
    return READ, [sb.s64(1), b"x", sb.s64(fd), sb.u32(1)]


def execve() -> tuple[int, list[bytes]]:
    ids = [sb.s64(10), sb.s64(10), sb.s64(1)]
    numbers = [sb.s64(0)] * 3 + [sb.u32(0)] * 3
    return EXECVE, [sb.s64(0), sb.text("ls"), b"-l\0", *ids, sb.text("/"), *numbers, sb.text("ls"), b"", b""]


def names(tmp_path: Path, *calls: tuple[int, list[bytes]]) -> list[str | None]:
    """Kinds and names of the descriptors that were read."""
    events = [sb.event(0x216, 1000 + n, 10, type_, *params) for n, (type_, params) in enumerate(calls)]
    path = tmp_path / "a.scap"
    path.write_bytes(sb.section() + sb.processes(9, sb.process(9, 10, 10, "sh")) + b"".join(events))
    rows = Capture.open(path).rows("syscall").collect().filter(syscall="read")
    return [name or kind for kind, name in rows.select("fd_kind", "fd_name").rows()]


@pytest.mark.parametrize(
    "made",
    [
        (18 + 1, [sb.s64(7), sb.u32(2), sb.u32(1 | SOCK_CLOEXEC), sb.u32(0)]),
        (393, [sb.s64(0), sb.s64(7), sb.s64(8), sb.u64(5), sb.u32(CLOEXEC_PPM)]),
        (43, [sb.s64(0), sb.s64(7), sb.s64(8), sb.u64(5), sb.u64(6), sb.u32(1), sb.u32(1 | SOCK_CLOEXEC)]),
        (389, [sb.s64(7), b"", b"\0", sb.u32(0), sb.u32(0), sb.u32(SOCK_CLOEXEC)]),
        (397, [sb.s64(7), (CLOEXEC_PPM).to_bytes(2, "little"), sb.u64(0)]),
        (405, [sb.s64(7), sb.text("m"), sb.u32(1)]),
        (409, [sb.s64(7), sb.s64(10), sb.u32(0)]),
        (365, [sb.s64(7), sb.s64(3), sb.s64(7), sb.u32(CLOEXEC_PPM)]),
        (151, [sb.s64(7), sb.s64(3), b"\x1a"]),
        opened(7, "/b", CLOEXEC_PPM),
    ],
    ids=lambda call: str(call[0]),
)
def test_a_program_does_not_get_what_is_closed_on_exec(tmp_path, made):
    before, after, kept = names(tmp_path, opened(3, "/a", 0), made, read(7), execve(), read(7), read(3))
    assert before is not None
    assert after is None
    assert kept == "/a"


@pytest.mark.parametrize(
    "made",
    [
        (363, [sb.s64(7), sb.s64(3), sb.s64(7)]),  # dup2 of one that is closed
        (451, [sb.s64(0), sb.u32(50), sb.u32(60), sb.u32(4)]),
        (151, [sb.s64(0), sb.s64(7), b"\3", sb.u64(0)]),  # no longer to be closed
    ],
    ids=lambda call: str(call[0]),
)
def test_a_program_gets_what_is_not_closed_on_exec(tmp_path, made):
    calls = [opened(3, "/a", CLOEXEC_PPM), opened(7, "/b", CLOEXEC_PPM), made, execve(), read(7), read(3)]
    copy, first = names(tmp_path, *calls)
    assert first is None
    assert copy == {363: "/a", 451: None, 151: "/b"}[made[0]]


def test_a_range_may_be_closed_later(tmp_path):
    later = (451, [sb.s64(0), sb.u32(3), sb.u32(60), sb.u32(4)])
    assert names(tmp_path, opened(3, "/a", 0), later, read(3), execve(), read(3)) == ["/a", None]


def test_a_file_without_a_name_is_no_directory(tmp_path):
    kinds = [opened(3, "/tmp", TMPFILE_PPM | DIRECTORY_PPM), opened(4, "/tmp", DIRECTORY_PPM)]
    path = tmp_path / "a.scap"
    events = [sb.event(0x216, 1000 + n, 10, type_, *params) for n, (type_, params) in enumerate(kinds)]
    path.write_bytes(sb.section() + b"".join(events))
    assert Capture.open(path).rows("syscall").collect()["fd_kind"].to_list() == ["file", "directory"]


def test_many_names_are_kept_apart(tmp_path):
    """More than are remembered, and each from two directories."""
    calls = []
    for n in range(9000):
        calls += [opened(3, f"/d{n % 2}/" + "x" * (n % 23) + f"{n}", 0), read(3)]
    found = names(tmp_path, *calls, *calls)
    assert found[:9000] == found[9000:] == [f"/d{n % 2}/" + "x" * (n % 23) + f"{n}" for n in range(9000)]


def test_both_ends_of_a_pipe_are_told_and_go_by_its_name(tmp_path):
    made = [sb.s64(0), sb.s64(7), sb.s64(8), sb.u64(5), sb.u32(0)]
    failed = [sb.s64(-24), sb.s64(-1), sb.s64(-1), sb.u64(0), sb.u32(0)]
    assert names(tmp_path, (393, made), (393, failed), read(7), read(8)) == ["pipe:[5]"] * 2
    calls = Capture.open(tmp_path / "a.scap").table("syscalls").collect().filter(syscall="pipe2")
    assert calls.select("fd", "fd2", "fd_name", "ret").rows() == [
        (7, 8, "pipe:[5]", 0),
        (None, None, None, -24),
    ]
    assert calls["args"][0].startswith("fds=[7, 8], ")
