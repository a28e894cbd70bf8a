"""A container by runc, on a root file system of a shell and a few programs, that does a known thing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workloads.common import WorkloadError, program

PROGRAMS = ("sh", "cat", "mv")
TEXT = "inside\n"
# Waits for the end of its input, so that it is still there when a recording ends.
SCRIPT = "cat /etc/what > /a.txt; mv /a.txt /b.txt; cat /b.txt; read line; exit 0"


@dataclass(frozen=True)
class Boxed:
    """`moved` was renamed inside, from and to; `programs` ran there."""

    container_id: str
    moved: tuple[str, str]
    programs: tuple[str, ...]


def root(folder: Path, programs: Iterable[str] = PROGRAMS) -> None:
    """A root file system of programs with the libraries that they are linked with."""
    for name in programs:
        source = Path(program(name)).resolve()
        said = subprocess.run([program("ldd"), source], capture_output=True, text=True, check=False).stdout
        for path in (str(source), *re.findall(r"(/\S+) \(0x", said)):
            target = folder / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        (folder / "bin").mkdir(exist_ok=True)
        if not (folder / "bin" / name).exists():
            shutil.copy2(source, folder / "bin" / name)
    for name in ("proc", "dev", "etc"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "etc" / "what").write_text(TEXT)


def _bundle(folder: Path, container_id: str) -> None:
    root(folder / "rootfs")
    subprocess.run([program("runc"), "spec"], cwd=folder, check=True, capture_output=True)
    config = json.loads((folder / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", SCRIPT]}
    config["root"]["readonly"] = False
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] in ("/proc", "/dev")]
    config["linux"]["cgroupsPath"] = f"/docker/{container_id}"
    (folder / "config.json").write_text(json.dumps(config))


@contextmanager
def container(folder: Path, container_id: str) -> Iterator[Boxed]:
    """Run it in `folder` as docker would place it; it has done its work when the body begins."""
    folder.mkdir()
    _bundle(folder, container_id)
    # Its own place for what runc notes, so that no other container is met.
    command = [program("runc"), "--root", str(folder / "state"), "run", "-b", str(folder), container_id[:12]]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        try:
            if said != TEXT:
                raise WorkloadError(f"the container said {said!r}: {process.communicate()[1]}")
            yield Boxed(container_id, ("/a.txt", "/b.txt"), PROGRAMS)
        finally:
            process.communicate("end\n")
