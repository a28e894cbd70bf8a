"""Programs that do unusual things with names, directories, descriptors and processes.

As a program: `python -m workloads.oddities SCENARIO FOLDER`; it prints what it did as one JSON object.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from workloads.common import WorkloadError, python_child

SHORT_PROCESSES = 97
LONG_ARGUMENT = "x" * 5003


def run(scenario: str, folder: Path) -> dict[str, Any]:
    process = python_child("workloads.oddities", scenario, str(folder))
    said = process.communicate()[0]
    if process.returncode:
        raise WorkloadError(f"{scenario} ended with {process.returncode}")
    facts: dict[str, Any] = json.loads(said) | {"pid": process.pid}
    return facts


def _touch(path: str, folder: int | None = None) -> None:
    file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=folder)
    _state(file, b"")
    os.close(file)


def _state(file: int, name: bytes) -> int:
    """Ask for the state of an open file itself where the name is empty, as the C library's fstat does."""
    at_empty_path, basic = 0x1000, 0x7FF  # fcntl.h, linux/stat.h
    return int(ctypes.CDLL(None).statx(file, name, at_empty_path, basic, ctypes.create_string_buffer(256)))


def folders(root: str) -> dict[str, Any]:
    """Relative names from a current directory that changes, from descriptors, and in a child."""
    made = []
    os.chdir(root)
    _touch("one")
    made.append(f"{root}/one")
    os.mkdir("inner")
    os.chdir("inner")
    _touch("./two")
    made.append(f"{root}/inner/two")
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    inner = os.open("inner", os.O_RDONLY | os.O_DIRECTORY, dir_fd=top)
    _touch("three", inner)
    made.append(f"{root}/inner/three")
    if (child := os.fork()) == 0:
        _touch("four")
        os.chdir("/")
        os._exit(0)
    os.waitpid(child, 0)
    made.append(f"{root}/inner/four")
    os.fchdir(top)
    _touch("five")
    made.append(f"{root}/five")
    os.rename("five", "six", src_dir_fd=top, dst_dir_fd=inner)
    os.symlink("six", "seven", dir_fd=inner)
    _state(999, b"")
    return {
        "made": made,
        "child": child,
        "renamed": [f"{root}/five", f"{root}/inner/six"],
        "linked": ["six", f"{root}/inner/seven"],
    }


def names(root: str) -> dict[str, Any]:
    """Bytes that are no UTF-8, in a path, a program's name and an argument."""
    base = os.fsencode(root)
    for name in (b"caf\xe9", b"caf\xea"):
        os.close(os.open(base + b"/" + name, os.O_CREAT | os.O_WRONLY, 0o600))
    program = base + b"/pr\xf6g"
    os.symlink("/bin/true", program)
    child = subprocess.Popen([program, b"arg\xff"])
    child.wait()
    return {"made": [f"{root}/caf\\xe9", f"{root}/caf\\xea"], "child": child.pid}


def duplicates(root: str) -> dict[str, Any]:
    """One open file by other numbers: dup, dup2 over another file, and in a child."""
    first = os.open(f"{root}/first", os.O_CREAT | os.O_WRONLY, 0o600)
    second = os.open(f"{root}/second", os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(second, b"2")
    os.dup2(first, second)
    os.write(second, b"1")
    copy = os.dup(first)
    os.close(first)
    os.write(copy, b"1")
    if (child := os.fork()) == 0:
        os.write(copy, b"1")
        os._exit(0)
    os.waitpid(child, 0)
    return {"child": child}


def threads(root: str) -> dict[str, Any]:
    """A thread that is not the first one executes a program, which gets the process's first number."""
    if (child := os.fork()) == 0:
        other = threading.Thread(target=os.execv, args=("/bin/cat", ["cat", "/dev/null"]))
        other.start()
        other.join()
    os.waitpid(child, 0)
    return {"child": child, "root": root}


def short(root: str) -> dict[str, Any]:
    """Processes that end at once."""
    children = []
    for _ in range(SHORT_PROCESSES):
        child = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(child, 0)
        children.append(child)
    return {"children": children, "root": root}


def arguments(root: str) -> dict[str, Any]:
    """Arguments that a shell would quote, and more than is kept."""
    pids = []
    for argument in ("a b", "it's", "", LONG_ARGUMENT):
        child = subprocess.Popen(["/bin/true", argument, "last"])
        child.wait()
        pids.append(child.pid)
    return {"children": pids, "root": root}


if __name__ == "__main__":
    scenarios = {
        function.__name__: function for function in (folders, names, duplicates, threads, short, arguments)
    }
    print(json.dumps(scenarios[sys.argv[1]](sys.argv[2])))
