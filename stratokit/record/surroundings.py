"""What there is on the host when rows begin, and what is new later: the tables of a spool."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from stratokit.record import held, netns, open_calls, pidns, procfs
from stratokit.record.symbols import DropNames, Kallsyms
from stratokit.record.watch import sockets_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from stratokit.record.loader import Kernel
    from stratokit.record.open_calls import Waiting
    from stratokit.record.watch import Watch


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """Tables (name, time in CLOCK_MONOTONIC, rows), and what could not be looked at, by counter."""

    tables: list[tuple[str, int, list[Any]]]
    counts: dict[str, int]


class Surroundings:
    """Looks at the host for a recording; `put` writes a table (name, time, rows) into its spool."""

    def __init__(self, watch: Watch, kernel: Kernel, put: Callable[[str, int, list[Any]], None]) -> None:
        self._watch = watch
        self._kernel = kernel
        self._put = put
        self._proc_agrees = pidns.proc_agrees(kernel.pid)
        self._known_groups: set[tuple[int, str]] = set()
        self._known_interfaces: list[dict[str, Any]] = []
        self._known_boxes: list[dict[str, Any]] = []
        self._known_sockets: set[int] = set()
        self._drop_names = DropNames(Kallsyms())

    def begin(self, first: Callable[[set[int] | None], None]) -> dict[str, int]:
        """Tell the programs, which are attached, who is chosen, and note what there is; returns counts.

        `first` is called with the chosen processes, None for all, before anything is noted.

        Raises:
            RecordError: processes are chosen by number where /proc has other numbers than the kernel.
        """
        members = self._watch.begin(self._kernel, self._proc_agrees)
        first(members)
        look = self.look(members)
        for table in look.tables:
            self._put(*table)
        self.known(look)
        return look.counts

    def members(self) -> set[int] | None:
        """Processes in scope now, None for all."""
        return self._watch.members(self._kernel)

    def look(self, members: set[int] | None) -> Look:
        """All that a spool has to begin with. Changes nothing, so a thread may do it beside the recording."""
        tables: list[tuple[str, int, list[Any]]] = []

        def add(name: str, rows: list[Any]) -> None:
            tables.append((name, time.monotonic_ns(), rows))

        seen = procfs.ProcSnapshot()
        if self._proc_agrees:
            seen = self._processes(members)
            add("processes", seen.processes)
            add("descriptors", seen.descriptors)
        networks = netns.snapshot()
        add("sockets", self._sockets(networks.sockets, seen))
        add("interfaces", networks.interfaces)
        if boxes := self._watch.container_rows(members):
            add("containers", boxes)
        add("cgroups", self._watch.cgroup_rows(members))
        counts = {
            "process_gone": seen.gone,
            "process_unreadable": seen.unreadable,
            "namespace_unreadable": networks.unreadable,
            "proc_foreign": int(not self._proc_agrees),
        }
        return Look(tables, counts)

    def known(self, look: Look) -> None:
        """A spool has this: only what is new is noted from now on."""
        self._kernel.name_endpoints_again()
        self._drop_names.forget()
        for name, _, rows in look.tables:
            if name == "interfaces":
                self._known_interfaces = list(rows)
            elif name == "sockets":
                # Not those that wait to be accepted, which have no inode yet.
                self._known_sockets = {row["socket_cookie"] for row in rows if row["inode"]}
            elif name == "containers":
                self._known_boxes = list(rows)
            elif name == "cgroups":
                self._known_groups = set(rows)

    def follow(self, now_ns: int) -> set[int] | None:
        """Containers come and go: attach to those that are chosen, and note who was in them already.

        Returns these processes.
        """
        newcomers = self._watch.look_again(self._kernel, now_ns)
        if newcomers is None:
            return None
        if newcomers:
            seen = self._processes(newcomers)
            self._table("processes", [row | {"at_ns": now_ns} for row in seen.processes])
            self._table("descriptors", seen.descriptors)
            self._table("sockets", self._sockets(netns.snapshot().sockets, seen))
        self.groups(self.members())
        return newcomers

    def groups(self, members: set[int] | None) -> None:
        """Note containers and cgroups that are not noted yet."""
        boxes = [row for row in self._watch.container_rows(members) if row not in self._known_boxes]
        if boxes:
            self._known_boxes += boxes
            self._table("containers", boxes)
        if new := [row for row in self._watch.cgroup_rows(members) if row not in self._known_groups]:
            self._known_groups.update(new)
            self._table("cgroups", new)

    def interfaces(self) -> None:
        """Note those that are new or have changed."""
        self.note_interfaces(netns.snapshot(with_sockets=False).interfaces)

    def note_interfaces(self, rows: list[dict[str, Any]]) -> None:
        """Note those of these that are not noted yet."""
        if new := [row for row in rows if row not in self._known_interfaces]:
            self._known_interfaces += new
            self._table("interfaces", new)

    def folders(self) -> None:
        """System calls were not watched: note in which directories processes are now."""
        if self._proc_agrees:
            self._table("folders", procfs.folders(self._kernel.pid, only=self.members()))

    def drops(self) -> dict[str, int]:
        """Note what the places are called where packets were dropped or sent again; returns counts."""
        for name, rows in self._drop_names.new(*self._kernel.kernel_places(self._drop_names.stacks)):
            self._table(name, rows)
        return self._drop_names.counts()

    def waiting(self, members: set[int] | None) -> list[Waiting]:
        """Threads that are in a system call."""
        return open_calls.waiting(only=members) if self._proc_agrees else []

    def open_calls(self, waiting: list[Waiting]) -> None:
        """Note which of `waiting` are in the same call still. What came before has been drained."""
        rows = open_calls.rows(waiting, self._kernel.open_since, lambda: netns.snapshot().sockets)
        self._table("open_calls", rows)

    def holders(self, members: set[int] | None) -> None:
        """Where system calls do not tell, note who has the sockets that are new."""
        if not self._kernel.learns_users or not self._proc_agrees:
            return
        new = [row for row in netns.snapshot().sockets if row["socket_cookie"] not in self._known_sockets]
        if rows := held.rows(new, self._kernel.pid, members):
            self._table("holders", rows)

    def _processes(self, only: set[int] | None) -> procfs.ProcSnapshot:
        seen = procfs.snapshot(self._kernel.pid, only=only)
        if child := self._kernel.own_child_pid():
            seen.processes = [row for row in seen.processes if row["pid"] != child]
            seen.descriptors = [row for row in seen.descriptors if row[0] != child]
        return seen

    def _sockets(self, rows: list[dict[str, Any]], seen: procfs.ProcSnapshot) -> list[dict[str, Any]]:
        """Of a scope those that its processes hold."""
        if self._watch.scope:
            rows = sockets_of(rows, seen)
            self._kernel.choose_sockets(row["socket_cookie"] for row in rows)
        return rows

    def _table(self, name: str, rows: list[Any]) -> None:
        self._put(name, time.monotonic_ns(), rows)
