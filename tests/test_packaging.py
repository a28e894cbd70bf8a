"""Files of packaging/: their options exist, their fields are those that systemd and Kubernetes document."""

import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from stratokit.cli.app import app

PACKAGING = Path(__file__).resolve().parents[1] / "packaging"
UNIT = PACKAGING / "systemd/stratokit.service"
# What a recording as another user than root needs, and what names older descriptors.
CAPABILITIES = {"BPF", "PERFMON", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"}
# Fields of what is used, from the API reference of Kubernetes 1.30; a set has the fields inside.
META = {"name", "namespace", "labels"}
CONTAINER = {
    "name": None,
    "image": None,
    "imagePullPolicy": None,
    "args": None,
    "env": {"name", "value"},
    "resources": {"requests", "limits"},
    "securityContext": {
        "runAsUser",
        "privileged",
        "allowPrivilegeEscalation",
        "readOnlyRootFilesystem",
        "seccompProfile",
        "capabilities",
    },
    "volumeMounts": {"name", "mountPath", "readOnly"},
}
POD = {
    "hostPID",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "terminationGracePeriodSeconds",
    "tolerations",
    "containers",
    "volumes",
}


def record_options(arguments: list[str]) -> None:
    """Parse them as the program does, and record nothing."""
    command = typer.main.get_command(app).commands["record"]
    assert arguments[0] == "record"
    context = command.make_context("record", list(arguments[1:]))
    assert context.params["keep"]


def unit_lines() -> list[tuple[str, str]]:
    lines = (line for line in UNIT.read_text().splitlines() if "=" in line and line[0] not in "#;[")
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def test_the_unit_starts_the_program_with_options_that_it_has():
    (start,) = [value for name, value in unit_lines() if name == "ExecStart"]
    words = start.replace("%%", "%").replace("%S", "/var/lib").split()
    assert Path(words[0]).name == "stratokit"
    record_options(words[1:])
    granted = " ".join(value for name, value in unit_lines() if name == "AmbientCapabilities").split()
    bound = next(value for name, value in unit_lines() if name == "CapabilityBoundingSet").split()
    assert set(granted) == set(bound) == {f"CAP_{name}" for name in CAPABILITIES}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is missing")
def test_systemd_understands_the_unit_and_finds_it_little_exposed(tmp_path):
    unit = tmp_path / "stratokit.service"
    unit.write_text(UNIT.read_text().replace("/opt/stratokit/bin/stratokit", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", unit]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-200:]


def manifest() -> tuple[dict, dict]:
    namespace, daemons = yaml.safe_load_all((PACKAGING / "kubernetes/stratokit.yaml").read_text())
    return namespace, daemons


def test_the_manifest_has_documented_fields_alone():
    namespace, daemons = manifest()
    assert namespace.keys() == {"apiVersion", "kind", "metadata"}
    assert (namespace["apiVersion"], namespace["kind"]) == ("v1", "Namespace")
    assert (daemons["apiVersion"], daemons["kind"]) == ("apps/v1", "DaemonSet")
    assert daemons.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert daemons["metadata"].keys() <= META
    assert daemons["spec"].keys() == {"selector", "template"}
    template = daemons["spec"]["template"]
    assert daemons["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    assert template["spec"].keys() <= POD
    (container,) = template["spec"]["containers"]
    assert container.keys() <= CONTAINER.keys()
    for name, inner in CONTAINER.items():
        values = container[name] if isinstance(container[name], list) else [container[name]]
        for value in values if inner else ():
            assert value.keys() <= inner
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in template["spec"]["volumes"]}
    kinds = {key for volume in template["spec"]["volumes"] for key in volume if key != "name"}
    assert kinds == {"hostPath", "emptyDir"}


def test_the_manifest_asks_for_the_least():
    _, daemons = manifest()
    pod = daemons["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    record_options(container["args"])
    context = container["securityContext"]
    assert context["privileged"] is context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"]["drop"] == ["ALL"]
    assert set(context["capabilities"]["add"]) == CAPABILITIES
    assert pod["automountServiceAccountToken"] is False
    assert "hostNetwork" not in pod
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/var/lib/stratokit", "/tmp"]
