"""cgroup paths as runtimes and kubelet make them."""

import pytest

from stratokit.schema.cgroup_paths import container_of

C = "0123456789abcdef" * 4
D = "fedcba9876543210" * 4
U = "11111111-2222-3333-4444-555555555555"
U_ = U.replace("-", "_")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/kubepods/pod{U}/{C}", (C, U, None)),
        (f"/kubepods/burstable/pod{U}/{C}", (C, U, None)),
        (f"/kubepods.slice/kubepods-pod{U_}.slice/cri-containerd-{C}.scope", (C, U, "containerd")),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U_}.slice/crio-{C}.scope",
            (C, U, "crio"),
        ),
        (
            f"/system.slice/containerd.service/kubepods-burstable-pod{U_}.slice:cri-containerd:{C}",
            (C, U, "containerd"),
        ),
        (f"/docker/{C}", (C, None, "docker")),
        (f"/system.slice/docker-{C}.scope", (C, None, "docker")),
        (f"/machine.slice/libpod-{C}.scope/container", (C, None, "podman")),
        (
            f"/docker/{D}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{U_}.slice/cri-containerd-{C}.scope",
            (C, U, "containerd"),
        ),
        (f"/machine.slice/libpod-conmon-{C}.scope", (None, None, None)),
        ("/lxc.payload.web1/init.scope", ("web1", None, "lxc")),
        ("/system.slice/nginx.service", (None, None, None)),
        ("/", (None, None, None)),
    ],
)
def test_container_of(path, expected):
    assert container_of(path) == expected
