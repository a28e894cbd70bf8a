#!/usr/bin/env python3
"""Record under another kernel: boots one of Debian's in qemu, on this machine's files, and says what works.

    tools/other_kernel.py linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb [--root CHROOT] [--python PYTHON]

The packages come from `apt-get download linux-image-...`. Needs qemu-system-x86_64, busybox-static, cpio,
dpkg-deb and kmod. The guest's root is this machine's (or CHROOT with its own bcc), read-only by 9p under a
layer in memory; inside runs
tools/recording_check.py, whose line is printed. Software emulation takes two minutes or more.
"""

from __future__ import annotations

import argparse
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
INIT = """#!/bin/sh
mount -t proc none /proc; mount -t devtmpfs none /dev; mount -t tmpfs none /layer
for module in /modules/*; do insmod $module; done
mkdir -p /layer/up /layer/work /lower /new
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose root /lower
mount -t overlay -o lowerdir=/lower,upperdir=/layer/up,workdir=/layer/work none /new
mount -t proc none /new/proc; mount -t sysfs none /new/sys; mount -t devtmpfs none /new/dev
mount -t tmpfs none /new/tmp; mount -t tmpfs none /new/run
mkdir -p /new{repository}
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose repository /new{repository}
mount -t cgroup2 none /new/sys/fs/cgroup
ip link set lo up
echo "began"
chroot /new {command}
echo "ended $?"
poweroff -f
"""


def module_files(tree: Path, version: str) -> list[Path]:
    """Modules with all that they need, in order."""
    subprocess.run(["depmod", "-b", tree, version], check=True, stderr=subprocess.DEVNULL)
    found: list[Path] = []
    for name in MODULES:
        command = ["modprobe", "-d", str(tree), "-S", version, "--show-depends", name]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # fails on one built in
        found += [Path(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("insmod")]
    return list(dict.fromkeys(found))


def initramfs(folder: Path, tree: Path, version: str, command: str) -> Path:
    """busybox, modules and INIT."""
    inside = folder / "initramfs"
    for name in ("bin", "modules", "proc", "dev", "layer"):
        (inside / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", inside / "bin/busybox")
    for applet in ("sh", "mount", "insmod", "mkdir", "chroot", "poweroff", "ip", "echo"):
        (inside / "bin" / applet).symlink_to("busybox")
    for index, path in enumerate(module_files(tree, version)):
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
        (inside / "modules" / f"{index:02}-{path.name.removesuffix('.xz')}").write_bytes(data)
    init = inside / "init"
    init.write_text(INIT.replace("{command}", command).replace("{repository}", str(ROOT)))
    init.chmod(0o755)
    image = folder / "initramfs.img"
    names = "\n".join(str(path.relative_to(inside)) for path in inside.rglob("*"))
    with image.open("wb") as file:
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], input=names.encode(), cwd=inside, stdout=file, check=True
        )
    return image


def share(name: str, path: Path) -> list[str]:
    return [
        "-fsdev", f"local,id={name},path={path},security_model=none,readonly=on,multidevs=remap",
        "-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}",
    ]  # fmt: skip


def boot(packages: list[Path], root: Path, python: str, minutes: int, kvm: bool) -> int:
    """Run the check under the kernel of `packages`; returns its exit code."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tree = folder / "tree"
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
        if not (tree / "lib").exists():
            (tree / "lib").symlink_to("usr/lib")
        (kernel,) = [path for path in tree.rglob("vmlinuz*") if path.is_file() and not path.is_symlink()]
        version = next((tree / "lib/modules").iterdir()).name
        path = f"{ROOT}:{site_packages()}"
        setting = f"STRATOKIT_DEBUG=1 PYTHONPATH={path} HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        command = f"/usr/bin/env {setting} {python} {ROOT}/tools/recording_check.py"
        image = initramfs(folder, tree, version, command)
        argv = ["qemu-system-x86_64", "-nodefaults", "-nographic", "-no-reboot", "-m", "3G", "-smp", "2"]
        argv += [
            "-machine",
            "q35",
            *(["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg", "-cpu", "max"]),
        ]
        argv += ["-serial", "stdio", "-kernel", str(kernel), "-initrd", str(image)]
        argv += ["-append", "console=ttyS0 quiet panic=-1", *share("root", root), *share("repository", ROOT)]
        done = subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60 * minutes,
        )
    _, began, said = done.stdout.partition("began\r\n")
    sys.stdout.write(said.replace("\r", "") if began else done.stdout + done.stderr)
    ended = re.search(r"ended (\d+)", said)
    return int(ended[1]) if ended else 1


def site_packages() -> str:
    return ":".join(path for path in sys.path if path.endswith("site-packages"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "packages", type=Path, nargs="+", help="newer ones come in linux-binary and linux-modules"
    )
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--python", default=os.path.realpath(sys.executable))
    parser.add_argument("--minutes", type=int, default=20)
    parser.add_argument("--kvm", action="store_true", help="where the machine's processors can do it")
    chosen = parser.parse_args()
    return boot(
        [path.resolve() for path in chosen.packages], chosen.root, chosen.python, chosen.minutes, chosen.kvm
    )


if __name__ == "__main__":
    sys.exit(main())
