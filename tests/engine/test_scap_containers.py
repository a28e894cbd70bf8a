"""Containers in scap files: what sysdig shows of them, and what comes back."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from helpers import scap_bytes as sb
from helpers import sysdig

from stratokit.engine import convert
from stratokit.engine.capture import Capture
from stratokit.engine.scap import boxes

ID = "0123456789ab" + "c" * 52


def told(container: dict) -> dict | None:
    return boxes.read(json.dumps({"container": container}))


def test_the_labels_of_kubelet_name_the_pod():
    labels = {"io.kubernetes.pod.name": "web-1", "io.kubernetes.pod.namespace": "shop", "other": 1}
    found = told(
        {"id": ID[:12], "full_id": ID, "type": 7, "name": "nginx", "image": "nginx:1", "labels": labels}
    )
    assert found == {
        "container_id": ID, "container_name": "nginx", "image": "nginx:1", "runtime": "containerd",
        "name_source": "runtime", "pod": "web-1", "namespace": "shop", "pod_uid": None,
    }  # fmt: skip


def test_the_beginning_of_an_id_is_no_name():
    found = told({"id": ID[:12], "full_id": ID, "type": 0, "name": ID[:12], "image": ""})
    assert (found["container_name"], found["image"], found["pod"]) == (None, None, None)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"container":1}', '{"container":{}}', '{"container":{"id":1,"labels":[1]}}']
)
def test_what_describes_no_container_is_passed_over(text):
    assert boxes.read(text) is None


def in_pod(tmp_path: Path) -> Path:
    """A capture with a container in a pod."""
    labels = {"io.kubernetes.pod.name": "web-1", "io.kubernetes.pod.namespace": "shop"}
    container = {"id": ID[:12], "full_id": ID, "type": 0, "name": "nginx", "image": "reg:5000/nginx:1"}
    text = json.dumps({"container": container | {"labels": labels}})
    process = sb.process(9, 10, 10, "sh", cgroups=f"cgroup=/docker/{ID}\0".encode())
    path = tmp_path / "a.scap"
    path.write_bytes(
        sb.section() + sb.machine() + sb.processes(9, process)
        + sb.event(0x221, 900, -1, 324, sb.text(text), wide=True)
        + sb.event(0x216, 1000, 10, 4, sb.s64(3)) + sb.event(0x216, 1001, 10, 5, sb.s64(0))
    )  # fmt: skip
    return path


def test_rows_of_a_container(tmp_path):
    rows = Capture.open(in_pod(tmp_path)).rows("container").collect()
    assert rows.select("container_id", "container_name", "image", "pod", "namespace").rows() == [
        (ID, "nginx", "reg:5000/nginx:1", "web-1", "shop")
    ]


@pytest.mark.skipif(not sysdig.SYSDIG, reason="sysdig is not installed")
def test_sysdig_is_told_name_and_image(tmp_path, monkeypatch):
    """Written from rows, as of a recording."""
    convert.convert_files([in_pod(tmp_path)], tmp_path / "a.parquet")
    monkeypatch.setattr("stratokit.engine.scap.as_it_was.came_from_scap", lambda _: False)
    convert.convert_files([tmp_path / "a.parquet"], tmp_path / "b.scap")
    fields = ("evt.type", "container.id", "container.name", "container.image", "container.image.tag")
    shown = sysdig.events(tmp_path / "b.scap", *fields).filter(pl.col("evt.type") == "close")
    assert set(shown.select(*fields[1:]).rows()) == {(ID[:12], "nginx", "reg:5000/nginx:1", "1")}
