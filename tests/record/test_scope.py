"""Containers, from folders laid out as runtimes and kubelet lay them out; what a scope means of them."""

import json

import pytest

from stratokit.errors import RecordError, UsageError
from stratokit.record import scope
from stratokit.record.container_names import NameSources
from stratokit.record.containers import containers
from stratokit.record.options import Scope
from stratokit.record.procfs import Brief

A, B, C, D = "a" * 64, "b" * 64, "c" * 64, "d" * 64
U1 = "11111111-2222-4333-8444-555555555555"
U2 = "66666666-7777-4888-9999-aaaaaaaaaaaa"
STATIC = "0123456789abcdef0123456789abcdef"


def file(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def systemd(uid, quality=""):
    inner = f"kubepods{quality}-pod{uid.replace('-', '_')}.slice"
    return f"/kubepods.slice/{f'kubepods{quality}.slice/' if quality else ''}{inner}"


@pytest.fixture
def containerd(tmp_path):
    """A pod of two containers under containerd and kubelet's systemd driver."""
    task = tmp_path / "run/containerd/io.containerd.runtime.v2.task/k8s.io"
    common = {
        "io.kubernetes.cri.sandbox-name": "my-app-7d9f8b6c5d-x2x4z",
        "io.kubernetes.cri.sandbox-uid": U1,
    }
    common["io.kubernetes.cri.sandbox-namespace"] = "shop"
    app = {
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.image-name": "registry.example/app:1",
    }
    file(task / A / "config.json", {"annotations": common | app})
    file(task / B / "config.json", {"annotations": common | {"io.kubernetes.cri.container-type": "sandbox"}})
    (tmp_path / f"var/log/pods/shop_my-app-7d9f8b6c5d-x2x4z_{U1}/app").mkdir(parents=True)
    folder = systemd(U1, "-burstable")
    return tmp_path, {
        1: "/",
        5: "/system.slice/nginx.service",
        10: folder,
        11: f"{folder}/cri-containerd-{A}.scope",
        12: f"{folder}/cri-containerd-{A}.scope/init",
        13: f"{folder}/cri-containerd-{B}.scope",
    }


def named(found):
    return {
        c.container_id: (c.names.container_name, c.names.pod, c.names.namespace, c.names.image) for c in found
    }


def test_containerd(containerd):
    root, groups = containerd
    found = containers(groups, root=root)
    pod = ("my-app-7d9f8b6c5d-x2x4z", "shop")
    assert named(found) == {A: ("app", *pod, "registry.example/app:1"), B: (None, *pod, None)}
    assert {c.runtime for c in found} == {"containerd"}
    assert {c.names.pod_uid for c in found} == {U1}
    assert {c.names.source for c in found} == {"containerd"}
    # A cgroup that a container makes inside of its own is no other container.
    assert {c.cgroup_id for c in found} == {11, 13}


def test_crio_with_logs(tmp_path):
    state = {"annotations": {"io.kubernetes.pod.name": "db-0", "io.kubernetes.pod.namespace": "shop"}}
    state["annotations"] |= {"io.kubernetes.container.name": "db", "io.kubernetes.pod.uid": U2}
    state["annotations"]["io.kubernetes.cri-o.ImageName"] = "quay.example/db:9"
    file(tmp_path / f"run/containers/storage/overlay-containers/{A}/userdata/config.json", state)
    file(tmp_path / f"var/log/containers/db-0_shop_backup-{B}.log")
    folder = systemd(U2)
    groups = {1: "/", 2: folder, 3: f"{folder}/crio-{A}.scope", 4: f"{folder}/crio-{B}.scope"}
    groups[5] = f"{folder}/crio-conmon-{C}.scope"
    found = containers(groups, root=tmp_path)
    assert named(found) == {
        A: ("db", "db-0", "shop", "quay.example/db:9"),
        B: ("backup", "db-0", "shop", None),
    }
    assert [c.names.source for c in found] == ["crio", "container logs"]
    assert {c.names.pod_uid for c in found} == {U2}


def test_docker_and_its_pods(tmp_path):
    place = tmp_path / "var/lib/docker/containers"
    file(place / A / "config.v2.json", {"Name": "/web", "Config": {"Image": "nginx:1", "Labels": {}}})
    labels = {
        "io.kubernetes.pod.name": "p",
        "io.kubernetes.pod.namespace": "n",
        "io.kubernetes.container.name": "c",
    }
    file(place / B / "config.v2.json", {"Name": "/k8s_c_p_n_x_0", "Config": {"Image": "i", "Labels": labels}})
    groups = {1: f"/system.slice/docker-{A}.scope", 2: f"/docker/{C}", 3: f"/kubepods/pod{U1}/{B}"}
    found = containers(groups, root=tmp_path)
    assert named(found) == {
        A: ("web", None, None, "nginx:1"),
        B: ("c", "p", "n", "i"),
        C: (None, None, None, None),
    }
    assert {c.container_id: c.names.source for c in found} == {A: "docker", B: "docker", C: "path"}


def test_podman(tmp_path):
    storage = tmp_path / "var/lib/containers/storage/overlay-containers"
    file(storage / "containers.json", [{"id": A, "names": ["web"]}, {"id": B}, 5])
    found = containers({7: f"/machine.slice/libpod-{A}.scope/container"}, root=tmp_path)
    assert named(found) == {A: ("web", None, None, None)}
    assert found[0].runtime == "podman"


@pytest.mark.parametrize("uid", [U1, STATIC])
def test_kubelet_alone(tmp_path, uid):
    """cgroupfs driver; the runtime's state is out of reach, so kubelet's folders name the pod."""
    folder = tmp_path / "var/lib/kubelet/pods" / uid
    file(folder / "etc-hosts", "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.1.2.3\tapi-5d4\n")
    file(folder / "volumes/kubernetes.io~projected/kube-api-access-x/namespace", "prod")
    (found,) = containers({3: f"/kubepods/besteffort/pod{uid}/{A}"}, root=tmp_path)
    assert (found.names.pod, found.names.namespace, found.names.source) == ("api-5d4", "prod", "kubelet")


def test_hostile_state_is_passed_over(tmp_path):
    place = tmp_path / "var/lib/docker/containers"
    file(place / A / "config.v2.json", "[" * 100_000)
    file(place / B / "config.v2.json", {"Name": 7, "Config": [], "x": {"Labels": 3}})
    file(tmp_path / "var/log/pods/a_b_c_d_e/x")
    (tmp_path / "var/lib/containers/storage/overlay-containers").mkdir(parents=True)
    found = containers({1: f"/docker/{A}", 2: f"/docker/{B}"}, root=tmp_path)
    assert named(found) == {A: (None,) * 4, B: ("7", None, None, None)}


def test_containers_without_a_cgroup_of_version_2(tmp_path):
    processes = {20: f"/docker/{A}", 21: f"/docker/{A}", 22: "/user.slice"}
    (found,) = containers({1: "/"}, processes, root=tmp_path)
    assert (found.cgroup_id, found.pids) == (0, (20, 21))
    assert scope.choose(Scope(containers=(A[:12],)), {1: "/"}, [found]).pids == {20, 21}


@pytest.mark.parametrize(
    ("wanted", "groups"),
    [
        # The cgroup of the pod: containers that it starts later are inside.
        (Scope(pods=("my-app",)), {10}),
        (Scope(pods=("my-app-7d9f8b6c5d-x2x4z",)), {10}),
        (Scope(pods=("my-*",)), {10}),
        (Scope(namespaces=("shop",)), {10}),
        (Scope(containers=("app",)), {11}),
        (Scope(containers=(B[:12],)), {13}),
        (Scope(containers=("app",), pods=("my-app",)), {10}),
        (Scope(cgroups=("/system.slice",), containers=("app",)), {11}),
        (Scope(cgroups=("/system.slice/nginx.service",), containers=("app",)), {5, 11}),
        (Scope(cgroups=("/",), pods=("my-app",)), {1}),
        (Scope(pods=("my",)), set()),
    ],
)
def test_what_is_chosen(containerd, wanted, groups):
    root, paths = containerd
    assert set(scope.choose(wanted, paths, containers(paths, root=root)).groups) == groups


def test_containerds_own_layout_has_no_cgroup_for_the_pod(tmp_path):
    """/system.slice/containerd.service/kubepods-...:cri-containerd:<id>: each is chosen by itself."""
    (tmp_path / f"var/log/pods/shop_web-0_{U1}/app").mkdir(parents=True)
    base = (
        f"/system.slice/containerd.service/kubepods-burstable-pod{U1.replace('-', '_')}.slice:cri-containerd:"
    )
    paths = {1: "/", 2: base + A, 3: base + B}
    assert set(scope.choose(Scope(pods=("web",)), paths, containers(paths, root=tmp_path)).groups) == {2, 3}


@pytest.mark.parametrize(
    ("pod", "name", "same"),
    [
        ("my-app-7d9f8b6c5d-x2x4z", "my-app", True),
        ("my-app-x2x4z", "my-app", True),
        ("db-0", "db", True),
        ("db-backup", "db", False),
        ("my-app-canary-7d9f8b6c5d-x2x4z", "my-app", False),
        ("my-application", "my-app", False),
        (None, "my-app", False),
    ],
)
def test_pods_of_a_workload(pod, name, same):
    assert scope.is_pod(pod, name) is same


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (Scope(pods=("my-ap",)), "no pod of this host is called my-ap; there is my-app-7d9f8b6c5d-x2x4z"),
        (Scope(namespaces=("shpo",)), "no pod of this host is in the namespace shpo; there is shop"),
        (Scope(containers=("apq",)), "no container of this host has the id or name apq; there is app"),
    ],
)
def test_what_is_missing_is_told_with_what_is_near(containerd, wanted, sentence):
    root, paths = containerd
    with pytest.raises(RecordError, match=sentence):
        scope.missing(wanted, containers(paths, root=root), NameSources(root))


def test_without_kubernetes_pods_mean_nothing(tmp_path):
    with pytest.raises(RecordError, match=r"no Kubernetes pods .* --pod web means nothing here; choose"):
        scope.missing(Scope(pods=("web",)), [], NameSources(tmp_path))
    (tmp_path / "var/log/pods").mkdir(parents=True)
    with pytest.raises(RecordError, match="no pod of this host is called web"):
        scope.missing(Scope(pods=("web",)), [], NameSources(tmp_path))


def test_members_are_descendants_users_names_and_cgroups():
    table = {
        1: Brief(1, 0, 0, "init", "/"),
        2: Brief(2, 1, 7, "sh", "/a"),
        3: Brief(3, 2, 7, "worker", "/a/b"),
        4: Brief(4, 1, 8, "nginx", "/c"),
        5: Brief(5, 4, 9, "nginx-helper", "/ab"),
    }
    assert scope.with_descendants([2], table) == {2, 3}
    assert scope.with_descendants([99], table) == set()
    chosen = scope.Chosen({4: "/a"}, frozenset(), ())
    assert scope.members(Scope(cgroups=("/a",)), chosen, table, ()) == {2, 3}
    none = scope.Chosen({}, frozenset(), ())
    assert scope.members(Scope(comms=("nginx",)), none, table, ()) == {4}
    assert scope.members(Scope(uids=(9,)), none, table, [1, 77]) == {1, 5}


@pytest.mark.parametrize("name", ["", "a-name-of-sixteen"])
def test_names_of_processes_have_a_length(name):
    with pytest.raises(UsageError, match="--comm takes a name of 1 to 15 bytes"):
        scope.check(Scope(comms=(name,)))
