"""What a cgroup path says about containers and pods: runtimes and kubelet put their ids into it.

The path alone names no pod: it has the pod's UID, and the recorder looks for names where kubelet and the
runtimes leave them (`record.container_names`). Recorder and engine read paths alike: this stands below both.
"""

from __future__ import annotations

import re

# The last match in a path wins: nested cgroups inside a container come after it, outer ones (kind) before it.
_POD = re.compile(
    r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=[./:]|$)"
)
_CONTAINER = re.compile(r"(?:^|[-:/])([0-9a-f]{64})(?=\.scope|/|$)")
_RUNTIME = re.compile(r"(cri-containerd|crio|docker|libpod|nerdctl)[-:]")
_LXC = re.compile(r"/lxc(?:\.payload)?[./]([^/]+)")
RUNTIMES = {
    "cri-containerd": "containerd",
    "crio": "crio",
    "docker": "docker",
    "libpod": "podman",
    "nerdctl": "nerdctl",
}


def container_of(path: str) -> tuple[str | None, str | None, str | None]:
    """(container id, pod UID, runtime) that a cgroup path stands for, each None where the path does not say
    it.
    """
    kept = "/".join(part for part in path.split("/") if "conmon" not in part)
    ids = _CONTAINER.findall(kept)
    pods = _POD.findall(kept)
    runtimes = _RUNTIME.findall(kept)
    lxc = _LXC.findall(kept)
    if not ids and lxc:
        return lxc[-1], None, "lxc"
    runtime = RUNTIMES[runtimes[-1]] if runtimes else "docker" if ids and "/docker/" in path else None
    return (
        ids[-1] if ids else None,
        pods[-1].replace("_", "-") if pods else None,
        runtime if ids else None,
    )


def pod_folder(path: str) -> str | None:
    """The part of a cgroup path that holds all containers of its pod and nothing else, None without one.

    containerd's own layout under systemd has the pod and the container in one name, so there is none.
    """
    found = None
    for match in _POD.finditer(path):
        rest = path[match.end() :]
        if not rest.removeprefix(".slice") or rest.removeprefix(".slice").startswith("/"):
            found = path[: match.end()] + (".slice" if rest.startswith(".slice") else "")
    return found


def holds(folder: str, path: str) -> bool:
    """True when `path` is the cgroup `folder` or below it."""
    return folder in ("/", path) or path.startswith(f"{folder}/")
