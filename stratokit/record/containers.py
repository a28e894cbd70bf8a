"""The containers of this host: their cgroups, and their names from `container_names`."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from stratokit.record import cgroups
from stratokit.record.container_names import Names, NameSources, listing, read_json
from stratokit.schema.cgroup_paths import container_of, pod_folder

ROOT = pathlib.Path("/")


@dataclasses.dataclass(frozen=True, slots=True)
class Container:
    """A container, or a runtime's other thing with an id of its own.

    `cgroup` is its path, `cgroup_id` 0 where it has no cgroup of version 2: then `pids` are its processes.
    """

    cgroup: str
    cgroup_id: int
    container_id: str
    runtime: str | None
    names: Names
    pids: tuple[int, ...] = ()

    @property
    def pod_cgroup(self) -> str:
        """The cgroup of its whole pod, or its own where the pod has none."""
        return pod_folder(self.cgroup) or self.cgroup

    def row(self) -> dict[str, Any]:
        """For the spool."""
        return {
            "cgroup": self.cgroup,
            "cgroup_id": self.cgroup_id,
            "container_id": self.container_id,
            "container_name": self.names.container_name,
            "runtime": self.runtime,
            "image": self.names.image,
            "pod": self.names.pod,
            "namespace": self.names.namespace,
            "pod_uid": self.names.pod_uid,
            "name_source": self.names.source,
        }


def containers(
    groups: dict[int, str], processes: dict[int, str] | None = None, root: pathlib.Path = ROOT
) -> list[Container]:
    """All containers.

    Args:
        groups: cgroup paths by id, as `cgroups.cgroup_ids` gives them.
        processes: cgroup path by process, for containers that have no cgroup of version 2.
        root: where /run, /var and /proc are looked for.
    """
    sources = NameSources(root)
    by_path = {path: number for number, path in groups.items()}
    pids: dict[str, list[int]] = {}
    for pid, path in (processes or {}).items():
        if path not in by_path:
            pids.setdefault(path, []).append(pid)
    found: dict[str, Container] = {}
    # The shortest path with an id is the container's; cgroups that it makes inside are longer.
    for path in sorted([*by_path, *pids], key=len):
        container_id, uid, runtime = container_of(path)
        if container_id is None or container_id in found:
            continue
        names = sources.names(container_id, uid)
        found[container_id] = Container(
            path, by_path.get(path, 0), container_id, runtime, names, tuple(pids.get(path, ()))
        )
    states = {c.cgroup: c for c in _low_level(by_path, root)}
    known = {container.cgroup for container in found.values()}
    return [*found.values(), *(c for path, c in states.items() if path not in known)]


def _low_level(by_path: dict[str, int], root: pathlib.Path) -> list[Container]:
    """Containers that somebody started with runc or crun, under a name of their own."""
    found = []
    for runtime, place, file in (("crun", "run/crun", "status"), ("runc", "run/runc", "state.json")):
        for path in listing(root / place, f"*/{file}"):
            state = read_json(path)
            paths = state.get("cgroup_paths")
            group = state.get("cgroup-path") or (paths.get("") if isinstance(paths, dict) else None)
            if not isinstance(group, str) or not group:
                continue
            mount = str(cgroups.cgroup2_root() or "")
            group = "/" + group.removeprefix(mount).strip("/")
            if group in by_path and group != "/":
                name = path.parent.name
                names = Names(container_name=name, source=runtime)
                found.append(Container(group, by_path[group], name, runtime, names))
    return found
