"""Which cgroups and processes a `Scope` means on this host, at the start and while recording.

The kernel programs decide about each event (bpf/scope.c). Here the chosen cgroups are found, again every half
second, because containers come and go, and processes that are there already are looked up in /proc.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re
from typing import TYPE_CHECKING

from stratokit.errors import RecordError, UsageError
from stratokit.record import cgroups, containers, procfs
from stratokit.record.container_names import NameSources
from stratokit.schema.cgroup_paths import holds

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterable

    from stratokit.record.containers import Container
    from stratokit.record.options import Scope
    from stratokit.record.procfs import Brief

INTERVAL_NS = 500_000_000
COMM_BYTES = 15
# Names that Kubernetes gives to the pods of a Deployment, DaemonSet, Job or StatefulSet NAME. It makes
# suffixes of these letters only, so that no words come out (k8s.io/apimachinery/pkg/util/rand).
_LETTERS = "[bcdfghjklmnpqrstvwxz2456789]"
_SUFFIX = re.compile(
    rf"(-{_LETTERS}{{5,10}})?-{_LETTERS}{{5}}|-\d+(-{_LETTERS}{{5}})?|-\d{{8,}}-{_LETTERS}{{5}}"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """What a scope means now: cgroup paths by id, processes that have no such cgroup, containers."""

    groups: dict[int, str]
    pids: frozenset[int]
    containers: tuple[Container, ...]


def is_pod(pod: str | None, name: str) -> bool:
    """Whether NAME of `--pod NAME` means this pod: its name, a pattern, or the workload that made it."""
    if pod is None:
        return False
    return (
        pod == name
        or fnmatch.fnmatchcase(pod, name)
        or (pod.startswith(name) and _SUFFIX.fullmatch(pod, len(name)) is not None)
    )


def _is_container(container: Container, name: str) -> bool:
    by_id = len(name) >= 4 and container.container_id.startswith(name)
    return by_id or name in (container.names.container_name, container.container_id)


def _path(given: str, mount: pathlib.Path | None) -> str:
    return "/" + given.removeprefix(str(mount or "")).strip("/")


def choose(
    scope: Scope, groups: dict[int, str], known: Iterable[Container], mount: pathlib.Path | None = None
) -> Chosen:
    """The cgroups that `scope` names, of `groups` (paths by id); those inside of another are left out."""
    paths = {path: number for number, path in groups.items()}
    wanted = {path for path in (_path(given, mount) for given in scope.cgroups) if path in paths}
    pids: set[int] = set()
    boxes = []
    for box in known:
        of_pod = any(is_pod(box.names.pod, name) for name in scope.pods) or (
            box.names.namespace in scope.namespaces
        )
        if not of_pod and not any(_is_container(box, name) for name in scope.containers):
            if any(holds(path, box.cgroup) for path in wanted):
                boxes.append(box)
            continue
        boxes.append(box)
        folder = box.pod_cgroup if of_pod else box.cgroup
        if folder in paths:
            wanted.add(folder)
        else:
            pids.update(box.pids)
    outer = {path for path in wanted if not any(holds(other, path) for other in wanted if other != path)}
    return Chosen({paths[path]: path for path in outer}, frozenset(pids), tuple(boxes))


def missing(scope: Scope, known: list[Container], sources: NameSources | None = None) -> None:
    """Refuse a scope that names what is not there.

    Raises:
        RecordError: with the names that are, or without Kubernetes with what to use instead.
    """
    of_kubernetes = [f"--pod {name}" for name in scope.pods] + [f"--namespace {n}" for n in scope.namespaces]
    if of_kubernetes and not any(box.names.pod_uid or box.names.pod for box in known):
        sources = sources or NameSources()
        if not sources.has_kubernetes():
            raise RecordError(
                "this host runs no Kubernetes pods (no kubepods cgroup, no /var/log/pods, no "
                f"/var/lib/kubelet/pods), so {of_kubernetes[0]} means nothing here; "
                "choose with --container, --cgroup, --pid or --comm instead"
            )
    pods = {f"{box.names.pod}": None for box in known if box.names.pod}
    for name in scope.pods:
        if not any(is_pod(pod, name) for pod in pods):
            raise RecordError(f"no pod of this host is called {name}{_near(name, pods)}")
    spaces = {box.names.namespace: None for box in known if box.names.namespace}
    for name in scope.namespaces:
        if name not in spaces:
            raise RecordError(f"no pod of this host is in the namespace {name}{_near(name, spaces)}")
    names = {box.names.container_name or box.container_id[:12]: None for box in known}
    for name in scope.containers:
        if not any(_is_container(box, name) for box in known):
            raise RecordError(f"no container of this host has the id or name {name}{_near(name, names)}")


def _near(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    if not known:
        return ""
    near = difflib.get_close_matches(name, known, 3, 0.4) or known[:3]
    return f"; there {'is' if len(near) == 1 else 'are'} {', '.join(near)}"


def check(scope: Scope) -> None:
    """Refuse values that can mean nothing.

    Raises:
        UsageError: which one, and why.
    """
    for comm in scope.comms:
        if not 0 < len(comm.encode()) <= COMM_BYTES:
            raise UsageError(
                f"--comm takes a name of 1 to {COMM_BYTES} bytes, as the kernel keeps it, not {comm!r}"
            )


def now(scope: Scope, groups: dict[int, str], processes: dict[int, Brief]) -> Chosen:
    """What `scope` means on this host at this moment."""
    paths = {pid: brief.cgroup for pid, brief in processes.items()}
    return choose(scope, groups, containers.containers(groups, paths), cgroups.cgroup2_root())


def first(scope: Scope) -> Chosen:
    """As `now`, at the start, when what is named has to be there.

    Raises:
        RecordError: something that `scope` names is not there, with what is.
    """
    mount = cgroups.cgroup2_root()
    groups, processes = cgroups.cgroup_ids(mount), procfs.briefs()
    if scope.by_cgroup and mount is None:
        raise RecordError("no cgroup2 file system is mounted; choose with --pid or --comm instead")
    for given in scope.cgroups:
        if _path(given, mount) not in groups.values():
            raise RecordError(f"there is no cgroup {given} below {mount}{_near(given, groups.values())}")
    for pid in scope.pids:
        if pid not in processes:
            raise RecordError(f"there is no process {pid}")
    chosen = now(scope, groups, processes)
    if scope.containers or scope.pods or scope.namespaces:
        paths = {pid: brief.cgroup for pid, brief in processes.items()}
        missing(scope, containers.containers(groups, paths))
    return chosen


def with_descendants(roots: Iterable[int], processes: dict[int, Brief]) -> set[int]:
    """Processes of `roots` and everything that they started, as far as parents tell."""
    found = {pid for pid in roots if pid in processes}
    grew = True
    while grew:
        more = {b.pid for b in processes.values() if b.parent_pid in found} - found
        grew = bool(more)
        found |= more
    return found


def members(scope: Scope, chosen: Chosen, processes: dict[int, Brief], trees: Iterable[int]) -> set[int]:
    """Processes that are in scope now; `trees` are those that the kernel programs know by number."""
    found = {pid for pid in trees if pid in processes}
    for brief in processes.values():
        if (
            brief.uid in scope.uids
            or brief.comm in scope.comms
            or any(holds(path, brief.cgroup) for path in chosen.groups.values())
        ):
            found.add(brief.pid)
    return found
