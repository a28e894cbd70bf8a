"""The scope of a recording that is under way: tells the kernel programs who is in it, and says who is."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from stratokit.errors import RecordError
from stratokit.record import cgroups, containers, procfs, scope
from stratokit.schema.cgroup_paths import holds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stratokit.record.loader import Kernel
    from stratokit.record.options import Scope
    from stratokit.record.procfs import ProcSnapshot

# After a cgroup came or went, names may follow: kubelet links a container's log after it has begun.
SETTLING_NS = 10_000_000_000
_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")


class Watch:
    """Who is in scope; without a scope everybody is."""

    def __init__(self, wanted: Scope) -> None:
        """Find what is chosen.

        Raises:
            RecordError: it is not there.
        """
        scope.check(wanted)
        self.chosen = scope.first(wanted) if wanted else scope.Chosen({}, frozenset(), ())
        # A container without a cgroup of version 2 is recorded as the processes that it is.
        self.scope = dataclasses.replace(wanted, pids=(*wanted.pids, *sorted(self.chosen.pids)))
        self._groups: dict[int, str] = {}
        self._settled_ns = 0

    def begin(self, kernel: Kernel, proc_agrees: bool) -> set[int] | None:
        """Tell the programs, which are attached, who is chosen; returns processes in scope, None for all.

        Raises:
            RecordError: processes are chosen by number where /proc has other numbers than the kernel.
        """
        self._groups = cgroups.cgroup_ids(cgroups.cgroup2_root())
        if not self.scope:
            return None
        roots = set(self.scope.pids)
        if not proc_agrees:
            if roots:
                raise RecordError(
                    "processes have other numbers here than the kernel gives them (a pid namespace): "
                    "choose with --comm, --uid or --cgroup, or record from the host's pid namespace"
                )
            return set()
        kernel.choose_tasks(roots)
        processes = procfs.briefs()
        trees = scope.with_descendants(roots, processes)
        # Between two looks a process of the tree may have started another before it was known.
        kernel.choose_tasks(trees)
        again = scope.with_descendants(trees, processes := procfs.briefs())
        kernel.choose_tasks(again)
        found = scope.members(self.scope, self.chosen, processes, again) - {kernel.pid}
        named = (pid for pid in found if processes[pid].comm in self.scope.comms)
        kernel.choose_named(named)
        return found

    def members(self, kernel: Kernel) -> set[int] | None:
        """Processes in scope at this moment, None for all."""
        if not self.scope:
            return None
        return scope.members(self.scope, self.chosen, procfs.briefs(), kernel.chosen_tasks()) - {kernel.pid}

    def look_again(self, kernel: Kernel, now_ns: int) -> set[int] | None:
        """Follow containers that came and went; returns processes that were there before their cgroup was
        chosen, None where nothing has changed.
        """
        groups = cgroups.cgroup_ids(cgroups.cgroup2_root())
        if groups.keys() != self._groups.keys():
            self._groups = groups
            self._settled_ns = now_ns + SETTLING_NS
        elif now_ns > self._settled_ns:
            return None
        processes = procfs.briefs()
        before = self.chosen
        self.chosen = scope.now(self.scope, groups, processes)
        kernel.change_groups(self.chosen.groups)
        new = [path for number, path in self.chosen.groups.items() if number not in before.groups]
        return {b.pid for b in processes.values() if any(holds(path, b.cgroup) for path in new)}

    def cgroup_rows(self, members: Iterable[int] | None) -> list[tuple[int, str]]:
        """(id, path) of every cgroup, or of those where something in scope runs."""
        groups = cgroups.cgroup_ids(cgroups.cgroup2_root())
        if members is None:
            return list(groups.items())
        processes = procfs.briefs()
        of_members = {processes[pid].cgroup for pid in members if pid in processes}
        if self.scope.command:
            of_members.add(procfs.own_cgroup())
        chosen = self.chosen.groups.values()
        return [(n, p) for n, p in groups.items() if p in of_members or any(holds(c, p) for c in chosen)]

    def container_rows(self, members: Iterable[int] | None) -> list[dict[str, Any]]:
        """Containers in scope, with what is known of them."""
        boxes = self.chosen.containers
        if members is None or self.scope.by_task:
            processes = procfs.briefs()
            groups = cgroups.cgroup_ids(cgroups.cgroup2_root())
            paths = {pid: brief.cgroup for pid, brief in processes.items()}
            boxes = tuple(containers.containers(groups, paths))
        if members is not None and self.scope.by_task:
            inside = {paths[pid] for pid in members if pid in paths}
            chosen = {box.container_id for box in self.chosen.containers}
            boxes = tuple(
                box
                for box in boxes
                if box.container_id in chosen or any(holds(box.cgroup, path) for path in inside)
            )
        return [box.row() for box in boxes]


def sockets_of(sockets: list[dict[str, Any]], seen: ProcSnapshot) -> list[dict[str, Any]]:
    """Of rows of sockets those that a descriptor of the snapshot stands for."""
    matches = (_SOCKET_LINK.fullmatch(link) for _, _, link, _ in seen.descriptors)
    inodes = {int(match[1]) for match in matches if match}
    return [row for row in sockets if row["inode"] in inodes]
