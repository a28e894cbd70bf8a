"""Who holds sockets at the end that came while the recording went on: for those on which nothing was sent."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_SOCKET = re.compile(rb"socket:\[(\d+)\]")


def rows(
    sockets: Iterable[dict[str, Any]],
    own: int,
    only: Collection[int] | None = None,
    proc: pathlib.Path = pathlib.Path("/proc"),
) -> list[dict[str, Any]]:
    """Rows (socket_cookie, pid, comm) of those of `sockets` that a process but `own`, or of `only`, holds.

    What parent and children share is reported for the one that got it last, as at the start.
    """
    cookies = {row["inode"]: row["socket_cookie"] for row in sockets if row["inode"]}
    holders: dict[int, tuple[int, int]] = {}
    for name in os.listdir(proc) if cookies else ():
        if not name.isdigit() or int(name) == own or (only is not None and int(name) not in only):
            continue
        for fd, inode in _sockets_of(proc / name / "fd"):
            if inode in cookies:
                holders[inode] = max(holders.get(inode, (0, 0)), (int(name), fd))
    found = []
    for inode, (pid, _) in holders.items():
        try:
            comm = (proc / str(pid) / "comm").read_bytes().rstrip(b"\n").decode(errors="backslashreplace")
        except OSError:
            continue  # it ended
        found.append({"socket_cookie": cookies[inode], "pid": pid, "comm": comm})
    return found


def _sockets_of(folder: pathlib.Path) -> list[tuple[int, int]]:
    """(descriptor, inode) of the sockets of a process; empty when it ended, or is another user's."""
    found = []
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for fd in names:
        with contextlib.suppress(OSError):  # closed meanwhile
            if match := _SOCKET.fullmatch(os.readlink(os.fsencode(folder / fd))):
                found.append((int(fd), int(match[1])))
    return found
