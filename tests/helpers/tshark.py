"""tshark and its relatives as oracles."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

import pytest

# One pass, no names, no reassembly: fields of a frame come from that frame alone.
PLAIN = (
    "-n",
    "-o",
    "ip.defragment:FALSE",
    "-o",
    "ipv6.defragment:FALSE",
    "-o",
    "tcp.desegment_tcp_streams:FALSE",
)


@functools.cache
def _program(name: str) -> str | None:
    return shutil.which(name)


def need(name: str) -> str:
    """Path of a program; the test is skipped where it is not installed."""
    path = _program(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command: str, must_succeed: bool = True) -> tuple[str, str]:
    """Output and complaints of a program."""
    done = subprocess.run([need(command[0]), *command[1:]], capture_output=True, text=True, check=False)
    complaints = [
        line
        for line in done.stderr.splitlines()
        if "could be dangerous" not in line and "reading from" not in line
    ]
    assert done.returncode == 0 or not must_succeed, done.stderr
    return done.stdout, "\n".join(complaints)


def fields(
    path: Path, *names: str, occurrence: str = "f", may_complain: bool = False
) -> list[tuple[str, ...]]:
    """Values of `names` for each frame; nothing may be said on stderr but of files known to be damaged."""
    arguments = [part for name in names for part in ("-e", name)]
    command = (
        "tshark",
        *PLAIN,
        "-r",
        str(path),
        "-T",
        "fields",
        "-E",
        f"occurrence={occurrence}",
        *arguments,
    )
    out, complaints = run(*command, must_succeed=not may_complain)
    assert may_complain or not complaints
    return [tuple(line.split("\t")) for line in out.splitlines()]
