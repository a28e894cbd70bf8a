"""Programs that run inside a cgroup of their own."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

PYTHON = "/usr/bin/python3"
CGROUPS = Path("/sys/fs/cgroup/unified" if Path("/sys/fs/cgroup/unified").is_dir() else "/sys/fs/cgroup")


@contextlib.contextmanager
def running(*argv, group=None):
    """A program that reads lines and answers each, in a cgroup of its own where asked."""
    if group is not None:
        # As runtimes do it: into the cgroup first, then the program.
        argv = ("sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group), *argv)
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def cgroup(*names):
    """A new cgroup below the root; the outermost folder goes at the end with all inside."""
    path = CGROUPS.joinpath(*names)
    made = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                for folder, _, _ in os.walk(made[-1], topdown=False):
                    os.rmdir(folder)
            if not made[-1].exists():
                break
            time.sleep(0.02)
