"""A shell script that starts a known number of processes, some of which fail."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from workloads.common import WorkloadError, program

# Each command in the background is one fork and one exec; `wait PID` gives its exit code.
SCRIPT = """
run() {
    "$1" &
    child=$!
    wait $child
    echo "$1 $child $?"
}
i=0; while [ $i -lt $1 ]; do run "$3"; i=$((i + 1)); done
i=0; while [ $i -lt $2 ]; do run "$4"; i=$((i + 1)); done
"""


@dataclass(frozen=True)
class Child:
    exe: str
    pid: int
    exit_code: int


@dataclass(frozen=True)
class ShellWork:
    """`children` were each forked by the shell `pid` and executed `exe`; the shell is one more process."""

    pid: int
    children: list[Child]


def fork_processes(succeeding: int = 13, failing: int = 5) -> ShellWork:
    argv = ["/bin/sh", "-c", SCRIPT, "sh", str(succeeding), str(failing), program("true"), program("false")]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        said = process.communicate()[0]
    lines = [line.split() for line in said.splitlines()]
    if len(lines) != succeeding + failing:
        raise WorkloadError(f"the shell script ended with {process.returncode} after {len(lines)} processes")
    return ShellWork(process.pid, [Child(exe, int(pid), int(code)) for exe, pid, code in lines])
