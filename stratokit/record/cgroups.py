"""Control groups: where cgroup2 is mounted, and which path an id stands for."""

from __future__ import annotations

import os
import pathlib

MOUNTS = pathlib.Path("/proc/mounts")


def cgroup2_root(mounts: pathlib.Path = MOUNTS) -> pathlib.Path | None:
    """Mount point of cgroup2 (/sys/fs/cgroup, or /sys/fs/cgroup/unified on hybrid hosts), None without
    one.
    """
    try:
        for line in mounts.read_text().splitlines():
            _, place, kind = line.split(" ")[:3]
            if kind == "cgroup2":
                return pathlib.Path(place.encode().decode("unicode_escape"))
    except OSError:
        pass
    return None


def cgroup_ids(root: pathlib.Path | None) -> dict[int, str]:
    """Path below the root of every cgroup by id; the id is the inode of its directory."""
    if root is None:
        return {}
    found = {root.stat().st_ino: "/"}
    for folder, names, _ in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            try:
                found[os.stat(path).st_ino] = os.fsencode(path)[len(os.fsencode(root)) :].decode(
                    errors="backslashreplace"
                )
            except OSError:
                continue
    return found
