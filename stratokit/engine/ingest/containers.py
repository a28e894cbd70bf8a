"""Containers of a recording: what cgroup paths say, and the names that the recorder found for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from stratokit.schema.cgroup_paths import container_of, holds

if TYPE_CHECKING:
    from stratokit.engine.ingest.survey import Survey

_NAMED = ("container_name", "image", "pod", "namespace", "name_source")
SCHEMA = dict.fromkeys(("cgroup", "container_id", "pod_uid", "runtime", *_NAMED), pl.String)


def containers(found: Survey, paths: list[str]) -> pl.DataFrame:
    """One row for each cgroup path (SCHEMA): the container that it is or is inside of, null where it is none.

    Containers that the recorder noted are there too when nothing in `paths` is theirs.
    """
    noted: dict[str, dict[str, Any]] = {}
    for row in found.tables.get("containers", {"rows": []})["rows"]:
        noted[row["container_id"]] = row  # a later row knows more
    rows = [_row(path, noted) for path in sorted({*paths, *(row["cgroup"] for row in noted.values())})]
    return pl.DataFrame(rows, schema=SCHEMA)


def _row(path: str, noted: dict[str, dict[str, Any]]) -> dict[str, Any]:
    container_id, uid, runtime = container_of(path)
    known = noted.get(container_id) if container_id else None
    if known is None and container_id is None:
        # runc and crun give no ids: the container is the one in whose cgroup this is.
        around = [row for row in noted.values() if row["cgroup"] != "/" and holds(row["cgroup"], path)]
        known = max(around, key=lambda row: len(row["cgroup"]), default=None)
    if known is None and uid and (beside := [row for row in noted.values() if row["pod_uid"] == uid]):
        shared = {name: beside[-1][name] for name in ("pod", "namespace", "name_source")}
        known = {"container_id": container_id, **shared}
    if known is None:
        source = "path" if container_id else None
        return {
            "cgroup": path,
            "container_id": container_id,
            "pod_uid": uid,
            "runtime": runtime,
            "name_source": source,
        }
    return {
        "cgroup": path,
        "container_id": known["container_id"],
        "pod_uid": uid or known.get("pod_uid"),
        "runtime": runtime or known.get("runtime"),
        **{name: known.get(name) for name in _NAMED},
    }
