"""The recorder among the other processes: its priority, and the command that it started."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NICE = -15


@contextlib.contextmanager
def urgent() -> Iterator[None]:
    """Ahead of other programs where that is permitted: the ring buffer must not overflow because the host is
    busy, and a busy host is what recordings are made for.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, min(before, NICE))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def end_command(command: subprocess.Popen[bytes] | None) -> int | None:
    """Exit code of the command; one that still runs gets SIGTERM, and after five seconds SIGKILL."""
    if command is None:
        return None
    if command.poll() is None:
        command.terminate()
    try:
        return command.wait(timeout=5)
    except subprocess.TimeoutExpired:
        command.kill()
        return command.wait()
