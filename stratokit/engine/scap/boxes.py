"""Containers on their way out: what readers of scap files are told of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.engine.frames import collect
from stratokit.engine.scap import events_out as eo
from stratokit.engine.scap.sightings import as_calls

if TYPE_CHECKING:
    from stratokit.engine.capture import Capture

# Numbers of libs for the runtimes (sinsp_container_type).
RUNTIMES = {0: "docker", 1: "lxc", 6: "cri", 7: "containerd", 8: "crio", 11: "podman"}
_NUMBERS = {name: number for number, name in RUNTIMES.items()} | {"nerdctl": 7}  # which runs containerd's
_OTHER = "docker"
# What kubelet tells the runtimes of a pod, and our columns for it.
LABELS = {
    "io.kubernetes.pod.name": "pod",
    "io.kubernetes.pod.namespace": "namespace",
    "io.kubernetes.pod.uid": "pod_uid",
}
# As many characters of an id as people see.
SHORT_ID = 12


def boxes(capture: Capture) -> pl.DataFrame:
    """Rows of `events_out`, one a container, at the time when it was first seen."""
    rows = collect(capture.rows("container").with_columns(pl.col("ts").cast(pl.Int64))).drop_nulls(
        "container_id"
    )
    told = [_described(row) for row in rows.iter_rows(named=True)]
    found = pl.DataFrame({"ts": rows["ts"], "path": pl.Series(told, dtype=pl.String)})
    return as_calls(found.with_columns(syscall=pl.lit(eo.CONTAINER), ret=pl.lit(0, pl.Int64)))


def read(text: str) -> dict[str, Any] | None:
    """The columns of kind container that the JSON of a container event tells; None where it is none."""
    try:
        found = json.loads(text)["container"]
        container_id = str(found.get("full_id") or found["id"])
        name, kind = str(found.get("name") or ""), int(found.get("type", -1))
        labels = found.get("labels") or {}
        pods = {column: labels.get(label) for label, column in LABELS.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return {
        "container_id": container_id,
        # Who knows no name writes the id.
        "container_name": None if not name or container_id.startswith(name) else name,
        "image": str(found.get("image") or "") or None,
        "runtime": RUNTIMES.get(kind),
        "name_source": "runtime",
        **{column: value if isinstance(value, str) and value else None for column, value in pods.items()},
    }


def _described(row: dict[str, Any]) -> str:
    """The JSON of a container event; sysdig 0.29.3 wants every key."""
    short = row["container_id"][:SHORT_ID]
    name = row["container_name"] or short
    image = row["image"] or ""
    labels = {label: row[name] for label, name in LABELS.items() if row[name]}
    # A colon before a slash is that of a port.
    repository, _, tag = image.rpartition(":") if ":" in image.rpartition("/")[2] else (image, "", "")
    container = {
        "id": short,
        "full_id": row["container_id"],
        "type": _NUMBERS.get(row["runtime"] or _OTHER, _NUMBERS[_OTHER]),
        "name": name,
        "image": image,
        "imageid": "",
        "imagerepo": repository,
        "imagetag": tag,
        "imagedigest": "",
        "privileged": False,
        "is_pod_sandbox": False,
        "lookup_state": 1,
        "created_time": row["ts"] // 1_000_000_000,
        "Mounts": [],
        "env": [],
        "labels": labels,
        "ip": "0.0.0.0",  # noqa: S104 - none that is known
        "port_mappings": [],
        "cni_json": "",
    }
    return json.dumps({"container": container})
