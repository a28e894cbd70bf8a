"""This program as user nobody runs it."""

import contextlib
import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534
ROOT = Path(__file__).resolve().parents[1]


def as_nobody(*capabilities: str) -> tuple[str, ...]:
    """A prefix that runs a command as uid 65534 with these capabilities and no others, not even in reach."""
    names = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    return (
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
        *(f"--inh-caps={names}", f"--ambient-caps={names}", f"--bounding-set={names}"),
        *("env", f"PYTHONPATH={ROOT}:{site_packages()}", "HOME=/nonexistent"),
    )


def site_packages() -> str:
    return next(path for path in sys.path if path.endswith("site-packages"))


@functools.cache
def python_for_nobody() -> str:
    """An interpreter of this version that user nobody may run: ours may lie in a home directory."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}"):
        command = [*as_nobody(), candidate, "-c", "import stratokit, typer"]
        if subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0:
            return candidate
    raise AssertionError(f"no {version} that user nobody may run")


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that nobody may write to and reach: those of pytest are for their user alone."""
    with tempfile.TemporaryDirectory(prefix="stratokit-", dir="/tmp") as place:
        Path(place).chmod(0o777)
        yield Path(place)
