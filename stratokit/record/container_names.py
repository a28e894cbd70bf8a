"""Names of containers and pods, from what kubelet and the runtimes leave on disk; no API server is asked.

containerd      /run/containerd/io.containerd.runtime.v2.task/<ns>/<id>/config.json: annotations
docker          /var/lib/docker/containers/<id>/config.v2.json: name, image, labels of Kubernetes
crio, podman    .../containers/storage/overlay-containers/<id>/userdata/config.json: annotations
podman          /var/lib/containers/storage/overlay-containers/containers.json: names by id
container logs  /var/log/containers/<pod>_<namespace>_<container>-<id>.log: by container id
pod logs        /var/log/pods/<namespace>_<pod>_<uid>/<container>/: by pod UID
kubelet         /var/lib/kubelet/pods/<uid>/: etc-hosts, volumes/kubernetes.io~projected/*/namespace
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

MOST_BYTES = 4 << 20  # of a state file; a larger one is none that a runtime wrote
_LOG = re.compile(r"([^_]+)_([^_]+)_(.+)-([0-9a-f]{64})\.log")
_CONTAINERD = (
    "run/containerd/io.containerd.runtime.v2.task",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
)
_STORAGE = (
    "run/containers/storage/overlay-containers",
    "var/lib/containers/storage/overlay-containers",
    "var/run/containers/storage/overlay-containers",
)
# Keys of annotations and labels, those of containerd's CRI, of CRI-O and docker, and of nerdctl.
_KEYS = {
    "pod": ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"),
    "namespace": ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"),
    "pod_uid": ("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"),
    "container_name": (
        "io.kubernetes.cri.container-name",
        "io.kubernetes.container.name",
        "nerdctl/name",
        "io.container.manager.name",
    ),
    "image": (
        "io.kubernetes.cri.image-name",
        "io.kubernetes.cri-o.ImageName",
        "io.kubernetes.cri-o.Image",
        "org.opencontainers.image.ref.name",
    ),
}
NAMES = ("container_name", "pod", "namespace", "pod_uid", "image")


@dataclasses.dataclass(slots=True)
class Names:
    """What is known of a container; `source` says from where, "path" when only the cgroup path was."""

    container_name: str | None = None
    pod: str | None = None
    namespace: str | None = None
    pod_uid: str | None = None
    image: str | None = None
    source: str = "path"

    def add(self, source: str, found: dict[str, str]) -> None:
        """Take what is not known yet."""
        new = {name: value for name, value in found.items() if value and getattr(self, name) is None}
        for name, value in new.items():
            setattr(self, name, value)
        if new.keys() - {"pod_uid"}:
            self.source = source if self.source == "path" else f"{self.source}, {source}"


class NameSources:
    """Looks into the folders below `root`; listings are read once, so make a new one for a new look."""

    def __init__(self, root: pathlib.Path = pathlib.Path("/")) -> None:
        self._root = root
        self._logs = dict(self._container_logs())
        self._pods = dict(self._pod_logs())
        self._storage_names = self._podman_names()

    def has_kubernetes(self) -> bool:
        """True where kubelet has left something."""
        return any((self._root / place).is_dir() for place in ("var/log/pods", "var/lib/kubelet/pods"))

    def names(self, container_id: str | None, pod_uid: str | None) -> Names:
        """Everything that the sources know of a container, the most exact first."""
        found = Names(pod_uid=pod_uid)
        if container_id:
            for source, facts in self._runtimes(container_id):
                found.add(source, facts)
            found.add("container logs", self._logs.get(container_id, {}))
        if uid := found.pod_uid:
            found.add("pod logs", self._pods.get(uid, {}))
            found.add("kubelet", self._kubelet(uid))
        return found

    def _runtimes(self, container_id: str) -> Iterator[tuple[str, dict[str, str]]]:
        for place in _CONTAINERD:
            for path in listing(self._root / place, f"*/{container_id}/config.json"):
                yield "containerd", _annotated(read_json(path).get("annotations"))
        docker = read_json(self._root / "var/lib/docker/containers" / container_id / "config.v2.json")
        if docker:
            yield "docker", _docker(docker)
        for place in _STORAGE:
            state = read_json(self._root / place / container_id / "userdata" / "config.json")
            if state:
                facts = _annotated(state.get("annotations"))
                yield ("crio" if "pod" in facts else "podman"), facts
        if container_id in self._storage_names:
            yield "podman", {"container_name": self._storage_names[container_id]}

    def _container_logs(self) -> Iterator[tuple[str, dict[str, str]]]:
        for path in listing(self._root / "var/log/containers", "*.log"):
            if match := _LOG.fullmatch(path.name):
                pod, namespace, container, container_id = match.groups()
                yield container_id, {"pod": pod, "namespace": namespace, "container_name": container}

    def _pod_logs(self) -> Iterator[tuple[str, dict[str, str]]]:
        for path in listing(self._root / "var/log/pods", "*_*_*"):
            parts = path.name.split("_")  # no name of Kubernetes holds one
            if len(parts) == 3:
                yield parts[2], {"namespace": parts[0], "pod": parts[1]}

    def _kubelet(self, uid: str) -> dict[str, str]:
        folder = self._root / "var/lib/kubelet/pods" / uid
        found = {}
        # Written by kubelet: the last line is the pod's own address and host name, which is its name unless
        # the pod sets another or has the host's network.
        lines = [
            line.split() for line in _text(folder / "etc-hosts").splitlines() if line[:1] not in ("", "#")
        ]
        if (
            lines
            and len(lines[-1]) >= 2
            and "localhost" not in lines[-1][1]
            and not lines[-1][1].startswith("ip6-")
        ):
            found["pod"] = lines[-1][-1]
        for path in listing(folder / "volumes/kubernetes.io~projected", "*/namespace"):
            found["namespace"] = _text(path).strip()
        return found

    def _podman_names(self) -> dict[str, str]:
        found = {}
        listed = _load(self._root / "var/lib/containers/storage/overlay-containers/containers.json")
        for row in listed if isinstance(listed, list) else []:
            if isinstance(row, dict) and isinstance(row.get("names"), list) and row["names"]:
                found[str(row.get("id"))] = str(row["names"][0])
        return found


def _annotated(annotations: Any) -> dict[str, str]:
    if not isinstance(annotations, dict):
        return {}
    found = {}
    for name, keys in _KEYS.items():
        value = next((annotations[key] for key in keys if isinstance(annotations.get(key), str)), "")
        if value:
            found[name] = value
    return found


def _docker(state: dict[str, Any]) -> dict[str, str]:
    config = state.get("Config")
    config = config if isinstance(config, dict) else {}
    found = _annotated(config.get("Labels"))
    found.setdefault("container_name", str(state.get("Name") or "").removeprefix("/"))
    found.setdefault("image", str(config.get("Image") or ""))
    return found


def listing(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    """What matches in a folder; nothing where it cannot be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _text(path: pathlib.Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError:
        return ""
    return content.decode(errors="replace") if len(content) <= MOST_BYTES else ""


def _load(path: pathlib.Path) -> Any:
    try:
        return json.loads(_text(path) or "null")
    except (ValueError, RecursionError):
        return None


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file, empty where there is none that can be read."""
    value = _load(path)
    return value if isinstance(value, dict) else {}
