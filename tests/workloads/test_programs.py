"""The programs that touch files and processes make exactly the calls their truth says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from workloads import files, shell
from workloads.common import TOOLS, WorkloadError, find_program, program

needs_strace = pytest.mark.skipif(not find_program("strace"), reason="needs strace")


@pytest.mark.parametrize("compiled", [True, False])
def test_file_work_leaves_what_it_says(tmp_path, monkeypatch, compiled):
    if compiled and not find_program("gcc"):
        pytest.skip("needs gcc")
    if not compiled:
        monkeypatch.setattr(files, "find_program", lambda _: None)

    work = files.work_on_files(tmp_path, opens=31, missing=7, reads=11, renames=5, unlinks=3)

    assert (len(work.opened), len(work.missing), work.writes, work.reads) == (31 + 11, 7, 31, 11)
    left = {str(path) for path in tmp_path.iterdir() if path.name != "files"}
    renamed_from, renamed_to = (set(paths) for paths in zip(*work.renamed, strict=True))
    assert left == set(work.opened) - renamed_from - set(work.unlinked) | renamed_to


def strace(tmp_path: Path, argv: list[str]) -> Counter[str]:
    """Calls on our own files, as strace sees them."""
    log = tmp_path / "strace.log"
    subprocess.run([program("strace"), "-f", "-o", log, *argv], check=True, env={"PYTHONPATH": str(TOOLS)})
    calls = Counter()
    for line in log.read_text().splitlines():
        if found := re.match(r"\d+\s+(\w+)\(", line):
            calls[found[1]] += f'"{tmp_path}/work/' in line or f'"{"x" * 32}"...' in line
    return calls


@needs_strace
@pytest.mark.parametrize("compiled", [True, False])
def test_strace_counts_the_same_calls(tmp_path, compiled):
    counts = ["31", "7", "11", "5", "3"]
    work = tmp_path / "work"
    work.mkdir()
    argv = [sys.executable, "-m", "workloads.files"]
    if compiled:
        if not find_program("gcc"):
            pytest.skip("needs gcc")
        argv = [str(tmp_path / "files")]
        subprocess.run([program("gcc"), "-o", argv[0], TOOLS / "workloads/files.c"], check=True)

    calls = strace(tmp_path, [*argv, str(work), *counts])

    assert calls["openat"] == 31 + 7 + 11
    assert (calls["write"], calls["read"]) == (31, 11)
    assert calls["rename"] + calls["renameat"] + calls["renameat2"] == 5
    assert calls["unlink"] + calls["unlinkat"] == 3


def test_a_failing_file_program_is_an_error(tmp_path):
    with pytest.raises(WorkloadError, match="ended with 1"):
        files.work_on_files(tmp_path, opens=1, reads=2)


def test_shell_forks_as_often_as_asked():
    work = shell.fork_processes(succeeding=13, failing=5)

    assert Counter(child.exit_code for child in work.children) == {0: 13, 1: 5}
    assert len({child.pid for child in work.children} | {work.pid}) == 19
