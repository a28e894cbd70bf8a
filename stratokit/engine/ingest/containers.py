"""cgroup path to container and pod, by the paths that runtimes and kubelet make; no API is asked."""

from __future__ import annotations

import re

import polars as pl

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


def containers(paths: list[str]) -> pl.DataFrame:
    """One row for each cgroup path: cgroup, container_id, pod_uid, runtime."""
    found = [(path, *container_of(path)) for path in sorted(set(paths))]
    return pl.DataFrame(
        found, schema=dict.fromkeys(("cgroup", "container_id", "pod_uid", "runtime"), pl.String), orient="row"
    )
