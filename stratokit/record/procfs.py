"""Processes and their descriptors as /proc shows them at the start of a recording."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

PROC = pathlib.Path("/proc")
_INODE_IN_NAME = re.compile(r"(?:socket|pipe):\[(\d+)\]")
# pos, flags, mnt_id and ino come before all that depends on the kind of file (fs/proc/fd.c).
_INODE_IN_INFO = re.compile(rb"^ino:\t(\d+)$", re.MULTILINE)
_FDINFO_HEAD = 256


@dataclasses.dataclass(slots=True)
class ProcSnapshot:
    """Rows for the spool, and what could not be read."""

    processes: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    # pid, fd, what it links to, inode
    descriptors: list[tuple[int, int, str, int | None]] = dataclasses.field(default_factory=list)
    gone: int = 0
    unreadable: int = 0


def start_time_ns(stat: str) -> int:
    """CLOCK_BOOTTIME start of a process from /proc/<pid>/stat, to a clock tick (proc(5), field 22)."""
    ticks = int(stat[stat.rindex(")") + 2 :].split(" ")[19])
    return ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def _cgroup(text: str) -> str:
    """Path in the version 2 hierarchy, or where that is the root, in systemd's or the first other one."""
    paths = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    unified = paths.get("", "/")
    if unified != "/":
        return unified
    for controllers in ("name=systemd", *paths):
        if paths.get(controllers, "/") != "/":
            return paths[controllers]
    return unified


def _text(path: pathlib.Path) -> str:
    return path.read_bytes().decode(errors="backslashreplace")


def link(path: pathlib.Path) -> str:
    """Where a link of /proc points to."""
    # As bytes, because a name need not be UTF-8.
    return os.readlink(os.fsencode(path)).decode(errors="backslashreplace")


def _process(folder: pathlib.Path) -> dict[str, Any]:
    stat = _text(folder / "stat")
    fields = stat[stat.rindex(")") + 2 :].split(" ")
    status = dict(line.split(":\t", 1) for line in _text(folder / "status").splitlines() if ":\t" in line)
    row: dict[str, Any] = {
        "pid": int(folder.name),
        "comm": stat[stat.index("(") + 1 : stat.rindex(")")],
        "parent_pid": int(fields[1]),
        "start_ns": start_time_ns(stat),
        "uid": int(status["Uid"].split("\t")[0]),
        "gid": int(status["Gid"].split("\t")[0]),
        "cmdline": _text(folder / "cmdline"),
        "cgroup": _cgroup(_text(folder / "cgroup")),
    }
    for name, entry in (("path", "exe"), ("cwd", "cwd")):
        try:
            row[name] = link(folder / entry)
        except OSError:
            row[name] = None  # a kernel thread, or another user's process
    try:
        row["netns_inode"] = (folder / "ns" / "net").stat().st_ino
    except OSError:
        row["netns_inode"] = None
    return row


def _inode(folder: pathlib.Path, fd: str, target: str) -> int | None:
    """Inode of an open file: the name of a socket or pipe has it, fdinfo that of the rest (Linux 5.14).

    Never by stat, which waits for a file server that does not answer.
    """
    if match := _INODE_IN_NAME.fullmatch(target):
        return int(match[1])
    with (folder / "fdinfo" / fd).open("rb", buffering=0) as info:
        found = _INODE_IN_INFO.search(info.read(_FDINFO_HEAD))
    return int(found[1]) if found else None


@dataclasses.dataclass(frozen=True, slots=True)
class Brief:
    """As much of a process as tells whether it is to be recorded."""

    pid: int
    parent_pid: int
    uid: int
    comm: str
    cgroup: str


def briefs(proc: pathlib.Path = PROC) -> dict[int, Brief]:
    """All processes by number."""
    found = {}
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        folder = proc / name
        try:
            stat = _text(folder / "stat")
            status = _text(folder / "status")
            group = _cgroup(_text(folder / "cgroup"))
        except OSError:
            continue  # it ended
        uid = next(line for line in status.splitlines() if line.startswith("Uid:")).split("\t")[1]
        parent = int(stat[stat.rindex(")") + 2 :].split(" ")[1])
        comm = stat[stat.index("(") + 1 : stat.rindex(")")]
        found[int(name)] = Brief(int(name), parent, int(uid), comm, group)
    return found


def own_cgroup(proc: pathlib.Path = PROC) -> str:
    """The cgroup of this process, which is that of the processes it starts."""
    return _cgroup(_text(proc / "self" / "cgroup"))


def folders(own: int, proc: pathlib.Path = PROC, only: Collection[int] | None = None) -> list[dict[str, Any]]:
    """Rows (pid, at_ns, cwd) of all processes but `own`, or those of `only`; null where hidden."""
    found = []
    for name in os.listdir(proc):
        if not name.isdigit() or int(name) == own or (only is not None and int(name) not in only):
            continue
        at_ns = time.monotonic_ns()
        try:
            cwd = link(proc / name / "cwd")
        except OSError:
            cwd = None
        found.append({"pid": int(name), "at_ns": at_ns, "cwd": cwd})
    return found


def snapshot(own: int, proc: pathlib.Path = PROC, only: Collection[int] | None = None) -> ProcSnapshot:
    """All processes but `own`, or those of `only`, and, where permitted, what their descriptors stand for."""
    result = ProcSnapshot()
    for name in os.listdir(proc):
        if not name.isdigit() or int(name) == own or (only is not None and int(name) not in only):
            continue
        folder = proc / name
        try:
            result.processes.append(_process(folder))
        except (OSError, ValueError, KeyError):
            result.gone += 1
            continue
        try:
            for fd in os.listdir(folder / "fd"):
                try:
                    target = link(folder / "fd" / fd)
                    result.descriptors.append((int(name), int(fd), target, _inode(folder, fd, target)))
                except OSError:
                    continue  # closed meanwhile
        except PermissionError:
            result.unreadable += 1
        except OSError:
            result.gone += 1
    return result
