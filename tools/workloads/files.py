"""A program that opens, writes, reads, renames and unlinks files, each a known number of times.

It writes 97 bytes to each of `opens` new files, opens `missing` ones that are not there, reads `reads` of
the new files, renames the first `renames` and unlinks the next `unlinks`. Where gcc is it is compiled from
files.c, because a C program adds only the loader's own few calls; otherwise this module is the program.
Either way count openat by path: the start of the program opens libraries.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from workloads.common import WorkloadError, find_program, python_child

PAYLOAD_BYTES = 97


@dataclass(frozen=True)
class FileWork:
    """Paths in the order of the calls. `opened` has every successful openat, `missing` every ENOENT."""

    pid: int
    comm: str
    opened: list[str]
    missing: list[str]
    writes: int
    reads: int
    renamed: list[tuple[str, str]]
    unlinked: list[str]


def work_on_files(
    folder: Path, opens: int = 31, missing: int = 7, reads: int = 11, renames: int = 5, unlinks: int = 3
) -> FileWork:
    """Run the program in `folder`, an empty directory."""
    counts = [str(count) for count in (opens, missing, reads, renames, unlinks)]
    compiler = find_program("gcc")
    if compiler:
        binary = folder / "files"
        subprocess.run([compiler, "-O1", "-o", binary, Path(__file__).with_suffix(".c")], check=True)
        process: subprocess.Popen[str] = subprocess.Popen([binary, folder, *counts], text=True)
    else:
        process = python_child("workloads.files", str(folder), *counts)
    process.communicate()
    if process.returncode != 0:
        raise WorkloadError(f"the file program ended with {process.returncode}")

    def paths(name: str, first: int, count: int) -> list[str]:
        return [f"{folder}/{name}{i:03d}" for i in range(first, first + count)]

    return FileWork(
        pid=process.pid,
        comm="files" if compiler else Path(sys.executable).name[:15],
        opened=paths("file", 0, opens) + paths("file", 0, reads),
        missing=paths("missing", 0, missing),
        writes=opens,
        reads=reads,
        renamed=list(zip(paths("file", 0, renames), paths("moved", 0, renames), strict=True)),
        unlinked=paths("file", renames, unlinks),
    )


def main(folder: str, opens: int, missing: int, reads: int, renames: int, unlinks: int) -> None:
    """The same calls in the same order as files.c."""
    for i in range(opens):
        fd = os.open(f"{folder}/file{i:03d}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(fd, b"x" * PAYLOAD_BYTES)
        os.close(fd)
    for i in range(missing):
        try:
            os.open(f"{folder}/missing{i:03d}", os.O_RDONLY)
        except FileNotFoundError:
            continue
    for i in range(reads):
        fd = os.open(f"{folder}/file{i:03d}", os.O_RDONLY)
        os.read(fd, PAYLOAD_BYTES)
        os.close(fd)
    for i in range(renames):
        os.rename(f"{folder}/file{i:03d}", f"{folder}/moved{i:03d}")
    for i in range(renames, renames + unlinks):
        os.unlink(f"{folder}/file{i:03d}")


if __name__ == "__main__":
    main(sys.argv[1], *(int(argument) for argument in sys.argv[2:7]))
