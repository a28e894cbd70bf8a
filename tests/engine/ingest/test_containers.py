"""Containers of a recording, from cgroup paths and what the recorder noted."""

from types import SimpleNamespace

from stratokit.engine.ingest.containers import containers

A, B = "a" * 64, "b" * 64
UID = "11111111-2222-4333-8444-555555555555"


def noted(*rows):
    return SimpleNamespace(tables={"containers": {"rows": list(rows)}})


def row(container_id, cgroup, **names):
    blank = dict.fromkeys(("container_name", "image", "pod", "namespace", "pod_uid", "runtime"))
    return {"container_id": container_id, "cgroup": cgroup, "name_source": "path", **blank, **names}


def found(survey, *paths):
    wanted = ("cgroup", "container_id", "container_name", "pod", "namespace", "name_source")
    return {r[0]: r[1:] for r in containers(survey, list(paths)).select(wanted).iter_rows()}


def test_names_that_were_noted_last_count():
    path = f"/kubepods/pod{UID}/{A}"
    early = row(A, path, pod_uid=UID)
    late = row(A, path, pod_uid=UID, pod="p", namespace="n", container_name="c", name_source="containerd")
    assert found(noted(early, late), f"{path}/inner", "/other") == {
        path: (A, "c", "p", "n", "containerd"),
        f"{path}/inner": (A, "c", "p", "n", "containerd"),
        "/other": (None, None, None, None, None),
    }


def test_a_container_that_nobody_noted():
    """It came and went between two looks; another container of its pod tells the pod's names."""
    one, two = f"/kubepods/pod{UID}/{A}", f"/kubepods/pod{UID}/{B}"
    told = row(A, one, pod_uid=UID, pod="p", namespace="n", container_name="c", name_source="pod logs")
    assert found(noted(told), two)[two] == (B, None, "p", "n", "pod logs")
    assert found(noted(), two) == {two: (B, None, None, None, "path")}


def test_containers_with_names_instead_of_ids():
    told = row("web", "/stage/web", container_name="web", runtime="crun", name_source="crun")
    rows = found(noted(told), "/stage/web/sub", "/stage/web2")
    assert rows["/stage/web/sub"] == ("web", "web", None, None, "crun")
    assert rows["/stage/web2"] == (None, None, None, None, None)
