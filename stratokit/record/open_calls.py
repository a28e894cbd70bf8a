"""System calls that have not returned when the recording ends: a program that hangs shows in nothing else.

What a thread is in stands in /proc/<pid>/task/<tid>/syscall, since when in the kernel program's table. /proc
is read before the programs are detached and the table after: a thread whose call is older than the reading,
and that was not seen to leave it until the programs went, was in that call.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import stat
import time
from typing import TYPE_CHECKING, Any

from stratokit.record import procfs
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

PROC = pathlib.Path("/proc")
# Instead of a time: it entered a call before the recording, is in none that is recorded, or nobody knows
# since when it is in one, because calls were left out (bpf/limits.c).
BEFORE_RECORDING, NOT_IN_CALL, NOT_WATCHED = 0, 1, 2
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD in field 9 of /proc/<pid>/stat


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """A thread that was in a system call at `at_ns` (CLOCK_MONOTONIC).

    `fd` is the descriptor that the call works on, -1 for none, `link` what /proc says that it is.
    """

    pid: int
    tid: int
    comm: str
    syscall: int
    args: tuple[int, ...]
    at_ns: int
    fd: int = -1
    link: str = ""
    inode: int = 0
    mode: int = 0


def waiting(proc: pathlib.Path = PROC, only: Collection[int] | None = None) -> list[Waiting]:
    """All threads, or those of the processes in `only`, that wait in a system call and that we may look
    at.
    """
    own = str(os.getpid())
    found = []
    fd_args = {
        number: kinds.index("fd")
        for number, call in load.syscalls().items()
        if "fd" in (kinds := [kind for _, kind in call.args])
    }
    for name in os.listdir(proc):
        if not name.isdigit() or name == own or (only is not None and int(name) not in only):
            continue
        try:
            if not _is_kernel_thread((proc / name / "stat").read_bytes()):
                found += list(_threads(proc / name, fd_args))
        except OSError:
            continue  # it ended, or is another user's
    return found


def _is_kernel_thread(line: bytes) -> bool:
    return bool(int(line[line.rindex(b")") + 2 :].split()[6]) & _KERNEL_THREAD)


def _threads(folder: pathlib.Path, fd_args: dict[int, int]) -> Iterator[Waiting]:
    for tid in os.listdir(folder / "task"):
        thread = folder / "task" / tid
        try:
            words = (thread / "syscall").read_text().split()
            # "running", or "-1 sp pc" for a thread that waits outside of a call.
            if len(words) != 9:
                continue
            now = time.monotonic_ns()
            comm = (thread / "comm").read_bytes().rstrip(b"\n").decode(errors="backslashreplace")
        except OSError:
            continue
        number, args = int(words[0]), tuple(int(word, 16) for word in words[1:7])
        thread_row = Waiting(int(folder.name), int(tid), comm, number, args, now)
        if number in fd_args:
            fd = args[fd_args[number]] & 0x7FFFFFFF
            thread_row = dataclasses.replace(thread_row, fd=fd, **_descriptor(folder / "fd" / str(fd)))
        yield thread_row


def _descriptor(path: pathlib.Path) -> dict[str, Any]:
    try:
        status = path.stat()
        return {"link": procfs.link(path), "inode": status.st_ino, "mode": status.st_mode}
    except OSError:
        return {}


def rows(
    threads: list[Waiting], open_since: Callable[[int], int], sockets: Callable[[], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Rows for the spool, once the programs are detached; `start_ns` is 0 for a call older than the
    recording, NOT_WATCHED where it is not known.

    `sockets` is asked for cookies by inode when a call waits for a socket.
    """
    found = []
    for thread in threads:
        start = open_since(thread.tid)
        if start != NOT_IN_CALL and start <= thread.at_ns:
            found.append(dataclasses.asdict(thread) | {"start_ns": start, "socket_cookie": 0})
    if any(stat.S_ISSOCK(row["mode"]) for row in found):
        cookies = {row["inode"]: row["socket_cookie"] for row in sockets()}
        for row in found:
            row["socket_cookie"] = cookies.get(row["inode"], 0) if stat.S_ISSOCK(row["mode"]) else 0
    return found
